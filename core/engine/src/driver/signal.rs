//! Signals: a stop's, a user's, and the kill that leaves a whole disk behind.

use super::Driver;
use super::acts::{CALL_DEADLINE, unreachable_agent};
use crate::EngineError;
use crate::containers::event;
use crate::guest::GuestError;
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_model::Container;
use bulkhead_model::container::Signal;
use bulkhead_model::lifecycle::{Desired, Exit, Goal, GuestFact, Status};
use chrono::{DateTime, Utc};
use std::time::Duration;
use tokio::time::Instant;

/// An agent that is well answers within this, whatever the deadline of the stop.
const SIGNAL_PATIENCE_MIN: Duration = Duration::from_millis(500);
/// For an agent whose machine stood still or whose server is new, where volumes would lose something without it.
const REACH_PATIENCE: Duration = Duration::from_secs(10);

impl Driver {
    /// How long an agent may take for a stop's signal: not past the stop's deadline, but for a moment.
    pub(super) fn patience(&self, desired: &Desired) -> Duration {
        let Goal::Stop { deadline: Some(deadline), .. } = &desired.goal else { return CALL_DEADLINE };
        let left = (*deadline - self.engine.now()).to_std().unwrap_or_default();
        left.clamp(SIGNAL_PATIENCE_MIN, CALL_DEADLINE)
    }

    pub(super) async fn send_signal(
        &mut self,
        signal: Signal,
        patience: Duration,
    ) -> Result<(), EngineError> {
        let Some(link) = self.link.as_mut() else {
            self.guest = GuestFact::Unknown;
            return Err(unreachable_agent("it is not connected", self));
        };
        let sent = link.call(RequestBody::Signal { number: signal.number() }, patience).await;
        match sent {
            // A process that is over cannot be signalled; its end is on the way.
            Ok(_) | Err(GuestError::Refused(_)) => Ok(()),
            Err(error) => {
                self.link = None;
                self.guest = GuestFact::Unknown;
                self.guest_result(Err(error))
            }
        }
    }

    /// A signal that a user asked for. SIGKILL never depends on the guest's goodwill.
    pub(super) async fn signal(&mut self, signal: Signal) -> Result<(), EngineError> {
        let container = self.engine.store().container(self.vch, &self.id).await?;
        let Status::Running { .. } = container.status else {
            return Err(EngineError::NotRunning(self.id.clone()));
        };
        // What is paused and stays so takes the signal once it goes on.
        let _awake = match (self.standing, container.desired.paused) {
            (true, true) => Some(self.workbench().await?),
            (true, false) => {
                self.resume().await?;
                None
            }
            (false, _) => None,
        };
        let met = if self.link.is_none() { self.greet(&container).await } else { Ok(()) };
        let sent = match met {
            Ok(()) => self.send_signal(signal, CALL_DEADLINE).await,
            Err(error) => Err(error),
        };
        match sent {
            Err(error) if signal == Signal::KILL => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the agent does not answer: power off"
                );
                self.engine.back_end().machines.kill(&self.id).await?;
            }
            other => other?,
        }
        self.record_signal(&container, signal, false).await
    }

    /// What a signal was meant to wake stands still no longer, which is told after it.
    pub(super) async fn record_signal(
        &self,
        container: &Container,
        signal: Signal,
        stops: bool,
    ) -> Result<(), EngineError> {
        let Status::Running { run, started_at, stop_signalled, paused } = container.status else {
            return Ok(());
        };
        let stop_signalled = stop_signalled || stops;
        let still = paused && container.desired.paused;
        let status = Status::Running { run, started_at, stop_signalled, paused: still };
        let number = signal.number().to_string();
        let mut record = self.record().event(event(container, "kill", &[("signal", &number)]));
        if paused && !still {
            record = record.event(event(container, "unpause", &[]));
        }
        self.set_status(&status, None, record).await
    }

    /// A machine whose power is cut loses what its kernel had not written yet. An agent that answers ends the process
    /// and leaves a whole disk behind; one that does not is not waited for.
    pub(super) async fn kill_from_within(&mut self, container: &Container) -> Result<(), EngineError> {
        // Before its process runs there is nothing of it in a volume.
        if self.has_volumes
            && matches!(container.status, Status::Running { .. })
            && let Err(error) = self.reach(container).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "the agent is not reached");
        }
        if self.standing || self.link.is_none() {
            return Ok(());
        }
        match self.send_signal(Signal::KILL, SIGNAL_PATIENCE_MIN).await {
            Ok(()) => self.await_power_off().await,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the agent does not answer: power off"
                );
                Ok(())
            }
        }
    }

    /// Lets a machine that stands still go on, its processes frozen, and hears its agent, for what is in its volumes.
    async fn reach(&mut self, container: &Container) -> Result<(), EngineError> {
        if self.standing {
            self.resume().await?;
        }
        if self.link.is_none() {
            self.guest = GuestFact::Unknown;
        }
        let by = Instant::now() + REACH_PATIENCE;
        while !matches!(self.guest, GuestFact::Process { .. }) {
            if Instant::now() > by {
                self.link = None;
                return Err(EngineError::TimedOut(REACH_PATIENCE.as_secs()));
            }
            self.greet(container).await?;
        }
        Ok(())
    }
}

/// The signal that made an end of it and was not told yet: a kill for its removal or at a stop's deadline, or a stop's
/// signal that arrived although its answer was lost.
pub(super) fn killed_by(container: &Container, exit: &Exit, now: DateTime<Utc>) -> Option<u8> {
    let kill = Signal::KILL.number();
    match (&container.desired.goal, &container.status) {
        (Goal::Gone, _) => Some(kill),
        (Goal::Stop { deadline: Some(at), .. }, _) if exit.code == 137 && *at <= now => Some(kill),
        (Goal::Stop { signal, .. }, Status::Running { stop_signalled: false, .. })
            if exit.code == 128 + i32::from(signal.number()) =>
        {
            Some(signal.number())
        }
        (Goal::Rest | Goal::Run | Goal::Stop { .. }, _) => None,
    }
}
