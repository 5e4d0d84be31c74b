//! What guest and host are told of what is wished now. Each look compares: who was told otherwise is told again, and
//! both are once an agent was greeted, for it or the back end may be new.

use super::acts::unreachable_agent;
use super::process::limits;
use super::{Command, Driver, Handle};
use crate::EngineError;
use crate::guest::GuestError;
use bulkhead_guest_protocol::message::{Limits, RequestBody};
use bulkhead_machine::{Condition, MachineFacts};
use bulkhead_model::Container;
use bulkhead_model::lifecycle::{GuestFact, MachineFact};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(super) const DEADLINE: Duration = Duration::from_secs(5);
const PLUG_PATIENCE: Duration = Duration::from_secs(20);
const PLUG_PAUSE: Duration = Duration::from_millis(100);

/// What was told since the agent was greeted.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) limits: Option<Limits>,
    /// Whether the container's processes are to stand still.
    pub(super) still: Option<bool>,
    /// Of its machine, on the host; thousandths of a vCPU.
    pub(super) cpu_share: Option<u32>,
}

/// Of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    vcpus: u32,
    plugged_bytes: u64,
}

impl Size {
    pub(super) fn of(found: &MachineFacts) -> Self {
        Self { vcpus: found.vcpus, plugged_bytes: found.memory.plugged_bytes }
    }
}

impl Handle {
    /// Has the machine and its guest hold the limits that the container has by now.
    pub(crate) async fn limits(&self) -> Result<(), EngineError> {
        let (done, answer) = oneshot::channel();
        self.command(Command::Limits { done }).await?;
        answer.await.map_err(|_| EngineError::Stopping)?
    }
}

impl Driver {
    pub(super) async fn tell(&mut self, machine: &MachineFact, container: &Container) {
        // Before its process begins, a guest is told with its start.
        if *machine != MachineFact::Running || !matches!(self.guest, GuestFact::Process { .. }) {
            return;
        }
        self.tell_clock().await;
        self.tell_still(container.desired.paused).await;
        self.tell_host(container.spec.resources.cpu_milli).await;
        if let Err(error) = self.tell_limits(container).await {
            // The next look tries again.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the guest keeps the limits that it had"
            );
        }
    }

    /// As somebody waits for it.
    pub(super) async fn change_limits(&mut self) -> Result<(), EngineError> {
        let container = self.engine.store().container(self.vch, &self.id).await?;
        let found = self.engine.back_end().machines.observe(&self.id).await?;
        let runs = found.filter(|found| matches!(found.condition, Condition::Running { paused: false, .. }));
        match runs {
            Some(found) if self.link.is_some() && matches!(self.guest, GuestFact::Process { .. }) => {
                self.size = Size::of(&found);
                self.tell_limits(&container).await
            }
            // It is told with its start, or once it goes on.
            Some(_) | None => Ok(()),
        }
    }

    /// Memory that the machine has not yet comes first.
    async fn tell_limits(&mut self, container: &Container) -> Result<(), EngineError> {
        let mut limits = limits(&container.spec, self.size.vcpus);
        // The host's own limit on the machine rises before the guest's on the container.
        if self.told.limits.is_none_or(|told| told.memory_bytes < limits.memory_bytes) {
            let machines = self.engine.back_end().machines.clone();
            machines.grow_memory(&self.id, limits.memory_bytes).await?;
            if let Some(found) = machines.observe(&self.id).await? {
                self.size = Size::of(&found);
            }
        }
        limits.plugged_bytes = self.size.plugged_bytes;
        let until = Instant::now() + PLUG_PATIENCE;
        while self.told.limits != Some(limits) {
            let Some(link) = self.link.as_ref() else { return Ok(()) };
            match link.call(RequestBody::Limits(limits), DEADLINE).await {
                Ok(_) => self.told.limits = Some(limits),
                // Memory that was just plugged in takes a moment to be seen by the guest's kernel.
                Err(GuestError::Refused(_)) if limits.plugged_bytes > 0 && Instant::now() < until => {
                    tokio::time::sleep(PLUG_PAUSE).await;
                }
                Err(error) => {
                    if !matches!(error, GuestError::Refused(_)) {
                        // An agent that does not answer is greeted anew.
                        self.link = None;
                    }
                    return Err(unreachable_agent(&error.to_string(), self));
                }
            }
        }
        Ok(())
    }

    /// A guest that stood still has missed time, as has one whose host slept.
    pub(super) async fn tell_clock(&mut self) {
        if self.link.is_none() || !self.handle.take_clock_due() {
            return;
        }
        let unix_ns = u64::try_from(self.engine.now().timestamp_nanos_opt().unwrap_or(0)).unwrap_or(0);
        if !self.took(RequestBody::SetClock { unix_ns }, "the time").await {
            self.handle.clock_is_due();
        }
    }

    pub(super) async fn tell_still(&mut self, still: bool) {
        if self.told.still != Some(still)
            && self.took(RequestBody::Freeze { still }, "whether to stand still").await
        {
            self.told.still = Some(still);
        }
    }

    async fn tell_host(&mut self, cpu_milli: u32) {
        if self.told.cpu_share == Some(cpu_milli) {
            return;
        }
        match self.engine.back_end().machines.set_cpu_share(&self.id, cpu_milli).await {
            Ok(()) => self.told.cpu_share = Some(cpu_milli),
            // The next look tries again.
            Err(error) => tracing::warn!(%error, "the machine keeps its share of CPU time"),
        }
    }

    /// Whether there is no more to say; an agent that does not answer is greeted anew.
    async fn took(&mut self, body: RequestBody, what: &str) -> bool {
        let Some(link) = self.link.as_mut() else { return false };
        match link.call(body, DEADLINE).await {
            Ok(_) => true,
            // Said once; it would say the same again.
            Err(error @ GuestError::Refused(_)) => {
                tracing::warn!(%error, "the guest did not do as it was told: {what}");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the guest was not told {what}");
                self.link = None;
                false
            }
        }
    }
}
