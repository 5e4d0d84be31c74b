//! Plugins have a say in what is asked for: which are there, where they are bound, and what they say.

mod bind;
mod chain;
mod install;
mod quarantine;

pub use bind::{NewBinding, NewScope};
pub(crate) use chain::Reviewed;

use crate::{Engine, EngineError};
use bulkhead_model::Vch;
use bulkhead_model::plugin::{Binding, Point};
use bulkhead_plugin::{Host, Limits, Plugin};
use quarantine::Quarantine;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The bindings as this engine has them in force. They are read from the database when the engine starts and after each
/// change; nobody else changes them while it has the claim.
#[derive(Debug)]
pub(crate) struct Plugins {
    host: Host,
    bound: RwLock<Arc<[Arc<Bound>]>>,
    /// Changes are made one after another.
    turn: tokio::sync::Mutex<()>,
    /// The database says something else than what is in force.
    behind: AtomicBool,
}

/// What becomes of bindings whose plugin could not be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Stays,
    IsTriedAgain,
}

/// Pause between tries to load what could not be loaded, and to read what could not be read.
const AGAIN: Duration = Duration::from_secs(30);

/// A binding in force.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) binding: Binding,
    version: String,
    /// Where it is asked.
    points: Vec<Point>,
    /// Or why it could not be loaded: it fails at each request then, and its failure policy says what becomes of those.
    plugin: Result<Plugin, String>,
    quarantine: Quarantine,
}

impl Plugins {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            host,
            bound: RwLock::new(Arc::new([])),
            turn: tokio::sync::Mutex::default(),
            behind: AtomicBool::new(false),
        }
    }

    fn all(&self) -> Arc<[Arc<Bound>]> {
        self.bound.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn placement_limits(&self) -> Limits {
        self.host.placement_limits()
    }

    /// Those with a say in requests of a VCH at a point, in order.
    pub(crate) fn of(&self, vch: &Vch, point: Point) -> Vec<Arc<Bound>> {
        let has_say = |bound: &&Arc<Bound>| bound.points.contains(&point) && bound.binding.covers(vch);
        self.all().iter().filter(has_say).cloned().collect()
    }
}

impl Engine {
    /// Puts bindings in force, and goes on trying where that fails.
    pub(crate) async fn start_plugins(&self) -> Result<(), EngineError> {
        self.rebind(Broken::IsTriedAgain).await?;
        let engine = self.clone();
        self.0.tasks.spawn(async move {
            let stop = engine.0.stop.clone();
            while stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_some() {
                let plugins = &engine.0.plugins;
                let broken = plugins.all().iter().any(|bound| bound.plugin.is_err());
                if broken || plugins.behind.load(Ordering::SeqCst) {
                    let _turn = plugins.turn.lock().await;
                    if let Err(error) = engine.rebind(Broken::IsTriedAgain).await {
                        tracing::error!(%error, "bindings could not be put in force; it is tried again");
                    }
                }
            }
        });
        Ok(())
    }

    /// Puts in force what the database says. Bindings that did not change stay as they are, quarantine and all.
    async fn rebind(&self, broken: Broken) -> Result<(), EngineError> {
        let rebound = self.rebind_once(broken).await;
        self.0.plugins.behind.store(rebound.is_err(), Ordering::SeqCst);
        rebound
    }

    async fn rebind_once(&self, broken: Broken) -> Result<(), EngineError> {
        let manifests: HashMap<_, _> =
            self.store().plugins().await?.into_iter().map(|it| (it.digest, it.manifest)).collect();
        let before = self.0.plugins.all();
        let mut bound = Vec::new();
        for binding in self.store().bindings().await? {
            let stays = |bound: &&Arc<Bound>| {
                bound.binding == binding && (bound.plugin.is_ok() || broken == Broken::Stays)
            };
            if let Some(same) = before.iter().find(stays) {
                bound.push(same.clone());
                continue;
            }
            let plugin = self.load_plugin(&binding.digest).await.map_err(|error| error.to_string());
            if let Err(error) = &plugin {
                tracing::error!(binding = %binding.name, plugin = %binding.plugin, %error, "a plugin that is bound cannot be loaded");
            }
            let manifest = manifests.get(&binding.digest);
            let version = manifest.map(|manifest| manifest.version.clone()).unwrap_or_default();
            let points = manifest.map(|manifest| manifest.points.clone()).unwrap_or_default();
            let quarantine = Quarantine::default();
            bound.push(Arc::new(Bound { binding, version, points, plugin, quarantine }));
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
