//! `bulkhead debug`.

use super::client::Client;
use super::failure::Failure;
use super::{Format, output};
use bulkhead_admin_api::view::FindingView;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find what belongs to nobody: disks, processes, namespaces, bridges, taps, rules, addresses, ports
    Fsck,
}

/// Ends with 1 where something was found.
pub fn run(command: &Command, client: &Client, format: Format) -> Result<ExitCode, Failure> {
    match command {
        Command::Fsck => {
            let found: Vec<FindingView> = client.get("/v1/fsck")?;
            match format {
                Format::Json => output::json(&found)?,
                Format::Table if found.is_empty() => output::line("everything belongs to somebody"),
                Format::Table => {
                    let row = |one: &FindingView| vec![one.kind.clone(), one.of.clone(), one.what.clone()];
                    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
                    output::table(&["KIND", "OF", "WHAT"], &rows);
                }
            }
            Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
    }
}
