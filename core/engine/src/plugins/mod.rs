//! Plugins have a say in what is asked for: which are there, where they are bound, and what they say.

mod bind;
mod chain;
mod install;
mod quarantine;

pub use bind::{NewBinding, NewScope};
pub(crate) use chain::Reviewed;

use crate::{Engine, EngineError};
use bulkhead_model::Vch;
use bulkhead_model::plugin::Binding;
use bulkhead_plugin::{Host, Plugin};
use quarantine::Quarantine;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The bindings as this engine has them in force. They are read from the database when the engine starts and after each
/// change; nobody else changes them while it has the claim.
#[derive(Debug)]
pub(crate) struct Plugins {
    host: Host,
    bound: RwLock<Arc<[Arc<Bound>]>>,
    /// Changes are made one after another.
    turn: tokio::sync::Mutex<()>,
}

/// A binding in force.
#[derive(Debug)]
pub(crate) struct Bound {
    binding: Binding,
    version: String,
    /// Or why it could not be loaded: it fails at each request then, and its failure policy says what becomes of those.
    plugin: Result<Plugin, String>,
    quarantine: Quarantine,
}

impl Plugins {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, bound: RwLock::new(Arc::new([])), turn: tokio::sync::Mutex::default() }
    }

    fn all(&self) -> Arc<[Arc<Bound>]> {
        self.bound.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those with a say in requests of a VCH, in order.
    fn of(&self, vch: &Vch) -> Vec<Arc<Bound>> {
        self.all().iter().filter(|bound| bound.binding.covers(vch)).cloned().collect()
    }
}

impl Engine {
    /// Puts in force what the database says. Bindings that did not change stay as they are, quarantine and all.
    pub(crate) async fn rebind(&self) -> Result<(), EngineError> {
        let versions: HashMap<_, _> =
            self.store().plugins().await?.into_iter().map(|it| (it.digest, it.manifest.version)).collect();
        let before = self.0.plugins.all();
        let mut bound = Vec::new();
        for binding in self.store().bindings().await? {
            if let Some(same) = before.iter().find(|bound| bound.binding == binding && bound.plugin.is_ok()) {
                bound.push(same.clone());
                continue;
            }
            let plugin = self.load_plugin(&binding.digest).await.map_err(|error| error.to_string());
            if let Err(error) = &plugin {
                tracing::error!(binding = %binding.name, plugin = %binding.plugin, %error, "a plugin that is bound cannot be loaded");
            }
            let version = versions.get(&binding.digest).cloned().unwrap_or_default();
            bound.push(Arc::new(Bound { binding, version, plugin, quarantine: Quarantine::default() }));
        }
        *self.0.plugins.bound.write().unwrap_or_else(PoisonError::into_inner) = bound.into();
        Ok(())
    }

    async fn load_plugin(
        &self,
        digest: &bulkhead_model::Digest,
    ) -> Result<Plugin, bulkhead_plugin::HostError> {
        let component = async || {
            let kept = self.store().component(digest).await;
            kept.map_err(|error| bulkhead_plugin::HostError::Io {
                doing: "reading a component from the database".into(),
                why: error.to_string(),
            })
        };
        self.0.plugins.host.load(digest, component).await
    }
}
