//! `bulkhead binding`.

use super::client::Client;
use super::failure::{FAILED, Failure, USAGE};
use super::plugin::short;
use super::{Format, output};
use bulkhead_admin_api::view::{BindingAsk, BindingView, ScopeView};
use bulkhead_model::plugin::{Mode, OnFailure, PluginName};
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List bindings, in the order in which they are asked
    Ls,
    /// Make a binding, or change one: what is not named stays. It holds from the next request on
    Set(Box<Set>),
    /// Show a binding with its settings
    Inspect { name: PluginName },
    /// Remove a binding; its plugin stays installed
    Rm { name: PluginName },
}

#[derive(Debug, Args)]
pub struct Set {
    name: PluginName,
    /// Name, digest, or the beginning of one; the binding's own name for a new one if it is not given
    #[arg(long)]
    plugin: Option<String>,
    /// Only for requests of this VCH
    #[arg(long, value_name = "NAME", conflicts_with_all = ["class", "everywhere"])]
    vch: Option<String>,
    /// Only for requests of VCHs of this class
    #[arg(long, conflicts_with = "everywhere")]
    class: Option<String>,
    /// For all requests; a new one is, if nothing else is said
    #[arg(long)]
    everywhere: bool,
    /// Lower ones are asked first; 0 for a new one
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    position: Option<i32>,
    /// `enforce` (a new one does), or `monitor`: what it says is written down and nothing else
    #[arg(long)]
    mode: Option<Mode>,
    /// What becomes of a request if the plugin fails: `refuse` (for a new one) or `skip`
    #[arg(long, value_name = "POLICY")]
    on_failure: Option<OnFailure>,
    /// A JSON object, or `@FILE` with one; `{}` for a new one
    #[arg(long, value_name = "JSON")]
    settings: Option<String>,
}

pub fn run(command: Command, client: &Client, format: Format) -> Result<(), Failure> {
    match command {
        Command::Ls => {
            let all: Vec<BindingView> = client.get("/v1/bindings")?;
            if format == Format::Json {
                return output::json(&all);
            }
            let rows: Vec<_> = all.iter().map(row).collect();
            output::table(
                &["NAME", "PLUGIN", "DIGEST", "SCOPE", "POSITION", "MODE", "ON FAILURE", "SETTINGS"],
                &rows,
            );
        }
        Command::Set(set) => {
            let name = set.name.clone();
            let all: Vec<BindingView> = client.get("/v1/bindings")?;
            let there = all.into_iter().find(|binding| binding.name == name.as_str());
            let binding: BindingView = client.put(&path(&name), &ask(*set, there)?)?;
            show(&binding, format)?;
        }
        Command::Inspect { name } => show(&client.get(&path(&name))?, format)?,
        Command::Rm { name } => client.delete(&path(&name))?,
    }
    Ok(())
}

fn path(name: &PluginName) -> String {
    format!("/v1/bindings/{name}")
}

/// What is asked for: what is named, and else what is there.
fn ask(set: Set, there: Option<BindingView>) -> Result<BindingAsk, Failure> {
    let base = match there {
        Some(BindingView { digest, scope, position, mode, on_failure, settings, .. }) => {
            BindingAsk { plugin: digest, scope, position, mode, on_failure, settings }
        }
        None => BindingAsk {
            plugin: set.name.to_string(),
            scope: ScopeView::Everywhere,
            position: 0,
            mode: Mode::Enforce,
            on_failure: OnFailure::Refuse,
            settings: serde_json::json!({}),
        },
    };
    Ok(BindingAsk {
        plugin: set.plugin.unwrap_or(base.plugin),
        scope: match (set.vch, set.class, set.everywhere) {
            (Some(vch), ..) => ScopeView::Vch(vch),
            (_, Some(class), _) => ScopeView::Class(class),
            (.., true) => ScopeView::Everywhere,
            (None, None, false) => base.scope,
        },
        position: set.position.unwrap_or(base.position),
        mode: set.mode.unwrap_or(base.mode),
        on_failure: set.on_failure.unwrap_or(base.on_failure),
        settings: set.settings.as_deref().map(settings).transpose()?.unwrap_or(base.settings),
    })
}

fn settings(text: &str) -> Result<serde_json::Value, Failure> {
    let read = match text.strip_prefix('@') {
        None => text.to_owned(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::new(FAILED, format!("`{file}`: {error}")))?,
    };
    serde_json::from_str(&read)
        .map_err(|error| Failure::new(USAGE, format!("--settings is no JSON: {error}")))
}

fn row(binding: &BindingView) -> Vec<String> {
    vec![
        binding.name.clone(),
        binding.plugin.clone(),
        short(&binding.digest).to_owned(),
        scope(&binding.scope),
        binding.position.to_string(),
        binding.mode.to_string(),
        binding.on_failure.to_string(),
        binding.settings.to_string(),
    ]
}

fn scope(scope: &ScopeView) -> String {
    match scope {
        ScopeView::Everywhere => "everywhere".into(),
        ScopeView::Class(class) => format!("class {class}"),
        ScopeView::Vch(id) => format!("VCH {id}"),
    }
}

fn show(binding: &BindingView, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(binding);
    }
    let lines = [
        ("name", binding.name.clone()),
        ("plugin", format!("{} {}", binding.plugin, binding.digest)),
        ("scope", scope(&binding.scope)),
        ("position", binding.position.to_string()),
        ("mode", binding.mode.to_string()),
        ("on failure", binding.on_failure.to_string()),
        ("settings", binding.settings.to_string()),
        ("revision", format!("{}, by {}", binding.revision, binding.changed_by)),
    ];
    output::text(&lines.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect::<String>());
    Ok(())
}
