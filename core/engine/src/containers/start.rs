//! Start: the wish, then waiting until its run runs or cannot.

use super::Changed;
use crate::driver::Handle;
use crate::{Engine, EngineError, Session};
use bulkhead_model::lifecycle::{Goal, Request, Status};
use bulkhead_model::{Action, Container};
use std::time::Duration;

/// The driver has deadlines of its own, which name what is late; this one is for a driver that is no more.
const PATIENCE: Duration = Duration::from_secs(600);

impl Engine {
    pub async fn start_container(&self, session: &Session, text: &str) -> Result<Changed, EngineError> {
        let (_, container, admitted) = match self.admit_container(session, Action::ContainerStart, text).await
        {
            Err(error @ EngineError::Denied { .. }) => {
                self.give_up_unstarted(session, text).await;
                return Err(error);
            }
            admitted => admitted?,
        };
        if matches!(container.status, Status::Created | Status::Exited { .. })
            && let Err(error) = self.check_links(&container).await
        {
            self.give_up_unstarted(session, text).await;
            return Err(error);
        }
        let made = container.clone();
        let wished = self
            .change(container, Request::Start, admitted.audit.clone(), |container| {
                container.desired.started(&container.status, false)
            })
            .await;
        let (changed, container, handle) = match wished {
            // It was to be removed at its end, and there will be none: whoever waits for that would wait for ever.
            Err(error @ (EngineError::VolumeHeld { .. } | EngineError::Limit(_)))
                if made.spec.auto_remove && made.status == Status::Created =>
            {
                self.drive_away(made, false, true, admitted.audit).await?;
                return Err(error);
            }
            wished => wished?,
        };
        begun(&handle, container.desired.run).await?;
        Ok(changed)
    }

    /// A container that was to be removed at its end, and never had a beginning, goes with the refusal to start it: as
    /// far as whoever asked may remove it, too.
    async fn give_up_unstarted(&self, session: &Session, text: &str) {
        let Ok(container) = self.find(session.vch, text).await else { return };
        if !container.spec.auto_remove || container.status != Status::Created {
            return;
        }
        // Boxed: a removal keeps much, and a start that is refused is already far down.
        if let Err(error) = Box::pin(self.remove(session, container.id.as_str(), false, true)).await {
            tracing::debug!(%error, "a container that may not start stays");
        }
    }
}

/// Returns when that run runs or is over; fails if it could not be started, or is not wanted any more.
pub(super) async fn begun(handle: &Handle, run: u32) -> Result<(), EngineError> {
    let mut seen = handle.seen();
    // What is seen may be older than the wish: that it rests means something only after it was seen to run, or with
    // the run that is waited for already called off.
    let mut ran = false;
    let waiting = seen.wait_for(|seen| {
        let Some(container) = &seen.container else { return seen.gone };
        let settled = match container.status {
            Status::Running { run: now, .. } if now >= run => true,
            Status::Starting { .. } | Status::Running { .. } => {
                ran = true;
                false
            }
            Status::Created | Status::Exited { .. } => {
                let desired = &container.desired;
                let called_off = matches!(desired.goal, Goal::Stop { .. }) && !desired.again;
                called_off && (ran || desired.run >= run)
            }
        };
        settled || seen.gone || seen.last_exit.as_ref().is_some_and(|(over, _)| *over >= run)
    });
    let seen = tokio::time::timeout(PATIENCE, waiting)
        .await
        .map_err(|_| EngineError::TimedOut(PATIENCE.as_secs()))?
        .map_err(|_| EngineError::Stopping)?;
    let failed = match &seen.last_exit {
        Some((over, exit)) if *over == run && exit.started_at.is_none() => {
            Some((exit.code, exit.error.clone()))
        }
        Some((over, _)) if *over >= run => None,
        Some((_, exit)) if !runs(seen.container.as_deref(), run) => Some((128, exit.error.clone())),
        None if !runs(seen.container.as_deref(), run) => Some((128, None)),
        Some(_) | None => None,
    };
    match failed {
        None => Ok(()),
        Some((code, why)) => {
            let message = why.unwrap_or_else(|| "the start was broken off".into());
            Err(EngineError::StartFailed { code, message })
        }
    }
}

fn runs(container: Option<&Container>, run: u32) -> bool {
    container.is_some_and(|container| container.status.run() >= run)
}
