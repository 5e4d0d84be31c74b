//! What the operator says about registries.

use super::proxy::Proxies;
use bulkhead_model::reference::DOCKER_HUB;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Set by the operator only; a tenant must not be able to weaken it.
///
/// A registry is written as in a reference: `registry.example:5000`; without a port it means every port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Registries spoken to without checking their certificate, or over plain HTTP if they speak no TLS.
    pub insecure: Vec<String>,
    /// Files of PEM certificates that a registry's certificate may be signed by, beside the system's.
    pub ca_files: BTreeMap<String, Vec<PathBuf>>,
    /// Asked first, in order, for images of a registry: URLs. They get no credentials.
    pub mirrors: BTreeMap<String, Vec<String>>,
    pub private_addresses: PrivateAddresses,
    /// Whom registries are asked through: [`Proxies::from_environment`], or nobody.
    #[serde(skip)]
    pub proxies: Proxies,
    #[serde(skip)]
    pub timing: Timing,
}

/// Which registries may lie at loopback and private addresses. Named in any other setting, a registry may as well:
/// the operator knows it. Link-local addresses (cloud metadata) are never asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrivateAddresses {
    All,
    Of(Vec<String>),
}

impl Default for PrivateAddresses {
    fn default() -> Self {
        Self::Of(Vec::new())
    }
}

/// Deadlines and patience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Name resolution, connection and TLS.
    pub connect: Duration,
    /// Between asking and the head of the answer.
    pub answer: Duration,
    /// In this time at least [`Timing::idle_bytes_min`] must come in, or the connection counts as lost.
    pub idle: Duration,
    pub idle_bytes_min: u64,
    /// Attempts in a row that bring nothing, before giving up.
    pub attempts: u32,
    /// Wait before the second attempt; doubled each time.
    pub backoff: Duration,
    /// The longest wait, whatever the registry's Retry-After says.
    pub backoff_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            idle_bytes_min: 4096,
            attempts: 5,
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
        }
    }
}

impl RegistryConfig {
    pub(super) fn is_insecure(&self, registry: &str) -> bool {
        self.insecure.iter().any(|entry| names(entry, registry))
    }

    /// Where to ask before a registry itself, in order.
    pub(super) fn mirrors_of(&self, registry: &str) -> impl Iterator<Item = &String> {
        self.mirrors.iter().filter(|(entry, _)| names(entry, registry)).flat_map(|(_, mirrors)| mirrors)
    }

    pub(super) fn allows_private(&self, registry: &str) -> bool {
        let listed = match &self.private_addresses {
            PrivateAddresses::All => true,
            PrivateAddresses::Of(list) => list.iter().any(|entry| names(entry, registry)),
        };
        listed || self.is_insecure(registry) || self.ca_files.keys().any(|entry| names(entry, registry))
    }
}

/// Whether an entry of the configuration means that registry.
pub(super) fn names(entry: &str, registry: &str) -> bool {
    let host = registry.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    entry.eq_ignore_ascii_case(registry) || host.is_some_and(|(host, _)| entry.eq_ignore_ascii_case(host))
}

/// The registry that clients mean by an address: they send URLs, and an old one for Docker Hub.
pub(super) fn canonical_registry(address: &str) -> String {
    let bare = address.trim_start_matches("https://").trim_start_matches("http://");
    let bare = bare.split('/').next().unwrap_or_default();
    match bare {
        "" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.into(),
        other => other.to_ascii_lowercase(),
    }
}
