//! What guest and host are told of what is wished now. Each look compares: who was told otherwise is told again, and
//! both are once an agent was greeted, for it or the back end may be new.

use super::Driver;
use crate::guest::GuestError;
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_model::Container;
use bulkhead_model::lifecycle::{GuestFact, MachineFact};
use std::time::Duration;

pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// What was told since the agent was greeted.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Thousandths of a vCPU; 0: no quota.
    pub(super) quota: Option<u32>,
    /// Whether the container's processes are to stand still.
    pub(super) still: Option<bool>,
    /// Of its machine, on the host; thousandths of a vCPU.
    pub(super) cpu_share: Option<u32>,
}

/// Thousandths of a vCPU for the container in a machine with so many; 0: all of them.
fn quota(cpu_milli: u32, vcpus: u32) -> u32 {
    if cpu_milli < vcpus.saturating_mul(1000) { cpu_milli } else { 0 }
}

impl Driver {
    pub(super) async fn tell(&mut self, machine: &MachineFact, container: &Container) {
        // Before its process begins, a guest is told with its start.
        if *machine != MachineFact::Running || !matches!(self.guest, GuestFact::Process { .. }) {
            return;
        }
        self.tell_clock().await;
        self.tell_still(container.desired.paused).await;
        let cpu_milli = container.spec.resources.cpu_milli;
        self.tell_host(cpu_milli).await;
        let quota = quota(cpu_milli, self.vcpus);
        if self.told.quota != Some(quota)
            && self.took(RequestBody::Limits { cpu_quota_milli: quota }, "its CPU quota").await
        {
            self.told.quota = Some(quota);
        }
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

#[cfg(test)]
mod tests {
    use super::quota;

    #[test]
    fn a_quota_is_for_less_than_the_machine_has() {
        for (cpu_milli, vcpus, expect) in
            [(500, 1, 500), (1000, 1, 0), (1000, 2, 1000), (2000, 2, 0), (3000, 2, 0)]
        {
            assert_eq!(quota(cpu_milli, vcpus), expect, "{cpu_milli} of {vcpus}");
        }
    }
}
