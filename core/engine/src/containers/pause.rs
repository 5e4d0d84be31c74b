//! Pause and unpause: the wish, then waiting until it is so.

use crate::{Engine, EngineError, Session};
use bulkhead_model::Action;
use bulkhead_model::lifecycle::{Desired, Request, Status};
use std::time::Duration;

/// A machine stops and goes on at once; longer than that, its hypervisor does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

impl Engine {
    pub async fn pause(&self, session: &Session, text: &str) -> Result<(), EngineError> {
        self.stand(session, Action::ContainerPause, text, Request::Pause, true).await
    }

    pub async fn unpause(&self, session: &Session, text: &str) -> Result<(), EngineError> {
        self.stand(session, Action::ContainerUnpause, text, Request::Unpause, false).await
    }

    async fn stand(
        &self,
        session: &Session,
        action: Action,
        text: &str,
        request: Request,
        wanted: bool,
    ) -> Result<(), EngineError> {
        let (_, container, admitted) = self.admit_container(session, action, text).await?;
        let (_, _, handle) = self
            .change(container, request, admitted.audit, |container| Desired {
                paused: wanted,
                ..container.desired.clone()
            })
            .await?;
        let mut seen = handle.seen();
        let settled = seen.wait_for(|seen| {
            seen.gone
                || seen.container.as_ref().is_some_and(|container| match container.status {
                    Status::Running { paused, .. } => paused == wanted,
                    // It ended first.
                    Status::Created | Status::Starting { .. } | Status::Exited { .. } => true,
                })
        });
        tokio::time::timeout(PATIENCE, settled)
            .await
            .map_err(|_| EngineError::TimedOut(PATIENCE.as_secs()))?
            .map_err(|_| EngineError::Stopping)?;
        Ok(())
    }
}
