//! Kill: a signal to what runs.

use crate::{Engine, EngineError, Session};
use bulkhead_model::Action;
use bulkhead_model::container::Signal;
use bulkhead_model::lifecycle::Status;
use std::time::Duration;

/// SIGKILL is waited for, as clients expect; other signals are not.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    pub async fn kill(&self, session: &Session, text: &str, signal: Signal) -> Result<(), EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerKill, text).await?;
        let Status::Running { run, .. } = container.status else {
            return Err(EngineError::NotRunning(container.id));
        };
        let handle = self.drive(&container);
        handle.signal(signal).await?;
        if signal == Signal::KILL {
            let mut seen = handle.seen();
            let over = seen
                .wait_for(|seen| seen.gone || seen.last_exit.as_ref().is_some_and(|(over, _)| *over >= run));
            // Later than that it is still on its way; the signal was sent.
            let _ = tokio::time::timeout(KILL_PATIENCE, over).await;
        }
        Ok(())
    }
}
