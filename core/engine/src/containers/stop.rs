//! Stop: a signal, a deadline, and waiting for the end.

use super::Changed;
use crate::driver::run_of;
use crate::{Engine, EngineError, Session};
use bulkhead_model::container::Signal;
use bulkhead_model::lifecycle::{Goal, Request, Status};
use bulkhead_model::{Action, Container};
use chrono::{DateTime, TimeDelta, Utc};

impl Engine {
    /// Signals the process and kills it at the deadline: `timeout_s` seconds, the container's own without; below 0
    /// it is never killed. Returns when the container has stopped; a caller that leaves does not call it off.
    pub async fn stop(
        &self,
        session: &Session,
        text: &str,
        signal: Option<Signal>,
        timeout_s: Option<i64>,
    ) -> Result<Changed, EngineError> {
        let (_, container, admitted) = self.admit_container(session, Action::ContainerStop, text).await?;
        let now = self.now();
        let (changed, container, handle) = self
            .change(container, Request::Stop, admitted.audit, |container| {
                let signal = signal.unwrap_or(container.spec.stop_signal);
                container.desired.stopped(signal, deadline(now, container, timeout_s), false)
            })
            .await?;
        if changed == Changed::AlreadySo {
            return Ok(changed);
        }
        if matches!(container.status, Status::Exited { .. }) {
            // It was between two runs.
            return Ok(changed);
        }
        let run = run_of(&container.status).max(1);
        let mut seen = handle.seen();
        seen.wait_for(|seen| {
            let over = seen.last_exit.as_ref().is_some_and(|(over, _)| *over >= run);
            // Stopped before its driver began the run.
            let never = seen
                .container
                .as_ref()
                .is_some_and(|c| run_of(&c.status) < run && matches!(c.desired.goal, Goal::Stop { .. }));
            over || seen.gone || never
        })
        .await
        .map_err(|_| EngineError::Stopping)?;
        Ok(changed)
    }
}

/// When the stop of a container ends in a kill; `None`: never.
pub(super) fn deadline(
    now: DateTime<Utc>,
    container: &Container,
    timeout_s: Option<i64>,
) -> Option<DateTime<Utc>> {
    let seconds = timeout_s.unwrap_or(container.spec.stop_timeout_s);
    // A year is for ever enough, and cannot overflow.
    (seconds >= 0).then(|| now + TimeDelta::seconds(seconds.min(365 * 24 * 3600)))
}
