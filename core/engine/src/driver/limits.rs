//! Limits inside the guest, as they are wished now: an update may have changed them since the process began.

use super::Driver;
use crate::guest::GuestError;
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_model::Container;
use bulkhead_model::lifecycle::{GuestFact, MachineFact};
use std::time::Duration;

const LIMITS_DEADLINE: Duration = Duration::from_secs(5);

/// Thousandths of a vCPU for the container in a machine with so many; 0: all of them.
fn quota(cpu_milli: u32, vcpus: u32) -> u32 {
    if cpu_milli < vcpus.saturating_mul(1000) { cpu_milli } else { 0 }
}

impl Driver {
    /// Tells the guest what it was not told yet, or was told otherwise.
    pub(super) async fn set_limits(&mut self, machine: &MachineFact, container: &Container) {
        let wanted = quota(container.spec.resources.cpu_milli, self.vcpus);
        let runs = matches!(self.guest, GuestFact::Process { .. });
        if *machine != MachineFact::Running || !runs || self.quota == Some(wanted) {
            return;
        }
        let Some(link) = self.link.as_mut() else { return };
        match link.call(RequestBody::Limits { cpu_quota_milli: wanted }, LIMITS_DEADLINE).await {
            Ok(_) => self.quota = Some(wanted),
            // Said once; it would say the same again.
            Err(error @ GuestError::Refused(_)) => {
                tracing::warn!(%error, "the guest keeps its CPU quota");
                self.quota = Some(wanted);
            }
            Err(error) => {
                tracing::warn!(%error, "the guest was not told its CPU quota");
                self.link = None;
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
