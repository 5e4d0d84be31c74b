//! The IPv6 range of a network to be made.

use super::create::overlap;
use crate::EngineError;
use bulkhead_model::VchId;
use bulkhead_model::ipv6::{Pool6, Subnet6, pools6};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Smaller ones have no room for a gateway and a container.
const PREFIX_MAX: u8 = 126;
/// Larger ones are mistakes.
const PREFIX_MIN: u8 = 32;

/// As it was asked for.
#[derive(Debug, Clone, Default)]
pub struct NewPool6 {
    /// `None`: one that is free.
    pub subnet: Option<Subnet6>,
    pub gateway: Option<Ipv6Addr>,
    pub range: Option<Subnet6>,
    pub reserved: BTreeMap<String, Ipv6Addr>,
}

impl NewPool6 {
    /// Beside those that are `taken`.
    pub(super) fn resolve(&self, vch: VchId, taken: &[Subnet6]) -> Result<Pool6, EngineError> {
        let refuse = |text: String| Err(EngineError::BadNetwork(text));
        let free = |subnet: Subnet6| !taken.iter().any(|other| other.overlaps(subnet));
        let subnet = match self.subnet {
            Some(subnet) if !(PREFIX_MIN..=PREFIX_MAX).contains(&subnet.prefix()) => {
                return refuse(format!(
                    "subnet {subnet}: expected a prefix from {PREFIX_MIN} to {PREFIX_MAX}"
                ));
            }
            Some(subnet) if is_reserved(subnet) => {
                return refuse(format!(
                    "subnet {subnet} is not for networks: it is link-local, multicast or loopback"
                ));
            }
            Some(subnet) if free(subnet) => subnet,
            Some(_) => return Err(overlap()),
            None => pools6(vch).find(|subnet| free(*subnet)).ok_or_else(|| {
                EngineError::NetworkForbidden(
                    "could not find an available, non-overlapping IPv6 address pool".into(),
                )
            })?,
        };
        let gateway = self.gateway.unwrap_or_else(|| Ipv6Addr::from(subnet.first() + 1));
        if !subnet.contains(gateway) {
            return refuse(format!("no matching subnet for gateway {gateway}"));
        }
        if let Some(range) = self.range
            && !(subnet.contains(range.address()) && range.prefix() >= subnet.prefix())
        {
            return refuse(format!("no matching subnet for range {range}"));
        }
        if let Some(address) = self.reserved.values().find(|address| !subnet.contains(**address)) {
            return refuse(format!("no matching subnet for aux-address {address}"));
        }
        let (range, reserved) = (self.range, self.reserved.clone());
        Ok(Pool6 { subnet, gateway, range, reserved, subnet_asked: self.subnet.is_some() })
    }
}

/// What rules drop whatever a network is called, and IPv4 in other words.
fn is_reserved(subnet: Subnet6) -> bool {
    ["fe80::/10", "ff00::/8", "::/96", "::ffff:0:0/96"]
        .iter()
        .filter_map(|text| text.parse::<Subnet6>().ok())
        .any(|reserved| reserved.overlaps(subnet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(subnet: &str, gateway: &str, taken: &[&str]) -> Result<Pool6, String> {
        let new =
            NewPool6 { subnet: subnet.parse().ok(), gateway: gateway.parse().ok(), ..NewPool6::default() };
        let taken: Vec<_> = taken.iter().map(|text| text.parse().unwrap()).collect();
        new.resolve(VchId(uuid::Uuid::nil()), &taken).map_err(|error| error.to_string())
    }

    #[test]
    fn a_range_is_asked_for_or_found() {
        let found = resolve("", "", &["fd00::/64"]).unwrap();
        assert_eq!((found.subnet.to_string().as_str(), found.subnet_asked), ("fd00:0:0:1::/64", false));
        assert_eq!(found.gateway.to_string(), "fd00:0:0:1::1");
        assert_eq!(resolve("fd01::/64", "fd01::9", &[]).unwrap().gateway.to_string(), "fd01::9");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (subnet, gateway, text) in [
            ("fd00::/64", "", "Pool overlaps with other one on this address space"),
            ("fd01::/127", "", "expected a prefix from 32 to 126"),
            ("fe80::/64", "", "it is link-local, multicast or loopback"),
            ("fd01::/64", "fd02::1", "no matching subnet for gateway fd02::1"),
        ] {
            let error = resolve(subnet, gateway, &["fd00::/48"]).unwrap_err();
            assert!(error.contains(text), "{subnet}: {error}");
        }
    }
}
