//! The run that follows a run: asked for with a restart, or wanted by the restart policy.

use super::Driver;
use crate::EngineError;
use bulkhead_model::lifecycle::{Desired, Status};
use bulkhead_model::{Action, Caller, Container};
use bulkhead_store::{AuditEntry, StoreError};

impl Driver {
    /// The second half of a restart, which was decided with the first.
    pub(super) async fn run_again(&mut self, container: &Container) -> Result<(), EngineError> {
        self.want_run(container, container.desired.started(&container.status, true), None).await
    }

    /// What is asked of the policies is what they are asked of a start: a container that could not be started now is
    /// not started by itself either.
    pub(super) async fn restart_by_policy(&mut self, container: &Container) -> Result<(), EngineError> {
        let Status::Exited { exit, .. } = &container.status else { return Ok(()) };
        match self.admit_start(container).await {
            Ok(audit) => {
                let desired = container.desired.restarted(&container.status, exit);
                self.want_run(container, desired, Some(audit)).await
            }
            Err(error @ EngineError::Denied { .. }) => self.give_up(container, &error).await,
            Err(error) => Err(error),
        }
    }

    async fn admit_start(&self, container: &Container) -> Result<AuditEntry, EngineError> {
        let vch = self.engine.store().vch(self.vch).await?;
        let (action, caller) = (Action::ContainerStart, Caller::system());
        Ok(self.engine.admit_about(container, action, &vch, &caller, None).await?.audit)
    }

    async fn want_run(
        &self,
        container: &Container,
        desired: Desired,
        audit: Option<AuditEntry>,
    ) -> Result<(), EngineError> {
        let mut record = self.record();
        record.audit = audit;
        let store = self.engine.store();
        let set = store.set_desired(self.vch, &self.id, &container.desired, &desired, &record).await;
        match set {
            // Changed meanwhile: somebody wants something else of it, which the next look sees.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(
                error @ (StoreError::Limit { .. }
                | StoreError::VchDeleting { .. }
                | StoreError::VolumeHeld { .. }),
            ) => self.give_up(container, &error.into()).await,
            Err(error) => Err(error.into()),
        }
    }

    /// It stays as it ended, and says why.
    async fn give_up(&self, container: &Container, why: &EngineError) -> Result<(), EngineError> {
        let Status::Exited { run, exit } = &container.status else { return Ok(()) };
        tracing::warn!(error = why as &dyn std::error::Error, "not started again");
        let mut exit = exit.clone();
        exit.error = Some(format!("not started again: {why}"));
        self.set_status(&Status::Exited { run: *run, exit }, None, self.record()).await?;
        let given_up = container.desired.given_up();
        let store = self.engine.store();
        match store.set_desired(self.vch, &self.id, &container.desired, &given_up, &self.record()).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
