//! The policies at start and on SIGHUP. Following the folder is the engine's own work.

use crate::config::Config;
use anyhow::{Context as _, Result};
use bulkhead_admin_api::PolicyStatus;
use bulkhead_admin_api::view::PolicyStatusView;
use bulkhead_engine::{Engine, open_policies};
use bulkhead_policy::{Decider, Settings, write_defaults};
use bulkhead_store::Store;
use chrono::{DateTime, Utc};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug)]
pub struct Policies {
    pub decider: Arc<Decider>,
    pub dir: PathBuf,
}

impl Policies {
    /// What the folder and the database say is in force; the folder is filled with the shipped policies if there is none.
    /// Wrong policies stop the start where none were in force before: a server that guessed would be worse than none.
    pub async fn open(config: &Config, store: &Store, now: DateTime<Utc>) -> Result<Self> {
        let dir = config.policies_dir();
        let settings = Settings {
            trusted_registries: config.registry.trusted.clone(),
            operator_uids: config.admin.uids.clone(),
            accepts_emulation: config.security.accept_emulation,
        };
        let folder = dir.clone();
        let written = tokio::task::spawn_blocking(move || {
            if write_defaults(&folder)? {
                // Who may do what is nobody's business but the operator's.
                std::fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
                tracing::info!(dir = %folder.display(), "wrote the shipped policies");
            }
            Ok::<_, anyhow::Error>(())
        });
        written.await?.with_context(|| format!("the folder of policies `{}`", dir.display()))?;
        let decider = open_policies(store, &dir, settings, now).await.with_context(|| {
            format!(
                "the policies in `{}` are wrong (`bulkhead policy check {}` tells the same)",
                dir.display(),
                dir.display()
            )
        })?;
        let status = decider.status();
        tracing::info!(
            revision = status.version.revision,
            policy_set = status.policy_set,
            policies = status.policies,
            "policies are in force"
        );
        Ok(Self { decider: Arc::new(decider), dir })
    }

    /// For the operator's API, which does not know the decider.
    pub fn status(&self) -> PolicyStatus {
        let decider = self.decider.clone();
        Arc::new(move || {
            let status = decider.status();
            PolicyStatusView {
                policy_set: status.policy_set,
                revision: status.version.revision,
                origin: status.version.origin,
                policies: status.policies,
                classes: status.classes,
                problem: status.problem,
            }
        })
    }

    /// Reads the folder again now. What comes of it is logged; a wrong set changes nothing.
    pub async fn reload(&self, engine: &Engine) {
        match engine.read_policies(&self.dir).await {
            Ok(()) => tracing::info!("policies were read again"),
            Err(error) => {
                tracing::error!(%error, "the policy files are wrong; the policies in force stay")
            }
        }
    }
}
