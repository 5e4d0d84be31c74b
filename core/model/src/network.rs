//! Networks: segments of a VCH, the places of containers on them, and who has which address.
//!
//! Addresses are Bulkhead's own to give. A place keeps its address from the start of a run to its end; what is free
//! is worked out from what the database says is taken.

use crate::digest::Digest;
use crate::ids::{ContainerId, EndpointId, NetworkId, VchId};
use crate::ipv6::{Lease6, Pool6};
use crate::ports::{PortWish, Protocol};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The network that a container is on if it asks for none.
pub const DEFAULT_NETWORK: &str = "bridge";
/// What stands for no network at all.
pub const NO_NETWORK: &str = "none";
/// What stands for the host's own network: the default one, without ports of the host.
pub const HOST_NETWORK: &str = "host";
/// Empty hot-plug ports of a machine are as many.
pub const NETWORKS_PER_CONTAINER_MAX: usize = 8;

/// An IPv4 range of addresses that share a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct AddressError {
    pub text: String,
    pub expected: &'static str,
}

impl AddressError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

impl Subnet {
    /// 198.18.0.0/15, which RFC 2544 sets aside for tests of network devices.
    pub const FOR_BENCHMARKS: Self = Self { address: Ipv4Addr::new(198, 18, 0, 0), prefix: 15 };

    /// Host bits of `address` are cleared. `None`: a prefix above 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = mask(prefix)?;
        Some(Self { address: Ipv4Addr::from(u32::from(address) & mask), prefix })
    }

    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix).unwrap_or_default())
    }

    pub fn first(self) -> u32 {
        u32::from(self.address)
    }

    pub fn last(self) -> u32 {
        self.first() | !mask(self.prefix).unwrap_or_default()
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first()..=self.last()).contains(&u32::from(address))
    }

    pub fn overlaps(self, other: Subnet) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }
}

fn mask(prefix: u8) -> Option<u32> {
    match prefix {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - prefix)),
        _ => None,
    }
}

impl FromStr for Subnet {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::new(text, "an IPv4 subnet such as 10.1.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        prefix.parse().ok().and_then(|prefix| Self::new(address, prefix)).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Subnet {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A hardware address of one station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// As Docker made them for long: locally administered, with the IP address in it. So who gets an address again is
    /// known by the same one.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl FromStr for MacAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::new(text, "a MAC address such as 02:42:ac:11:00:02");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        let one_station = bytes.first().is_some_and(|first| first & 1 == 0) && bytes != [0; 6];
        if parts.next().is_none() && one_station { Ok(Self(bytes)) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network of a VCH: one segment of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub vch: VchId,
    pub name: String,
    pub spec: NetworkSpec,
    pub created_at: DateTime<Utc>,
}

/// What a network is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub subnet: Subnet,
    pub gateway: Ipv4Addr,
    /// Addresses are given from here, where it is set.
    pub range: Option<Subnet>,
    /// Addresses of the subnet that are nobody's to give, by the name that the user gave them.
    #[serde(default)]
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// Nothing goes out and nothing comes in.
    pub internal: bool,
    /// Said, and of no meaning without a swarm.
    #[serde(default)]
    pub attachable: bool,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Whether the user said the subnet: a range that was found for it is another's to have once it is gone.
    #[serde(default)]
    pub subnet_asked: bool,
    /// `None`: there is no IPv6 on it.
    #[serde(default)]
    pub six: Option<Pool6>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("no available IPv4 addresses on this network's address pools: {0}")]
    Exhausted(String),
    #[error("Address already in use")]
    Taken(IpAddr),
    #[error("no configured subnet contains IP address {0}")]
    Outside(IpAddr),
}

