//! Networks of VCHs: segments for the machines of one VCH and of no other, a way out, and ports of the host that lead
//! in.
//!
//! One verb: [`Networks::apply`] makes everything be as it is told, from whatever is there. So what a killed server left,
//! what a reboot took away and what somebody flushed are the same case.

use crate::MachineError;
use async_trait::async_trait;
use bulkhead_model::ipv6::Subnet6;
use bulkhead_model::network::{MacAddress, Subnet};
use bulkhead_model::{EndpointId, NetworkId, Published, VchId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::sync::watch;

/// A network interface of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub endpoint: EndpointId,
    pub network: NetworkId,
    pub mac: MacAddress,
}

/// All that one VCH has of networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VchNetworks {
    pub vch: VchId,
    pub segments: Vec<Segment>,
    pub published: Vec<PublishedPort>,
}

/// A layer-2 domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub network: NetworkId,
    pub subnet: Subnet,
    /// The host's own address on it.
    pub gateway: Ipv4Addr,
    /// Of IPv6, where the network has it: the range, and the host's own address.
    pub six: Option<(Subnet6, Ipv6Addr)>,
    /// Nothing goes out, and nothing comes in.
    pub internal: bool,
    /// Who may speak on it, and as whom. Everybody else, and every other address, is dropped and counted.
    pub ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub endpoint: EndpointId,
    pub mac: MacAddress,
    pub address: Ipv4Addr,
    pub address6: Option<Ipv6Addr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    pub published: Published,
    /// The container's address, of the same family as the host's.
    pub target: IpAddr,
}

/// Frames of a port that were dropped, by the reason: `mac`, `arp`, `ip`, `dhcp`, `ra`, `nd`, `ipv6`, `vlan`, `other`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    pub endpoint: String,
    pub reason: &'static str,
    pub packets: u64,
}

#[async_trait]
pub trait Networks: Send + Sync + fmt::Debug {
    /// Why there are none on this host; machines without a network work all the same.
    fn unavailable(&self) -> Option<&str>;

    /// Addresses between the host and its VCHs: no network of a VCH may have them.
    fn reserved(&self) -> Subnet;

    /// Makes the networks of all VCHs what they are here; what a VCH has that is not here goes, and what is not changed
    /// is not disturbed. Those that could not be made so, with the reason.
    async fn apply(&self, all: &[VchNetworks]) -> Result<Vec<(VchId, String)>, MachineError>;

    /// Whether nothing else on the host uses the port.
    async fn is_free(&self, port: &Published) -> bool;

    /// The host, as machines of the VCH reach what is published on it.
    async fn host_address(&self, vch: VchId) -> Option<Ipv4Addr>;

    /// What the ports of a VCH dropped since they were made.
    async fn dropped(&self, vch: VchId) -> Result<Vec<Dropped>, MachineError>;

    /// Counts up when somebody else changed what was made: time to apply again.
    fn disturbed(&self) -> watch::Receiver<u64>;
}
