//! `[limits]`: what one listener takes at a time.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Connections of a listener at a time; more wait in the kernel.
    pub connections_max: usize,
    /// Of those, from one uid or address; more are closed at once.
    pub connections_per_peer_max: usize,
    /// Seconds for the headers of a request, and for a TLS handshake; an idle connection is closed as late.
    pub header_timeout_s: u64,
    /// Seconds that requests get to finish when the server stops.
    pub stop_grace_s: u64,
    /// Connections to the database.
    pub database_connections_max: u32,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_peer_max: 512,
            header_timeout_s: 10,
            stop_grace_s: 10,
            database_connections_max: 16,
        }
    }
}

impl LimitsSection {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let mut range = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!("[limits] {key} {value} is out of range: {least} to {most}"));
            }
        };
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        range("connections_max", number(self.connections_max), 1, 100_000);
        range("connections_per_peer_max", number(self.connections_per_peer_max), 1, 100_000);
        range("header_timeout_s", self.header_timeout_s, 1, 600);
        range("stop_grace_s", self.stop_grace_s, 0, 600);
        range("database_connections_max", self.database_connections_max.into(), 2, 1000);
    }
}
