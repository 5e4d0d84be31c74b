//! Prune: the removal of what does not run.

use crate::admission::Admitted;
use crate::{Engine, EngineError, Session};
use bulkhead_model::event::EventKind;
use bulkhead_model::lifecycle::{Status, awaits_run};
use bulkhead_model::{Action, Container, ContainerId};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub containers: Vec<ContainerId>,
    /// Of their disks, on the datastore.
    pub reclaimed_bytes: u64,
}

impl Engine {
    /// Removes the containers that do not run, have no run ahead of them and are `wanted`. Each is decided about as a
    /// removal of its own: what a policy protects is passed over.
    pub async fn prune_containers(
        &self,
        session: &Session,
        wanted: impl Fn(&Container) -> bool + Send + Sync,
    ) -> Result<Pruned, EngineError> {
        let vch = self.vch_of(session).await?;
        self.admit_vch(session, &vch, Action::ContainerPrune).await?;
        let mut pruned = Pruned::default();
        for container in self.store().containers(vch.id).await? {
            let rests = matches!(container.status, Status::Created | Status::Exited { .. })
                && !awaits_run(&container.desired, &container.status);
            if !rests || !wanted(&container) {
                continue;
            }
            let disk_bytes =
                self.back_end().disks.disk_used(vch.id, container.disk_place()).await.unwrap_or(0);
            let id = container.id.clone();
            match self.prune_one(session, container).await {
                Ok(()) => {
                    pruned.containers.push(id);
                    pruned.reclaimed_bytes = pruned.reclaimed_bytes.saturating_add(disk_bytes);
                }
                // Protected, or not at rest any more.
                Err(
                    error @ (EngineError::Denied { .. }
                    | EngineError::IsRunning(_)
                    | EngineError::NoSuchContainer(_)),
                ) => {
                    tracing::info!(container.id = %id, %error, "not pruned");
                }
                Err(error) => return Err(error),
            }
        }
        self.tell_pruned(vch.id, EventKind::Container, pruned.reclaimed_bytes).await?;
        Ok(pruned)
    }

    async fn prune_one(&self, session: &Session, container: Container) -> Result<(), EngineError> {
        let (_, container, Admitted { audit, .. }) =
            self.admit_container(session, Action::ContainerRemove, container.id.as_str()).await?;
        self.drive_away(container, false, false, audit).await
    }
}