impl Network {
    /// The network that each VCH has from its beginning.
    pub fn default_of(vch: VchId, created_at: DateTime<Utc>) -> Self {
        let subnet = Subnet { address: Ipv4Addr::new(172, 17, 0, 0), prefix: 16 };
        Self {
            id: predefined_id(vch, DEFAULT_NETWORK),
            vch,
            name: DEFAULT_NETWORK.into(),
            spec: NetworkSpec {
                subnet,
                gateway: Ipv4Addr::new(172, 17, 0, 1),
                range: None,
                reserved: BTreeMap::new(),
                internal: false,
                attachable: false,
                labels: BTreeMap::new(),
                options: BTreeMap::new(),
                subnet_asked: false,
                six: None,
            },
            created_at,
        }
    }

    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_NETWORK
    }

    /// An address for one more place: the wished one, or the lowest that is free.
    pub fn address_for(
        &self,
        wish: Option<Ipv4Addr>,
        taken: &BTreeSet<Ipv4Addr>,
    ) -> Result<Ipv4Addr, LeaseError> {
        let spec = &self.spec;
        let may_be = |address: Ipv4Addr| {
            let number = u32::from(address);
            let edge = number == spec.subnet.first() || number == spec.subnet.last();
            !edge && address != spec.gateway && !spec.reserved.values().any(|reserved| *reserved == address)
        };
        if let Some(wish) = wish {
            return match spec.subnet.contains(wish) {
                false => Err(LeaseError::Outside(wish.into())),
                true if taken.contains(&wish) || !may_be(wish) => Err(LeaseError::Taken(wish.into())),
                true => Ok(wish),
            };
        }
        let pool = spec.range.unwrap_or(spec.subnet);
        // Ends after as many steps as there are taken ones, and some.
        (pool.first()..=pool.last())
            .map(Ipv4Addr::from)
            .find(|address| may_be(*address) && !taken.contains(address))
            .ok_or_else(|| LeaseError::Exhausted(self.name.clone()))
    }
}

/// Of what every VCH has: the same as long as the VCH is there, and another VCH's differs.
pub fn predefined_id(vch: VchId, name: &str) -> NetworkId {
    let mut bytes = [0; 32];
    let digest = Digest::of(format!("network {name} of {vch}").as_bytes());
    for (byte, pair) in bytes.iter_mut().zip(digest.hex().as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(pair).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
    }
    NetworkId::from_random(bytes)
}

/// What Docker's engine takes user-defined networks' ranges from, in its order, without the default network's own.
pub fn pools() -> impl Iterator<Item = Subnet> {
    let sixteens = (18..=31).map(|second| Subnet { address: Ipv4Addr::new(172, second, 0, 0), prefix: 16 });
    let twenties =
        (0..16).map(|third| Subnet { address: Ipv4Addr::new(192, 168, third * 16, 0), prefix: 20 });
    // The built-in ranges of Docker end here; a VCH's own namespace has room for more.
    let tens = (0..=255).map(|second| Subnet { address: Ipv4Addr::new(10, second, 0, 0), prefix: 16 });
    sixteens.chain(twenties).chain(tens)
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: EndpointId,
    pub container: ContainerId,
    pub network: NetworkId,
    pub wish: EndpointWish,
    /// Held from the start of a run to its end.
    pub lease: Option<Lease>,
}

/// What was asked for a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointWish {
    /// As named by the user, until it is found.
    pub network: String,
    pub aliases: Vec<String>,
    pub address: Option<Ipv4Addr>,
    pub address6: Option<Ipv6Addr>,
    pub mac: Option<MacAddress>,
    /// The network of the highest one is the way out.
    pub gateway_priority: i64,
    pub links: Vec<Link>,
}

/// One more name for another container, known to who asked for it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// A name on the same network; on the default one, once it is found, the container's id: a link there follows who
    /// it was made to.
    pub target: String,
    pub alias: String,
}

/// What a place has while its container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub address: Ipv4Addr,
    /// Of the network's subnet.
    pub prefix: u8,
    pub mac: MacAddress,
    /// `None`: there is no way out.
    pub gateway: Option<Ipv4Addr>,
    /// On networks with IPv6.
    #[serde(default)]
    pub six: Option<Lease6>,
}

impl Lease {
    /// Of both families.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [Some(self.address.into()), self.six.map(|six| six.address.into())].into_iter().flatten()
    }
}

/// What a container is told of networks and names; its places on networks are rows of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkOptions {
    /// On which networks it was made. Empty: on none.
    pub endpoints: Vec<EndpointWish>,
    /// The network mode `host`: its one place is on the default network, and looks like one on the host's.
    pub host: bool,
    pub ports: Vec<PortWish>,
    /// Of the container, as `80/tcp`; the image's with them, once resolved.
    pub exposed: BTreeSet<String>,
    /// Every exposed port, on a port of the host that is found for it.
    pub publish_all: bool,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// Name and address; no address: that of the host, as it is seen from the network.
    pub hosts: Vec<(String, Option<IpAddr>)>,
}

