//! Namespaces, uplinks and bridges: what is there is read, what is missing is made, what is too much is taken away.

use super::names::{self, UPLINK};
use super::namespace::{Namespace, output};
use bulkhead_machine::networks::VchNetworks;
use bulkhead_model::VchId;
use bulkhead_model::network::{MacAddress, Subnet};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;

/// Two ends of an uplink and the addresses around them.
const UPLINK_PREFIX: u8 = 30;
/// Servers that choose subnets of uplinks on one host do it one after another.
const LOCK: &str = "/run/bulkhead-uplinks.lock";

/// Of a VCH's namespace. IPv6 is not there at all; what is bridged is not also routed.
const INSIDE: [(&str, &str); 8] = [
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
];

/// The ends of an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) host: Ipv4Addr,
    pub(crate) inner: Ipv4Addr,
}

/// Interfaces of a namespace by name, with their IPv4 addresses.
fn addresses(links: &Value) -> BTreeMap<String, Vec<(Ipv4Addr, u8)>> {
    let of = |link: &Value| {
        let name = link.get("ifname")?.as_str()?.to_owned();
        let listed = link.get("addr_info").and_then(Value::as_array).into_iter().flatten();
        let address = |info: &Value| {
            let address = info.get("local")?.as_str()?.parse().ok()?;
            Some((address, u8::try_from(info.get("prefixlen")?.as_u64()?).ok()?))
        };
        Some((name, listed.filter_map(address).collect()))
    };
    links.as_array().into_iter().flatten().filter_map(of).collect()
}

/// All of the host's own addresses but loopback, which no packet from outside reaches.
pub(crate) fn host_addresses() -> io::Result<BTreeSet<Ipv4Addr>> {
    let all = addresses(&Namespace::host().links()?);
    let all = all.into_values().flatten().map(|(address, _)| address);
    Ok(all.filter(|address| !address.is_loopback()).collect())
}

/// The namespace with its uplink, made or found.
pub(crate) fn ensure_uplink(vch: VchId, uplinks: Subnet) -> io::Result<Ends> {
    let namespace = Namespace::named(names::namespace(vch));
    if namespace.exists()
        && let Some(ends) = ends(&namespace, vch)?
    {
        return Ok(ends);
    }
    // One end is nothing without the other.
    remove(vch)?;
    namespace.ensure()?;
    namespace.set(&INSIDE)?;
    let _lock = lock()?;
    let ends = free_ends(uplinks)?;
    let (outer, prefix) = (names::uplink(vch), UPLINK_PREFIX);
    Namespace::host().change_links(&[
        format!("link add name {outer} type veth peer name {UPLINK} netns {}", namespace.name()),
        format!("address add {}/{prefix} dev {outer}", ends.host),
    ])?;
    let conf = |name: &str| format!("net/ipv4/conf/{outer}/{name}");
    let quiet = format!("net/ipv6/conf/{outer}/disable_ipv6");
    Namespace::host().set(&[
        (&quiet, "1"),
        // So that a port published on loopback can lead into the namespace. What comes out of it to loopback, rules
        // and the namespace's own routes drop.
        (&conf("route_localnet"), "1"),
        (&conf("send_redirects"), "0"),
    ])?;
    Namespace::host().change_links(&[format!("link set dev {outer} up")])?;
    namespace.change_links(&[
        "link set dev lo up".into(),
        format!("address add {}/{prefix} dev {UPLINK}", ends.inner),
        format!("link set dev {UPLINK} up"),
        format!("route add default via {}", ends.host),
    ])?;
    Ok(ends)
}

/// The host forwards between its interfaces from now on, as every router does.
pub(crate) fn forward() -> io::Result<()> {
    const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";
    if std::fs::read_to_string(SETTING)?.trim() == "0" {
        tracing::warn!("turns IPv4 forwarding on for this host: the networks of VCHs need it");
        std::fs::write(SETTING, "1")?;
    }
    Ok(())
}

