//! What this host has of what networks need, found out by making one and taking it away.

use super::namespace::Namespace;
use super::{names, rules, tap};
use bulkhead_machine::networks::{Dropped, Nic, Port, Segment, VchNetworks};
use bulkhead_model::network::{MacAddress, Network, Subnet};
use bulkhead_model::{EndpointId, NetworkId, VchId};
use serde_json::Value;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Fails with what is missing. Some programs are run: it takes a tenth of a second.
pub fn probe_networks() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("networks need root".into());
    }
    let namespace = Namespace::named(format!("bulkhead-probe-{}", std::process::id()));
    let outcome = namespace.ensure().and_then(|()| try_out(&namespace));
    let removed = namespace.remove();
    outcome.and(removed).map_err(|error| error.to_string())
}

fn try_out(namespace: &Namespace) -> io::Result<()> {
    let (endpoint, network) = (EndpointId::from_random([1; 32]), NetworkId::from_random([2; 32]));
    let vch: VchId = "00000000-0000-0000-0000-000000000000".parse().map_err(io::Error::other)?;
    let default = Network::default_of(vch, chrono::DateTime::UNIX_EPOCH);
    let address = Ipv4Addr::new(172, 17, 0, 2);
    let mac = MacAddress::of(address);
    let address6 = Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    let port = Port { endpoint: endpoint.clone(), mac, address, address6 };
    let (subnet, gateway) = (default.spec.subnet, default.spec.gateway);
    let (internal, ports) = (false, vec![port]);
    let segment = Segment { network: network.clone(), subnet, gateway, six: None, internal, ports };
    let networks = VchNetworks { vch, segments: vec![segment], published: Vec::new() };
    namespace.change_links(&[
        "link add name uplink type veth peer name other".into(),
        format!("link add name {} type bridge", names::bridge(&network)),
    ])?;
    // Twice: the second time over what is there, as every change is.
    for _ in 0..2 {
        let openings = rules::Openings::default();
        namespace.change_rules(&rules::inside(&networks, Subnet::FOR_BENCHMARKS, &openings))?;
        namespace.change_rules(&rules::host("bulkhead_probe", &[]))?;
    }
    tap::open(namespace, &Nic { endpoint, network, mac }).map(drop)
}

/// The counters of the sets of dropped frames, in what `nft -j list table` prints.
pub(super) fn counters(listed: &Value) -> Vec<Dropped> {
    let mut all = Vec::new();
    for set in listed.get("nftables").and_then(Value::as_array).into_iter().flatten() {
        let Some(set) = set.get("set") else { continue };
        let name = set.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(reason) =
            rules::REASONS.iter().find(|reason| name.strip_prefix("dropped_") == Some(**reason))
        else {
            continue;
        };
        for element in set.get("elem").and_then(Value::as_array).into_iter().flatten() {
            let element = element.get("elem").unwrap_or(element);
            let port = element.get("val").and_then(Value::as_str);
            let packets = element.pointer("/counter/packets").and_then(Value::as_u64);
            if let Some((port, packets)) = port.zip(packets) {
                all.push(Dropped { endpoint: port.into(), reason, packets });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_what_nft_says() {
        let listed = serde_json::json!({"nftables": [
            {"metainfo": {}},
            {"set": {"name": "stations", "elem": [{"concat": ["p0", "02:42:ac:11:00:02"]}]}},
            {"set": {"name": "dropped_mac", "elem": [{"elem": {"val": "p0", "counter": {"packets": 3, "bytes": 9}}}]}},
            {"set": {"name": "dropped_arp"}},
        ]});
        let expect = Dropped { endpoint: "p0".into(), reason: "mac", packets: 3 };
        assert_eq!(counters(&listed), [expect]);
    }
}
