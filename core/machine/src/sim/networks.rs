//! The networks of a [`Sim`]: what was applied last, to be looked at.

use super::{Sim, Verb};
use crate::MachineError;
use crate::networks::{Dropped, Networks, VchNetworks};
use async_trait::async_trait;
use bulkhead_model::network::Subnet;
use bulkhead_model::{Published, VchId};
use std::net::Ipv4Addr;
use tokio::sync::watch;

/// Of every simulated VCH.
const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

#[async_trait]
impl Networks for Sim {
    fn unavailable(&self) -> Option<&str> {
        None
    }

    fn reserved(&self) -> Subnet {
        Subnet::FOR_BENCHMARKS
    }

    async fn apply(&self, all: &[VchNetworks]) -> Result<Vec<(VchId, String)>, MachineError> {
        self.enter(Verb::ApplyNetworks)?;
        self.lock().networks = all.to_vec();
        Ok(Vec::new())
    }

    async fn is_free(&self, port: &Published) -> bool {
        !self.lock().used_ports.contains(&(port.protocol, port.host_port))
    }

    async fn host_address(&self, _: VchId) -> Option<Ipv4Addr> {
        Some(HOST)
    }

    async fn dropped(&self, _: VchId) -> Result<Vec<Dropped>, MachineError> {
        Ok(Vec::new())
    }

    fn disturbed(&self) -> watch::Receiver<u64> {
        self.0.disturbed.subscribe()
    }
}

impl Sim {
    /// As they were applied last.
    pub fn networks(&self) -> Vec<VchNetworks> {
        self.lock().networks.clone()
    }

    /// As if another program flushed all rules.
    pub fn disturb_networks(&self) {
        self.lock().networks.clear();
        self.0.disturbed.send_modify(|count| *count += 1);
    }

    /// As if another program used the port from now on.
    pub fn use_port(&self, protocol: bulkhead_model::ports::Protocol, port: u16) {
        self.lock().used_ports.insert((protocol, port));
    }
}
