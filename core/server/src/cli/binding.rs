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
    /// Make a binding, or put another in its place; it holds from the next request on
    Set(Box<Set>),
    /// Show a binding with its settings
    Inspect { name: PluginName },
    /// Remove a binding; its plugin stays installed
    Rm { name: PluginName },
}

#[derive(Debug, Args)]
pub struct Set {
    name: PluginName,
    /// Name, digest, or the beginning of one; the binding's own name if it is not given
    #[arg(long)]
    plugin: Option<String>,
    /// Only for requests of this VCH
    #[arg(long, value_name = "NAME", conflicts_with = "class")]
    vch: Option<String>,
    /// Only for requests of VCHs of this class
    #[arg(long)]
    class: Option<String>,
    /// Lower ones are asked first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    position: i32,
    /// `enforce`, or `monitor`: what it says is written down and nothing else
    #[arg(long, default_value_t = Mode::Enforce)]
    mode: Mode,
    /// What becomes of a request if the plugin fails: `refuse` or `skip`
    #[arg(long, value_name = "POLICY", default_value_t = OnFailure::Refuse)]
    on_failure: OnFailure,
    /// A JSON object, or `@FILE` with one
    #[arg(long, value_name = "JSON", default_value = "{}")]
    settings: String,
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
            let binding: BindingView = client.put(&path(&name), &ask(*set)?)?;
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

fn ask(set: Set) -> Result<BindingAsk, Failure> {
    let text = match set.settings.strip_prefix('@') {
        None => set.settings,
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::new(FAILED, format!("`{file}`: {error}")))?,
    };
    let settings = serde_json::from_str(&text)
        .map_err(|error| Failure::new(USAGE, format!("--settings is no JSON: {error}")))?;
    Ok(BindingAsk {
        plugin: set.plugin.unwrap_or_else(|| set.name.to_string()),
        scope: match (set.vch, set.class) {
            (Some(vch), _) => ScopeView::Vch(vch),
            (None, Some(class)) => ScopeView::Class(class),
            (None, None) => ScopeView::Everywhere,
        },
        position: set.position,
        mode: set.mode,
        on_failure: set.on_failure,
        settings,
    })
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
