//! What the VCH is and what it has, for `info`, `version` and disk usage.

use crate::volumes::VolumeStoreFacts;
use crate::{Engine, EngineError, Session};
use bulkhead_image::registry::ShownProxies;
use bulkhead_machine::Capabilities;
use bulkhead_model::{Action, Vch};
use std::collections::BTreeMap;

/// Facts about a VCH and what carries it.
#[derive(Debug, Clone)]
pub struct SystemFacts {
    pub vch: Vch,
    pub capabilities: Capabilities,
    /// Of the product.
    pub version: String,
    pub containers: u64,
    pub running: u64,
    /// Of those that run, the ones that stand still.
    pub paused: u64,
    pub images: u64,
    pub volume_stores: Vec<VolumeStoreFacts>,
    pub accept_emulation: bool,
    /// Digest of the policy set in force.
    pub policy_set: String,
    /// Bytes of all layer disks of the VCH.
    pub layers_bytes: u64,
    /// Why there can be no networks.
    pub without_networks: Option<String>,
    pub proxies: ShownProxies,
    /// By registry, as the operator named it.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries whose certificates are not checked.
    pub insecure: Vec<String>,
}

impl Engine {
    pub async fn system(&self, session: &Session) -> Result<SystemFacts, EngineError> {
        let vch = self.vch_of(session).await?;
        self.admit_vch(session, &vch, Action::SystemRead).await?;
        let usage = self.vch_usage(&vch).await?;
        let layers = self.store().layers(vch.id).await?;
        let registries = self.0.registries.config();
        Ok(SystemFacts {
            capabilities: self.back_end().machines.capabilities().clone(),
            version: self.0.settings.version.clone(),
            containers: usage.containers,
            running: usage.running,
            paused: usage.paused,
            images: usage.images,
            volume_stores: usage.volume_stores,
            accept_emulation: self.0.policies.settings().accepts_emulation,
            policy_set: self.0.policies.status().policy_set,
            without_networks: self.back_end().networks.unavailable().map(str::to_owned),
            proxies: registries.proxies.shown(),
            mirrors: registries.mirrors.clone(),
            insecure: registries.insecure.clone(),
            layers_bytes: layers.iter().map(|layer| layer.disk_bytes).sum(),
            vch,
        })
    }

    /// Whether the parts answer: the database does, and the policy files on disk are the ones in force.
    pub async fn ready(&self) -> Result<(), String> {
        self.store().ping().await.map_err(|error| format!("database: {error}"))?;
        match self.0.policies.status().problem {
            Some(problem) => Err(format!("policies: {problem}")),
            None => Ok(()),
        }
    }

    pub fn policy_status(&self) -> bulkhead_policy::Status {
        self.0.policies.status()
    }
}
