//! Namespaces, uplinks and bridges: what is there is read, what is missing is made, what is too much is taken away.

use super::names::{self, UPLINK};
use super::namespace::{Namespace, output};
use super::unmarked;
use bulkhead_machine::networks::VchNetworks;
use bulkhead_model::VchId;
use bulkhead_model::ipv6::Subnet6;
use bulkhead_model::network::{MacAddress, Subnet};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;

/// Two ends of an uplink and the addresses around them.
const UPLINK_PREFIX: u8 = 30;
/// Servers that choose subnets of uplinks on one host do it one after another.
const LOCK: &str = "/run/bulkhead-uplinks.lock";

/// Of a VCH's namespace. IPv6 is only where a network has it; what is bridged is not also routed.
const INSIDE: [(&str, &str); 9] = [
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
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

/// The address of the same end by IPv6.
pub(crate) fn six(end: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from(Subnet6::UPLINKS.first() | u128::from(u32::from(end)))
}

/// All of the host's own addresses but loopback, which no packet from outside reaches, and those that are of one link
/// only.
pub(crate) fn host_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let all = Namespace::host().addresses()?;
    let all = all.into_values().flatten().map(|(address, _)| address);
    let of_a_link = |address: &IpAddr| matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
    Ok(all.filter(|address| !address.is_loopback() && !of_a_link(address)).collect())
}

/// The namespace with its uplink, made or found.
pub(crate) fn ensure_uplink(vch: VchId, uplinks: Subnet) -> io::Result<Ends> {
    let namespace = Namespace::named(names::namespace(vch));
    if namespace.exists()
        && let Some(ends) = ends(&namespace, vch)?
    {
        // Made by a release before this one, perhaps.
        unmarked::ensure_rules(&namespace)?;
        return Ok(ends);
    }
    // One end is nothing without the other.
    remove(vch)?;
    namespace.ensure()?;
    namespace.set(&INSIDE)?;
    unmarked::ensure_rules(&namespace)?;
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

/// Gives the uplink of a VCH IPv6, too. Repeated, it changes nothing.
pub(crate) fn ensure_six(vch: VchId, ends: Ends) -> io::Result<()> {
    const PREFIX: u8 = 126;
    let outer = names::uplink(vch);
    let (host, inner) = (six(ends.host), six(ends.inner));
    let (namespace, outside) = (Namespace::named(names::namespace(vch)), Namespace::host());
    for (namespace, name, address) in [(&outside, outer.as_str(), host), (&namespace, UPLINK, inner)] {
        if namespace.addresses()?.get(name).is_some_and(|all| all.contains(&(address.into(), PREFIX))) {
            continue;
        }
        // Nobody on it says who is the router, and each end knows that its address is its own.
        let conf = |setting: &str| format!("net/ipv6/conf/{name}/{setting}");
        namespace.set(&[
            (&conf("accept_ra"), "0"),
            (&conf("accept_dad"), "0"),
            (&conf("disable_ipv6"), "0"),
        ])?;
        namespace.change_links(&[format!("address add {address}/{PREFIX} dev {name} nodad")])?;
    }
    namespace.change_links(&[format!("route replace default via {host} dev {UPLINK}")])
}

/// The same for IPv6. A host that forwards takes no routes from routers, unless that is said of each interface.
pub(crate) fn forward_six() -> io::Result<()> {
    const SETTINGS: &str = "/proc/sys/net/ipv6/conf";
    let forwarding = format!("{SETTINGS}/all/forwarding");
    if std::fs::read_to_string(&forwarding)?.trim() != "0" {
        return Ok(());
    }
    tracing::warn!("turns IPv6 forwarding on for this host: a network of a VCH has IPv6");
    for interface in std::fs::read_dir(SETTINGS)? {
        let setting = interface?.path().join("accept_ra");
        if std::fs::read_to_string(&setting).is_ok_and(|value| value.trim() == "1") {
            std::fs::write(&setting, "2")?;
        }
    }
    std::fs::write(&forwarding, "1")
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
    let inside = namespace.addresses()?;
    let outside = Namespace::host().addresses()?;
    let first = |of: Option<&Vec<(IpAddr, u8)>>| {
        of?.iter().find_map(|(address, _)| match address {
            IpAddr::V4(four) => Some(*four),
            IpAddr::V6(_) => None,
        })
    };
    let (inner, host) = (first(inside.get(UPLINK)), first(outside.get(&names::uplink(vch))));
    Ok(inner.zip(host).map(|(inner, host)| Ends { host, inner }))
}

/// Nobody else on the host has an address or a route there.
fn free_ends(uplinks: Subnet) -> io::Result<Ends> {
    let mut used: Vec<Subnet> = Vec::new();
    for (address, prefix) in Namespace::host().addresses()?.into_values().flatten() {
        if let IpAddr::V4(four) = address {
            used.extend(Subnet::new(four, prefix));
        }
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
    let there = namespace.addresses()?;
    let (mut lines, mut with_six, mut six_lines) = (Vec::new(), Vec::new(), Vec::new());
    let mut wanted = BTreeSet::new();
    for segment in &networks.segments {
        let name = names::bridge(&segment.network);
        let address = (IpAddr::V4(segment.gateway), segment.subnet.prefix());
        let six = segment.six.map(|(subnet, gateway)| (IpAddr::V6(gateway), subnet.prefix()));
        let has = |address: &(IpAddr, u8)| there.get(&name).is_some_and(|all| all.contains(address));
        if !has(&address) || six.as_ref().is_some_and(|six| !has(six)) {
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
            if let Some((gateway, prefix)) = six {
                with_six.push(name.clone());
                six_lines.push(format!("address add {gateway}/{prefix} dev {name} nodad"));
            }
            lines.push(format!("link set dev {name} up"));
            // Somebody took the bridge away from under them.
            let ports = segment.ports.iter().map(|port| names::port(&port.endpoint));
            let left = ports.filter(|port| there.contains_key(port));
            lines.extend(left.map(|port| format!("link set dev {port} master {name}")));
        }
        wanted.insert(name);
    }
    for name in there.keys().filter(|name| name.starts_with('b') && !wanted.contains(*name)) {
        lines.push(format!("link delete dev {name}"));
    }
    namespace.change_links(&lines)?;
    for name in with_six {
        let conf = |setting: &str| format!("net/ipv6/conf/{name}/{setting}");
        namespace.set(&[(&conf("accept_dad"), "0"), (&conf("disable_ipv6"), "0")])?;
    }
    namespace.change_links(&six_lines)
}

/// Interfaces of a namespace.
pub(crate) fn names(namespace: &Namespace) -> io::Result<Vec<String>> {
    Ok(namespace.addresses()?.into_keys().collect())
}

/// The namespace and its uplink. Fine if there is nothing.
pub(crate) fn remove(vch: VchId) -> io::Result<()> {
    let outer = names::uplink(vch);
    if Namespace::host().addresses()?.contains_key(&outer) {
        Namespace::host().change_links(&[format!("link delete dev {outer}")])?;
    }
    Namespace::named(names::namespace(vch)).remove()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_an_address_of_each_family() {
        let end = six(Ipv4Addr::new(198, 18, 0, 2));
        assert_eq!(end.to_string(), "fd62:6c6b:6864::c612:2");
        assert!(Subnet6::UPLINKS.contains(end));
    }
}
