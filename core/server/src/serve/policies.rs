//! The policies at start and on SIGHUP. Following the files is the decider's own work.

use crate::config::Config;
use anyhow::{Context as _, Result};
use bulkhead_admin_api::PolicyStatus;
use bulkhead_admin_api::view::PolicyStatusView;
use bulkhead_policy::{Decider, PolicySet, Settings, write_defaults};
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
    /// Loads the folder, filled with the shipped policies if there is none. Wrong policies stop the start: a server
    /// that guessed would be worse than none.
    pub async fn open(config: &Config) -> Result<Self> {
        let dir = config.policies_dir();
        let settings = Settings {
            trusted_registries: config.registry.trusted.clone(),
            operator_uids: config.admin.uids.clone(),
            accepts_emulation: config.security.accept_emulation,
        };
        let folder = dir.clone();
        let set = tokio::task::spawn_blocking(move || {
            if write_defaults(&folder)? {
                // Who may do what is nobody's business but the operator's.
                std::fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
                tracing::info!(dir = %folder.display(), "wrote the shipped policies");
            }
            Ok::<_, anyhow::Error>(PolicySet::load(&folder)?)
        });
        let set = set.await?.with_context(|| {
            format!(
                "the policies in `{}` are wrong (`bulkhead policy check {}` tells the same)",
                dir.display(),
                dir.display()
            )
        })?;
        tracing::info!(policy_set = %set.digest(), policies = set.len(), "policies are in force");
        Ok(Self { decider: Arc::new(Decider::new(set, settings)), dir })
    }

    /// For the operator's API, which does not know the decider.
    pub fn status(&self) -> PolicyStatus {
        let decider = self.decider.clone();
        Arc::new(move || {
            let status = decider.status();
            PolicyStatusView {
                policy_set: status.policy_set,
                policies: status.policies,
                classes: status.classes,
                problem: status.problem,
            }
        })
    }

    /// Reads the files again now. What comes of it is logged; a wrong set changes nothing.
    pub async fn reload(&self) {
        let (decider, dir) = (self.decider.clone(), self.dir.clone());
        match tokio::task::spawn_blocking(move || decider.reload(&dir)).await {
            Ok(Ok(difference)) => tracing::info!(
                added = difference.added.len(),
                changed = difference.changed.len(),
                removed = difference.removed.len(),
                "policies were read again"
            ),
            Ok(Err(error)) => {
                tracing::error!(%error, "the policy files are wrong; the policies in force stay")
            }
            Err(error) => tracing::error!(%error, "reading the policies again failed"),
        }
    }
}
