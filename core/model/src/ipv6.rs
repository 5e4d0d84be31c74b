//! IPv6 on a network: a second range of addresses beside the first, for networks that were made with it.

use crate::ids::VchId;
use crate::network::{AddressError, LeaseError, MacAddress};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Of ranges that are found for networks, as of most there are.
const PREFIX: u8 = 64;

/// An IPv6 range of addresses that share a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet6 {
    address: Ipv6Addr,
    prefix: u8,
}

impl Subnet6 {
    /// Between hosts and their VCHs, with the IPv4 address of the same end in the last 32 bits: no network of a VCH may
    /// have it.
    pub const UPLINKS: Self =
        Self { address: Ipv6Addr::new(0xfd62, 0x6c6b, 0x6864, 0, 0, 0, 0, 0), prefix: 96 };

    /// Host bits of `address` are cleared. `None`: a prefix above 128.
    pub fn new(address: Ipv6Addr, prefix: u8) -> Option<Self> {
        let mask = mask(prefix)?;
        Some(Self { address: Ipv6Addr::from(u128::from(address) & mask), prefix })
    }

    pub fn address(self) -> Ipv6Addr {
        self.address
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn first(self) -> u128 {
        u128::from(self.address)
    }

    pub fn last(self) -> u128 {
        self.first() | !mask(self.prefix).unwrap_or_default()
    }

    pub fn contains(self, address: Ipv6Addr) -> bool {
        (self.first()..=self.last()).contains(&u128::from(address))
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }
}

fn mask(prefix: u8) -> Option<u128> {
    match prefix {
        0 => Some(0),
        1..=128 => Some(u128::MAX << (128 - prefix)),
        _ => None,
    }
}

impl FromStr for Subnet6 {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::new(text, "an IPv6 subnet such as fd00:1::/64");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        prefix.parse().ok().and_then(|prefix| Self::new(address, prefix)).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Subnet6 {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Subnet6> for String {
    fn from(subnet: Subnet6) -> String {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The IPv6 range of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool6 {
    pub subnet: Subnet6,
    pub gateway: Ipv6Addr,
    /// Addresses are given from here, where it is set.
    pub range: Option<Subnet6>,
    /// Addresses of the subnet that are nobody's to give, by the name that the user gave them.
    pub reserved: BTreeMap<String, Ipv6Addr>,
    /// Whether the user said the subnet.
    pub subnet_asked: bool,
}

impl Pool6 {
    /// An address for one more place on the `network`: the wished one, or the lowest that is free.
    pub fn address_for(
        &self,
        network: &str,
        wish: Option<Ipv6Addr>,
        taken: &BTreeSet<Ipv6Addr>,
    ) -> Result<Ipv6Addr, LeaseError> {
        // The first address of a subnet is that of any router (RFC 4291, 2.6.1); there is no broadcast.
        let may_be = |address: Ipv6Addr| {
            u128::from(address) != self.subnet.first()
                && address != self.gateway
                && !self.reserved.values().any(|reserved| *reserved == address)
        };
        if let Some(wish) = wish {
            return match self.subnet.contains(wish) {
                false => Err(LeaseError::Outside(wish.into())),
                true if taken.contains(&wish) || !may_be(wish) => Err(LeaseError::Taken(wish.into())),
                true => Ok(wish),
            };
        }
        let pool = self.range.unwrap_or(self.subnet);
        // Ends after as many steps as there are taken ones, and some.
        (pool.first()..=pool.last())
            .map(Ipv6Addr::from)
            .find(|address| may_be(*address) && !taken.contains(address))
            .ok_or_else(|| LeaseError::Exhausted(network.to_owned()))
    }
}

/// What a place on a network with IPv6 has while its container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease6 {
    pub address: Ipv6Addr,
    /// Of the network's subnet.
    pub prefix: u8,
    /// `None`: there is no way out.
    pub gateway: Option<Ipv6Addr>,
}

/// Ranges for networks that said none: unique local ones (RFC 4193), of a prefix that is the VCH's own.
pub fn pools6(vch: VchId) -> impl Iterator<Item = Subnet6> {
    let [a, b, c, d, e, ..] = *vch.0.as_bytes();
    let own = u128::from_be_bytes([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    (0..=u16::MAX).map(move |number| Subnet6 {
        address: Ipv6Addr::from(own | u128::from(number) << 64),
        prefix: PREFIX,
    })
}

/// What a station calls itself on its link by itself (RFC 4291, appendix A).
pub fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(u64::from_be_bytes(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: Option<&str>) -> Pool6 {
        Pool6 {
            subnet: "fd00::/125".parse().unwrap(),
            gateway: "fd00::1".parse().unwrap(),
            range: range.map(|text| text.parse().unwrap()),
            reserved: BTreeMap::from([("x".to_owned(), "fd00::3".parse().unwrap())]),
            subnet_asked: true,
        }
    }

    #[test]
    fn addresses_are_given_from_the_lowest() {
        let mut taken = BTreeSet::new();
        let mut given = Vec::new();
        while let Ok(address) = pool(None).address_for("mine", None, &taken) {
            taken.insert(address);
            given.push(address.to_string());
        }
        assert_eq!(given, ["fd00::2", "fd00::4", "fd00::5", "fd00::6", "fd00::7"]);
    }

    #[test]
    fn a_wish_is_granted_or_refused_with_the_reason() {
        let taken = BTreeSet::from(["fd00::5".parse().unwrap()]);
        let ask = |wish: &str| pool(Some("fd00::6/127")).address_for("mine", wish.parse().ok(), &taken);
        assert_eq!(ask("fd00::2").unwrap().to_string(), "fd00::2");
        for taken in ["fd00::", "fd00::1", "fd00::3", "fd00::5"] {
            assert_eq!(ask(taken), Err(LeaseError::Taken(taken.parse().unwrap())));
        }
        assert_eq!(ask("fd00::8"), Err(LeaseError::Outside("fd00::8".parse().unwrap())));
        assert_eq!(ask("").unwrap().to_string(), "fd00::6");
    }

    #[test]
    fn subnets_are_read_strictly() {
        let subnet: Subnet6 = "fd00:1::5/64".parse().unwrap();
        assert_eq!(subnet.to_string(), "fd00:1::/64");
        assert!(subnet.overlaps("fd00:1::8:0/112".parse().unwrap()));
        assert!(!subnet.overlaps("fd00:2::/64".parse().unwrap()));
        for wrong in ["fd00::", "fd00::/129", "10.0.0.0/8", "x/64"] {
            assert!(wrong.parse::<Subnet6>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_vch_has_ranges_of_its_own() {
        let of =
            |number: u128| pools6(VchId(uuid::Uuid::from_u128(number << 88))).nth(1).unwrap().to_string();
        assert_eq!(of(0x01_0203_0405), "fd01:203:405:1::/64");
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_station_names_itself_by_its_hardware_address() {
        let mac = "02:42:ac:11:00:02".parse().unwrap();
        assert_eq!(link_local(mac).to_string(), "fe80::42:acff:fe11:2");
    }
}
