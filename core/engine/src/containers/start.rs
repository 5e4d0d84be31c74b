//! Start: the wish, then waiting until its run runs or cannot.

use super::Changed;
use crate::driver::run_of;
use crate::{Engine, EngineError, Session};
use bulkhead_model::Action;
use bulkhead_model::lifecycle::{Desired, Goal, Request, Status};
use std::time::Duration;

/// The driver has deadlines of its own, which name what is late; this one is for a driver that is no more.
const PATIENCE: Duration = Duration::from_secs(600);

impl Engine {
    pub async fn start_container(&self, session: &Session, text: &str) -> Result<Changed, EngineError> {
        let (_, container, admitted) = self.admit_container(session, Action::ContainerStart, text).await?;
        let (changed, container, handle) = self
            .change(container, Request::Start, admitted.audit, |container| Desired {
                goal: Goal::Run,
                run: run_of(&container.status) + 1,
            })
            .await?;
        let run = container.desired.run;
        let mut seen = handle.seen();
        let waiting = seen.wait_for(|seen| {
            seen.gone
                || seen.last_exit.as_ref().is_some_and(|(over, _)| *over >= run)
                || seen
                    .container
                    .as_ref()
                    .is_some_and(|c| matches!(c.status, Status::Running { run: now, .. } if now >= run))
        });
        let seen = tokio::time::timeout(PATIENCE, waiting)
            .await
            .map_err(|_| EngineError::TimedOut(PATIENCE.as_secs()))?
            .map_err(|_| EngineError::Stopping)?;
        match &seen.last_exit {
            Some((over, exit)) if *over == run && exit.started_at.is_none() => {
                Err(EngineError::StartFailed {
                    code: exit.code,
                    message: exit.error.clone().unwrap_or_else(|| "the start was broken off".into()),
                })
            }
            Some(_) | None => Ok(changed),
        }
    }
}