fn ends(namespace: &Namespace, vch: VchId) -> io::Result<Option<Ends>> {
    let inside = addresses(&namespace.links()?);
    let outside = addresses(&Namespace::host().links()?);
    let first =
        |of: Option<&Vec<(Ipv4Addr, u8)>>| of.and_then(|all| all.first()).map(|(address, _)| *address);
    let (inner, host) = (first(inside.get(UPLINK)), first(outside.get(&names::uplink(vch))));
    Ok(inner.zip(host).map(|(inner, host)| Ends { host, inner }))
}

/// Nobody else on the host has an address or a route there.
fn free_ends(uplinks: Subnet) -> io::Result<Ends> {
    let mut used: Vec<Subnet> = Vec::new();
    for (address, prefix) in addresses(&Namespace::host().links()?).into_values().flatten() {
        used.extend(Subnet::new(address, prefix));
    }
    let routes: Value = serde_json::from_slice(&output("ip", ["-json", "-4", "route", "show"])?)?;
    for route in routes.as_array().into_iter().flatten() {
        let text = route.get("dst").and_then(Value::as_str).unwrap_or_default();
        let text = if text.contains('/') { text.to_owned() } else { format!("{text}/32") };
        used.extend(text.parse::<Subnet>().ok().filter(|subnet| subnet.prefix() > 0));
    }
    let candidates = (uplinks.first()..=uplinks.last()).step_by(4);
    let free = candidates.filter_map(|first| Subnet::new(Ipv4Addr::from(first), UPLINK_PREFIX));
    let mut free = free.filter(|subnet| !used.iter().any(|other| other.overlaps(*subnet)));
    let subnet = free
        .next()
        .ok_or_else(|| io::Error::other(format!("no subnet for an uplink is free in {uplinks}")))?;
    let host = subnet.first() + 1;
    Ok(Ends { host: Ipv4Addr::from(host), inner: Ipv4Addr::from(host + 1) })
}

fn lock() -> io::Result<nix::fcntl::Flock<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(LOCK)?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Bridges of the segments, and no others.
pub(crate) fn ensure_bridges(namespace: &Namespace, networks: &VchNetworks) -> io::Result<()> {
    let there = addresses(&namespace.links()?);
    let mut lines = Vec::new();
    let mut wanted = BTreeSet::new();
    for segment in &networks.segments {
        let name = names::bridge(&segment.network);
        let address = (segment.gateway, segment.subnet.prefix());
        if there.get(&name).is_none_or(|addresses| !addresses.contains(&address)) {
            if there.contains_key(&name) {
                lines.push(format!("address flush dev {name}"));
            } else {
                // A hardware address of its own: else it is that of a port, and changes as ports come and go.
                let mac = MacAddress::of(segment.gateway);
                lines.push(format!(
                    "link add name {name} address {mac} type bridge forward_delay 0 mcast_snooping 0"
                ));
            }
            lines.push(format!("address add {}/{} dev {name}", address.0, address.1));
            lines.push(format!("link set dev {name} up"));
        }
        wanted.insert(name);
    }
    for name in there.keys().filter(|name| name.starts_with('b') && !wanted.contains(*name)) {
        lines.push(format!("link delete dev {name}"));
    }
    namespace.change_links(&lines)
}

/// The namespace and its uplink. Fine if there is nothing.
pub(crate) fn remove(vch: VchId) -> io::Result<()> {
    let outer = names::uplink(vch);
    if addresses(&Namespace::host().links()?).contains_key(&outer) {
        Namespace::host().change_links(&[format!("link delete dev {outer}")])?;
    }
    Namespace::named(names::namespace(vch)).remove()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_what_ip_says() {
        let said = serde_json::json!([
            {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]},
            {"ifname": "b0", "addr_info": []},
            {},
            {"ifname": "x", "addr_info": [{"local": "::1", "prefixlen": 128}]},
        ]);
        let read = addresses(&said);
        assert_eq!(read["lo"], [(Ipv4Addr::LOCALHOST, 8)]);
        assert!(read["b0"].is_empty() && read["x"].is_empty());
    }
}
