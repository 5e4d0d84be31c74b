//! Pausing: the container's processes are frozen, then the machine's vCPUs stand still. Frozen processes are what lets
//! the machine of a paused container go on for a moment, for a signal or for its files, without the container.

use super::{Driver, told};
use crate::EngineError;
use crate::containers::event;
use crate::guest::GuestError;
use bulkhead_model::Container;
use bulkhead_model::lifecycle::{GuestFact, Status};
use std::time::Duration;
use tokio::time::Instant;

/// For an agent that was there a moment ago, or whose channel is new.
const WAKE_DEADLINE: Duration = Duration::from_secs(30);

impl Driver {
    pub(super) async fn resume(&mut self) -> Result<(), EngineError> {
        self.engine.back_end().machines.resume(&self.id).await?;
        self.standing = false;
        self.handle.clock_is_due();
        Ok(())
    }

    pub(super) async fn record_paused(&self, container: &Container, paused: bool) -> Result<(), EngineError> {
        let Status::Running { run, started_at, stop_signalled, .. } = container.status else { return Ok(()) };
        let status = Status::Running { run, started_at, stop_signalled, paused };
        let action = if paused { "pause" } else { "unpause" };
        self.set_status(&status, None, self.record().event(event(container, action, &[]))).await
    }

    /// Lets the machine of a paused container go on, its processes frozen.
    pub(super) async fn wake(&mut self, container: &Container) -> Result<(), EngineError> {
        self.resume().await?;
        let by = Instant::now() + WAKE_DEADLINE;
        while self.link.is_none() || !matches!(self.guest, GuestFact::Process { .. }) {
            if Instant::now() > by {
                return Err(EngineError::TimedOut(WAKE_DEADLINE.as_secs()));
            }
            self.greet(container).await?;
        }
        self.tell_still(true).await;
        if self.told.still != Some(true) {
            return Err(self.broken(&GuestError::Silent(told::DEADLINE)));
        }
        self.tell_clock().await;
        Ok(())
    }
}
