//! `bulkhead plugin`.

mod build;
mod new;

use super::client::Client;
use super::failure::{FAILED, Failure, USAGE};
use super::{Format, output};
use bulkhead_admin_api::view::PluginView;
use chrono::SecondsFormat;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a crate to begin with, which builds and does something
    New(new::New),
    /// Make the component of a Rust crate
    Build(build::Build),
    #[command(flatten)]
    AtServer(AtServer),
}

/// What a server is asked for.
#[derive(Debug, Subcommand)]
pub enum AtServer {
    /// List installed plugins
    Ls,
    /// Install a component; it decides nothing until it is bound
    Install { file: PathBuf },
    /// Tell what a plugin says of itself, with the schema of its settings
    Inspect {
        /// Name, digest, or the beginning of one
        plugin: String,
    },
    /// Remove a plugin that nothing binds
    Rm {
        /// Name, digest, or the beginning of one
        plugin: String,
    },
}

pub fn run(
    command: Command,
    client: impl FnOnce() -> Result<Client, Failure>,
    format: Format,
) -> Result<(), Failure> {
    match command {
        Command::New(new) => output::line(&new.run()?.display().to_string()),
        Command::Build(build) => output::line(&build.run()?.display().to_string()),
        Command::AtServer(command) => at_server(command, &client()?, format)?,
    }
    Ok(())
}

fn at_server(command: AtServer, client: &Client, format: Format) -> Result<(), Failure> {
    match command {
        AtServer::Ls => {
            let all: Vec<PluginView> = client.get("/v1/plugins")?;
            if format == Format::Json {
                return output::json(&all);
            }
            let row = |plugin: &PluginView| {
                vec![
                    plugin.name.clone(),
                    plugin.version.clone(),
                    points(plugin),
                    short(&plugin.digest).to_owned(),
                    output::bytes(plugin.bytes),
                    plugin.installed_at.to_rfc3339_opts(SecondsFormat::Secs, true),
                    plugin.description.clone(),
                ]
            };
            let rows: Vec<_> = all.iter().map(row).collect();
            output::table(&["NAME", "VERSION", "POINT", "DIGEST", "SIZE", "INSTALLED", "DESCRIPTION"], &rows);
        }
        AtServer::Install { file } => {
            let unreadable = |error| Failure::new(FAILED, format!("`{}`: {error}", file.display()));
            let component = std::fs::read(&file).map_err(unreadable)?;
            let plugin: PluginView = client.post_bytes("/v1/plugins", "application/wasm", component)?;
            match format {
                Format::Json => output::json(&plugin)?,
                Format::Table => {
                    output::line(&format!("{} {} {}", plugin.name, plugin.version, plugin.digest));
                }
            }
        }
        AtServer::Inspect { plugin } => {
            let plugin: PluginView = client.get(&path(&plugin)?)?;
            match format {
                Format::Json => output::json(&plugin)?,
                Format::Table => output::text(&page(&plugin)),
            }
        }
        AtServer::Rm { plugin } => client.delete(&path(&plugin)?)?,
    }
    Ok(())
}

/// Where it is asked.
fn points(plugin: &PluginView) -> String {
    let names: Vec<&str> = plugin.points.iter().map(|point| point.as_str()).collect();
    names.join(", ")
}

/// Enough of a digest for people.
pub fn short(digest: &str) -> &str {
    digest.strip_prefix("sha256:").and_then(|hex| hex.get(..12)).unwrap_or(digest)
}

/// Names and digests have no other characters, so nothing else is worth asking for.
fn path(plugin: &str) -> Result<String, Failure> {
    match !plugin.is_empty()
        && plugin.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-:".contains(&byte))
    {
        true => Ok(format!("/v1/plugins/{plugin}")),
        false => {
            Err(Failure::new(USAGE, format!("`{plugin}` is neither the name nor the digest of a plugin")))
        }
    }
}

fn page(plugin: &PluginView) -> String {
    let lines = [
        ("name", plugin.name.clone()),
        ("version", plugin.version.clone()),
        ("description", plugin.description.clone()),
        ("license", plugin.license.clone()),
        ("asked at", points(plugin)),
        ("digest", plugin.digest.clone()),
        ("size", output::bytes(plugin.bytes)),
        ("installed", plugin.installed_at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        ("by", plugin.installed_by.clone()),
    ];
    let mut page: String = lines.iter().map(|(name, value)| format!("{name:<13}{value}\n")).collect();
    page.push_str("\nsettings\n");
    // A value always renders.
    for line in serde_json::to_string_pretty(&plugin.settings_schema).unwrap_or_default().lines() {
        page.push_str(&format!("  {line}\n"));
    }
    page
}
