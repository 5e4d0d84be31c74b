//! What a guest is told of its networks and of the names on them.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// Where a guest's own resolver answers, in Docker's engine as here.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The hardware address of a machine's first interface before the machine is anybody's.
pub const PARKED_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// All of it: what was told before and is not in here is no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The first one with a gateway is the way out. None: there is loopback only, and no resolver.
    pub interfaces: Vec<Interface>,
    /// Lines of /etc/hosts beside the container's own name.
    pub hosts: Vec<(String, IpAddr)>,
    pub resolver: Resolver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// By which it is found.
    pub mac: [u8; 6],
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Lower case.
    pub names: Vec<Name>,
    /// Who is asked about all other names, in this order.
    pub upstream: Vec<IpAddr>,
    /// `search` and `options` of resolv.conf(5).
    pub search: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    pub name: String,
    pub addresses: Vec<Ipv4Addr>,
}
