//! `[telemetry]`: logs, metrics, health.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySection {
    /// `/metrics`, `/healthz`, `/readyz`; on loopback only. Empty: off.
    pub listen: String,
    pub log_format: LogFormat,
    /// As RUST_LOG, which wins.
    pub log_filter: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Default for TelemetrySection {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9480".into(), log_format: LogFormat::Text, log_filter: "info".into() }
    }
}

impl TelemetrySection {
    /// `None`: off.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if !self.listen.is_empty() {
            match self.listen.parse::<SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => {}
                Ok(_) => problems.push(format!(
                    "[telemetry] listen `{}` is not on loopback, and what it tells is for this machine only",
                    self.listen
                )),
                Err(_) => problems.push(format!("[telemetry] listen `{}` is not ADDRESS:PORT", self.listen)),
            }
        }
        if let Err(error) = self.log_filter.parse::<tracing_subscriber::EnvFilter>() {
            problems.push(format!("[telemetry] log_filter `{}`: {error}", self.log_filter));
        }
    }
}
