//! Logs: to the standard error, as text for people or JSON for programs.

use crate::config::{LogFormat, TelemetrySection};
use anyhow::{Context as _, Result};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts logging, and sees to it that a panic is logged before it ends the process: state is in the database and
/// machines go on, so the next start is the way out of what was not foreseen.
pub fn start_logs(section: &TelemetrySection) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            text.parse::<EnvFilter>().with_context(|| format!("RUST_LOG `{text}` is no filter"))?
        }
        _ => section.log_filter.parse::<EnvFilter>().context("log_filter")?,
    };
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    let started = match section.log_format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).with_ansi(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, "a fault of the program, which ends now: {what}");
        std::process::abort();
    }));
    Ok(())
}
