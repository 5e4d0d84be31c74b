//! Use cases of operators: plugins come and go.

use crate::{Engine, EngineError};
use bulkhead_model::plugin::{COMPONENT_BYTES_MAX, Plugin};
use bulkhead_model::{Action, Caller, Digest};
use bulkhead_plugin::HostError;
use bulkhead_policy::Subject;
use bulkhead_store::{Record, StoreError};

impl Engine {
    /// All of them, by name, the newest of each name first.
    pub async fn plugins(&self, caller: &Caller) -> Result<Vec<Plugin>, EngineError> {
        self.admit_operator(caller, Action::PluginList, Subject::Platform).await?;
        Ok(self.store().plugins().await?)
    }

    /// Installs a component: it is compiled, and asked what it is. Nothing is decided by it until it is bound. One that
    /// is there already is found.
    pub async fn plugin_install(&self, caller: &Caller, component: Vec<u8>) -> Result<Plugin, EngineError> {
        let admitted = self.admit_operator(caller, Action::PluginInstall, Subject::Platform).await?;
        let refused = EngineError::PluginRefused;
        if component.len() > COMPONENT_BYTES_MAX {
            return Err(refused(format!(
                "it has {} bytes, {COMPONENT_BYTES_MAX} are the most",
                component.len()
            )));
        }
        let digest = Digest::of(&component);
        let _turn = self.0.plugins.turn.lock().await;
        if let Some(there) = self.store().plugins().await?.into_iter().find(|it| it.digest == digest) {
            return Ok(there);
        }
        let bytes = component.len() as u64;
        let given = component.clone();
        let loaded = self.0.plugins.host.load(&digest, async move || Ok(given)).await;
        let described = async {
            let plugin = loaded.map_err(|error| match error {
                HostError::Refused(why) => EngineError::PluginRefused(why),
                HostError::Io { .. } => EngineError::Plugin(error),
            })?;
            plugin.describe().await.map_err(|error| refused(format!("asked what it is, it failed: {error}")))
        };
        let manifest = described.await.inspect_err(|_| self.0.plugins.host.forget(&digest))?;
        let plugin =
            Plugin { digest, manifest, bytes, installed_at: self.now(), installed_by: caller.name.clone() };
        let record = Record::at(plugin.installed_at).audit(admitted.audit);
        let kept = self.store().create_plugin(&plugin, &component, &record).await;
        kept.inspect_err(|_| self.0.plugins.host.forget(&plugin.digest))?;
        tracing::info!(plugin = %plugin.manifest.name, version = plugin.manifest.version, digest = %plugin.digest, "installed");
        Ok(plugin)
    }

    /// Removes a plugin that nothing binds. `text`: its digest, the beginning of it, or its name where there is one of
    /// that name.
    pub async fn plugin_remove(&self, caller: &Caller, text: &str) -> Result<(), EngineError> {
        let admitted = self.admit_operator(caller, Action::PluginRemove, Subject::Platform).await?;
        let _turn = self.0.plugins.turn.lock().await;
        let digest = self.find_plugin(text).await?.digest;
        let record = Record::at(self.now()).audit(admitted.audit);
        match self.store().delete_plugin(&digest, &record).await {
            Ok(()) => {}
            Err(StoreError::Conflict { id, .. }) => {
                return Err(EngineError::PluginInUse { plugin: text.into(), by: id });
            }
            Err(StoreError::NotFound { .. }) => return Err(EngineError::NoSuchPlugin(text.into())),
            Err(other) => return Err(other.into()),
        }
        self.0.plugins.host.forget(&digest);
        Ok(())
    }

    pub async fn plugin(&self, caller: &Caller, text: &str) -> Result<Plugin, EngineError> {
        self.admit_operator(caller, Action::PluginList, Subject::Platform).await?;
        self.find_plugin(text).await
    }

    pub(super) async fn find_plugin(&self, text: &str) -> Result<Plugin, EngineError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let all = self.store().plugins().await?;
        let by_name = all.iter().filter(|plugin| plugin.manifest.name.as_str() == text);
        let by_digest = all.iter().filter(|plugin| hex.len() >= 4 && plugin.digest.hex().starts_with(hex));
        // A name can look like a digest: who means the one must not get the other.
        let mut found: Vec<&Plugin> = by_name.chain(by_digest).collect();
        found.sort_by_key(|plugin| plugin.digest.hex());
        found.dedup_by_key(|plugin| plugin.digest.hex());
        match found.as_slice() {
            [] => Err(EngineError::NoSuchPlugin(text.chars().take(80).collect())),
            [one] => Ok((*one).clone()),
            several => Err(EngineError::AmbiguousPlugin {
                text: text.chars().take(80).collect(),
                digests: several.iter().map(|plugin| plugin.digest.to_string()).collect(),
            }),
        }
    }
}