impl NetworkOptions {
    /// With what the image exposes; where all is to be published, each exposed port becomes a wish.
    pub fn with_image(mut self, exposed: &[String]) -> Self {
        self.exposed.extend(
            exposed.iter().filter_map(|text| exposed_port(text)).map(|(port, of)| format!("{port}/{of}")),
        );
        if self.publish_all {
            for (port, protocol) in self.exposed.iter().filter_map(|text| exposed_port(text)) {
                let same = |wish: &PortWish| wish.container_port == port && wish.protocol == protocol;
                if !self.ports.iter().any(same) {
                    let (host_address, host_ports) = (None, None);
                    self.ports.push(PortWish { container_port: port, protocol, host_address, host_ports });
                }
            }
        }
        self
    }

    /// Bytes of text that go to the guest.
    pub fn text_bytes(&self) -> usize {
        let words =
            self.dns_search.iter().chain(&self.dns_options).chain(self.hosts.iter().map(|(name, _)| name));
        words.map(|word| word.len() + 32).sum()
    }
}

/// `80`, `80/tcp`, `53/udp`.
pub fn exposed_port(text: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some((port.parse().ok().filter(|port| *port > 0)?, protocol.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(range: Option<&str>) -> Network {
        let mut network = Network::default_of(VchId(uuid::Uuid::nil()), DateTime::<Utc>::MIN_UTC);
        network.spec.subnet = "10.0.0.0/29".parse().unwrap();
        network.spec.gateway = "10.0.0.1".parse().unwrap();
        network.spec.range = range.map(|text| text.parse().unwrap());
        network
    }

    #[test]
    fn addresses_are_given_from_the_lowest() {
        let network = network(None);
        let mut taken = BTreeSet::new();
        let mut given = Vec::new();
        while let Ok(address) = network.address_for(None, &taken) {
            taken.insert(address);
            given.push(address.to_string());
        }
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        taken.remove(&"10.0.0.3".parse().unwrap());
        assert_eq!(network.address_for(None, &taken).unwrap().to_string(), "10.0.0.3");
    }

    #[test]
    fn a_wish_is_granted_or_refused_with_the_reason() {
        let network = network(Some("10.0.0.4/30"));
        let taken = BTreeSet::from(["10.0.0.5".parse().unwrap()]);
        let ask = |wish: &str| network.address_for(Some(wish.parse().unwrap()), &taken);
        assert_eq!(ask("10.0.0.2").unwrap().to_string(), "10.0.0.2");
        for taken in ["10.0.0.1", "10.0.0.5", "10.0.0.0", "10.0.0.7"] {
            assert_eq!(ask(taken), Err(LeaseError::Taken(taken.parse().unwrap())));
        }
        assert_eq!(ask("10.0.0.8"), Err(LeaseError::Outside("10.0.0.8".parse().unwrap())));
        assert_eq!(network.address_for(None, &taken).unwrap().to_string(), "10.0.0.4");
    }

    #[test]
    fn subnets_and_hardware_addresses_are_read_strictly() {
        let subnet: Subnet = "172.18.3.4/16".parse().unwrap();
        assert_eq!(subnet.to_string(), "172.18.0.0/16");
        assert_eq!(subnet.netmask().to_string(), "255.255.0.0");
        assert!(subnet.overlaps("172.18.128.0/24".parse().unwrap()));
        assert!(!subnet.overlaps("172.19.0.0/16".parse().unwrap()));
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "::/8", "10.0.0/8", "x/8"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
        let mac: MacAddress = "02:42:AC:11:00:02".parse().unwrap();
        assert_eq!(mac, MacAddress::of("172.17.0.2".parse().unwrap()));
        // The last three speak to many, to all, and to nobody.
        for wrong in [
            "",
            "02:42:ac:11:00",
            "2:42:ac:11:0:2",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_exposed_is_published_where_all_is() {
        let asked = NetworkOptions { publish_all: true, ..NetworkOptions::default() };
        let options = asked.with_image(&["80".into(), "80/tcp".into(), "53/udp".into(), "x/tcp".into()]);
        assert_eq!(options.exposed, ["53/udp".to_owned(), "80/tcp".into()].into());
        let ports: Vec<_> = options.ports.iter().map(|wish| (wish.container_port, wish.protocol)).collect();
        assert_eq!(ports, [(53, Protocol::Udp), (80, Protocol::Tcp)]);
    }

    #[test]
    fn the_default_network_is_told_apart_by_its_vch() {
        let (one, other) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        assert_eq!(predefined_id(VchId(one), "bridge"), predefined_id(VchId(one), "bridge"));
        assert_ne!(predefined_id(VchId(one), "bridge"), predefined_id(VchId(other), "bridge"));
        assert_ne!(predefined_id(VchId(one), "bridge"), predefined_id(VchId(one), "none"));
    }
}
