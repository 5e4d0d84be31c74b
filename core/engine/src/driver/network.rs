//! What the guest is told of its networks and of the names on them, whenever that changes.

use super::Driver;
use super::acts::CALL_DEADLINE;
use crate::guest::GuestError;
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_model::Container;
use bulkhead_model::lifecycle::{GuestFact, MachineFact};
use std::time::Duration;
use tokio::time::Instant;

/// An interface that was just plugged in takes a moment to be seen by the guest's kernel.
const PLUG_PATIENCE: Duration = Duration::from_secs(15);
const PLUG_PAUSE: Duration = Duration::from_millis(100);

impl Driver {
    pub(super) async fn set_network(&mut self, machine: &MachineFact, container: &Container) {
        let runs = *machine == MachineFact::Running && matches!(self.guest, GuestFact::Process { .. });
        if !runs || self.link.is_none() {
            self.told_network = None;
            return;
        }
        if container.endpoints.is_empty() && self.told_network.is_none() {
            return;
        }
        let network = self.engine.network_of(container).await;
        if self.told_network.as_ref() == Some(&network) {
            return;
        }
        let until = Instant::now() + PLUG_PATIENCE;
        loop {
            let Some(link) = self.link.as_ref() else { return };
            let body = RequestBody::Network(Box::new(network.clone()));
            match link.call(body, CALL_DEADLINE).await {
                Ok(_) => {
                    self.told_network = Some(network);
                    return;
                }
                Err(GuestError::Refused(_)) if Instant::now() < until => tokio::time::sleep(PLUG_PAUSE).await,
                Err(error) => {
                    // The next look tries again.
                    tracing::warn!(%error, "the guest could not be told of its networks");
                    return;
                }
            }
        }
    }
}
