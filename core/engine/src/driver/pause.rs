//! Pausing: the machine's vCPUs stand still, and go on. A guest that stood still has missed time: its clock is set
//! again, as it is for every agent that is greeted and whenever the host itself had slept.

use super::Driver;
use crate::EngineError;
use crate::containers::event;
use crate::guest::GuestError;
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_model::Container;
use bulkhead_model::lifecycle::{GuestFact, MachineFact, Status};
use std::time::Duration;

const CLOCK_DEADLINE: Duration = Duration::from_secs(5);

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

    /// Tells the guest the time, if that is due and somebody is there to be told.
    pub(super) async fn set_clock(&mut self, machine: &MachineFact) {
        // Before its process begins, a guest gets the time with its start.
        let runs = matches!(self.guest, GuestFact::Process { .. });
        if *machine != MachineFact::Running || !runs || self.link.is_none() || !self.handle.take_clock_due() {
            return;
        }
        let unix_ns = u64::try_from(self.engine.now().timestamp_nanos_opt().unwrap_or(0)).unwrap_or(0);
        let Some(link) = self.link.as_mut() else { return };
        match link.call(RequestBody::SetClock { unix_ns }, CLOCK_DEADLINE).await {
            Ok(_) => {}
            // Said once; it would say the same again.
            Err(error @ GuestError::Refused(_)) => tracing::warn!(%error, "the guest keeps its clock"),
            Err(error) => {
                tracing::warn!(%error, "the guest's clock was not set");
                self.link = None;
                self.handle.clock_is_due();
            }
        }
    }
}
