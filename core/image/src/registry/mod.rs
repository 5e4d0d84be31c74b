//! A client of the OCI distribution protocol (github.com/opencontainers/distribution-spec, spec.md), for pulling.
//!
//! A registry is a stranger that we hand credentials to, and it may name other hosts: where to get a token, where a blob
//! really lies. So every address is checked when it is connected to, redirects are followed by hand, and credentials
//! go to the registry and to its token service only.

mod address;
mod auth;
mod blob;
mod config;
mod credentials;
mod describe;
mod endpoint;
pub(crate) mod manifest;
mod proxy;
mod resolve;
mod session;
mod tls;

pub use config::{PrivateAddresses, RegistryConfig, Timing};
pub use credentials::Credentials;
pub use describe::Described;
pub use manifest::{BlobDescriptor, Platform};
pub use proxy::{Proxies, ShownProxies};
pub(crate) use resolve::LAYERS_MAX;
pub use resolve::{Resolved, ResolvedLayer};

use crate::error::ImageError;
use endpoint::Endpoint;
use session::Session;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// All registries that this server talks to: configuration, and connections kept open. Cheap to clone.
#[derive(Clone)]
pub struct Registries {
    config: Arc<RegistryConfig>,
    tls: Arc<tls::Roots>,
    endpoints: Arc<Mutex<HashMap<String, Vec<Arc<Endpoint>>>>>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registries").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Distinct registries that connections are kept for.
const ENDPOINTS_KEPT_MAX: usize = 256;

impl Registries {
    /// Fails if a file of certificates cannot be read.
    pub fn new(config: RegistryConfig) -> Result<Self, ImageError> {
        let tls = tls::Roots::load(&config)?;
        Ok(Self { config: Arc::new(config), tls: Arc::new(tls), endpoints: Arc::default() })
    }

    /// What the operator says about registries.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// Whether the registry accepts the credentials, as `docker login` asks.
    pub async fn login(&self, registry: &str, credentials: &Credentials) -> Result<(), ImageError> {
        let registry = config::canonical_registry(registry);
        // Mirrors are not asked: credentials belong to the registry itself.
        let endpoint = self.endpoints(&registry)?.pop().ok_or_else(|| ImageError::Registry {
            registry: registry.clone(),
            why: "it has no address".into(),
            source: None,
        })?;
        Session::new(endpoint, None, credentials.clone()).login().await
    }

    /// Where a registry is asked, in order: its mirrors, then itself.
    fn endpoints(&self, registry: &str) -> Result<Vec<Arc<Endpoint>>, ImageError> {
        let mut known = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoints) = known.get(registry) {
            return Ok(endpoints.clone());
        }
        let endpoints = Endpoint::all_of(registry, &self.config, &self.tls)?;
        // A tenant may name any number of registries.
        if known.len() >= ENDPOINTS_KEPT_MAX {
            known.clear();
        }
        known.insert(registry.to_owned(), endpoints.clone());
        Ok(endpoints)
    }
}
