//! The machine has the interfaces that its container has places for, and its guest knows of them and of the names on
//! their networks.

use super::Driver;
use super::acts::CALL_DEADLINE;
use crate::EngineError;
use crate::guest::GuestError;
use crate::networks::nics;
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_machine::Condition;
use bulkhead_model::Container;
use bulkhead_model::lifecycle::{GuestFact, MachineFact};
use std::time::Duration;
use tokio::time::Instant;

/// An interface that was just plugged in takes a moment to be seen by the guest's kernel.
const PLUG_PATIENCE: Duration = Duration::from_secs(20);
const PLUG_PAUSE: Duration = Duration::from_millis(100);

impl Driver {
    /// As somebody waits for it.
    pub(super) async fn change_networks(&mut self) -> Result<(), EngineError> {
        let container = self.engine.store().container(self.vch, &self.id).await?;
        let machine = match self.engine.back_end().machines.observe(&self.id).await? {
            Some(found) if matches!(found.condition, Condition::Running { paused: false, .. }) => {
                self.nics = found.nics;
                MachineFact::Running
            }
            // What it will be started with, or goes on with.
            Some(_) | None => return Ok(()),
        };
        self.set_network(&machine, &container).await
    }

    pub(super) async fn set_network(
        &mut self,
        machine: &MachineFact,
        container: &Container,
    ) -> Result<(), EngineError> {
        let runs = *machine == MachineFact::Running && matches!(self.guest, GuestFact::Process { .. });
        if !runs || self.link.is_none() {
            self.told_network = None;
            return Ok(());
        }
        if container.endpoints.is_empty() && self.told_network.is_none() && self.nics.is_empty() {
            return Ok(());
        }
        self.plug(container).await?;
        let network = self.engine.network_of(container).await;
        if self.told_network.as_ref() == Some(&network) {
            return Ok(());
        }
        let until = Instant::now() + PLUG_PATIENCE;
        loop {
            let Some(link) = self.link.as_ref() else { return Ok(()) };
            let body = RequestBody::Network(Box::new(network.clone()));
            match link.call(body, CALL_DEADLINE).await {
                Ok(_) => {
                    self.told_network = Some(network);
                    return Ok(());
                }
                Err(GuestError::Refused(_)) if Instant::now() < until => tokio::time::sleep(PLUG_PAUSE).await,
                Err(error) => {
                    let why = format!("the guest could not be told of its networks: {error}");
                    return Err(EngineError::Network(why));
                }
            }
        }
    }

    async fn plug(&mut self, container: &Container) -> Result<(), EngineError> {
        let machines = &self.engine.back_end().machines;
        let wanted = nics(&container.endpoints);
        for gone in self.nics.iter().filter(|had| !wanted.iter().any(|nic| nic.endpoint == **had)) {
            machines.unplug(&self.id, gone).await?;
        }
        for new in wanted.iter().filter(|nic| !self.nics.contains(&nic.endpoint)) {
            machines.plug(&self.id, new).await?;
            // The guest has to set it up, also where it had one like it.
            self.told_network = None;
        }
        self.nics = wanted.into_iter().map(|nic| nic.endpoint).collect();
        Ok(())
    }
}
