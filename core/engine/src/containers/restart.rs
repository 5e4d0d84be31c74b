//! Restart: one wish for the end of what runs and for the run after it, so that it is carried through although the
//! client leaves or the server ends in between.

use super::start::begun;
use super::stop::deadline;
use crate::{Engine, EngineError, Session};
use bulkhead_model::Action;
use bulkhead_model::container::Signal;
use bulkhead_model::lifecycle::{Request, Status};

impl Engine {
    /// What does not run is started. `timeout_s` as at a stop.
    pub async fn restart(
        &self,
        session: &Session,
        text: &str,
        signal: Option<Signal>,
        timeout_s: Option<i64>,
    ) -> Result<(), EngineError> {
        let (_, container, admitted) = self.admit_container(session, Action::ContainerRestart, text).await?;
        // It is a start, too: whoever may not start it does not get it started this way.
        self.admit_container(session, Action::ContainerStart, container.id.as_str()).await?;
        let now = self.now();
        let (_, container, handle) = self
            .change(container, Request::Restart, admitted.audit, |container| {
                let desired = &container.desired;
                match container.status {
                    Status::Starting { .. } | Status::Running { .. } => {
                        let signal = signal.unwrap_or(container.spec.stop_signal);
                        desired.stopped(signal, deadline(now, container, timeout_s), true)
                    }
                    Status::Created | Status::Exited { .. } => desired.started(&container.status, true),
                }
            })
            .await?;
        let run = match container.status {
            Status::Starting { run } | Status::Running { run, .. } => run + 1,
            Status::Created | Status::Exited { .. } => container.desired.run,
        };
        begun(&handle, run).await
    }
}
