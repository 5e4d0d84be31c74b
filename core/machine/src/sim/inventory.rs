//! What a [`Sim`] has.

use super::Sim;
use crate::MachineError;
use crate::inventory::{Found, Inventory, Kind};
use async_trait::async_trait;

#[async_trait]
impl Inventory for Sim {
    async fn found(&self) -> Result<Vec<Found>, MachineError> {
        let world = self.lock();
        let found = |kind, of: String| Found { kind, name: format!("simulated {of}"), of };
        let machines = world.machines.keys().map(|id| found(Kind::Machine, id.to_string()));
        let journals = world.journals.keys().map(|id| found(Kind::Journal, id.to_string()));
        let disks = world.disks.keys().map(|(_, id)| found(Kind::Disk, id.to_string()));
        let segments = world.networks.iter().flat_map(|networks| &networks.segments);
        let bridges = segments.clone().map(|segment| found(Kind::Bridge, segment.network.to_string()));
        let ports = segments.flat_map(|segment| &segment.ports);
        let rules = ports.map(|port| found(Kind::Rule, port.endpoint.to_string()));
        Ok(machines.chain(journals).chain(disks).chain(bridges).chain(rules).collect())
    }
}
