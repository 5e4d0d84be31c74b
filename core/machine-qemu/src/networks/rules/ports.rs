//! Port security: who may speak on a segment, and as whom.

use super::{MARK, chain, fill};
use crate::networks::names;
use bulkhead_machine::networks::{Port, VchNetworks};
use bulkhead_model::ipv6::link_local;
use std::fmt::Write as _;
use std::net::Ipv6Addr;

/// Why frames of a port are dropped; each has a set of counters, by port.
pub(crate) const REASONS: [&str; 9] = ["mac", "arp", "ip", "dhcp", "ra", "nd", "ipv6", "vlan", "other"];

const TABLE: &str = "bridge bulkhead";

/// What a port may call itself by IPv6.
fn six(port: &Port) -> impl Iterator<Item = Ipv6Addr> {
    port.address6.into_iter().flat_map(|address| [address, link_local(port.mac)])
}

/// The counters of ports that are no more. Each is put there first, since nft(8) deletes only what there is.
pub(crate) fn forget<'a>(ports: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for port in ports {
        for reason in REASONS {
            for verb in ["add", "delete"] {
                let _ = writeln!(text, "{verb} element {TABLE} dropped_{reason} {{ \"{port}\" }}");
            }
        }
    }
    text
}

pub(super) fn ports(text: &mut String, networks: &VchNetworks) {
    let _ = writeln!(text, "add table {TABLE}");
    let _ = writeln!(text, "add set {TABLE} known {{ type ifname; }}");
    let _ = writeln!(text, "add set {TABLE} stations {{ type ifname . ether_addr; }}");
    let _ = writeln!(text, "add set {TABLE} addresses {{ type ifname . ipv4_addr; }}");
    let _ = writeln!(text, "add set {TABLE} addresses6 {{ type ifname . ipv6_addr; }}");
    // Targets of neighbour discovery, where nft has no word for them: RFC 4861, 4.3 and 4.4.
    let _ = writeln!(text, "add set {TABLE} targets {{ typeof iifname . @th,64,128; }}");
    for reason in REASONS {
        // Without a limit a set grows by what passes; there are as many ports as places on networks.
        let _ = writeln!(
            text,
            "add set {TABLE} dropped_{reason} {{ type ifname; size 65535; flags dynamic; counter; }}"
        );
    }
    let all = || networks.segments.iter().flat_map(|segment| &segment.ports);
    let named = |port: &Port| names::port(&port.endpoint);
    let known: Vec<_> = all().map(|port| format!("\"{}\"", named(port))).collect();
    let stations: Vec<_> = all().map(|port| format!("\"{}\" . {}", named(port), port.mac)).collect();
    let addresses: Vec<_> = all().map(|port| format!("\"{}\" . {}", named(port), port.address)).collect();
    let sixes = || all().flat_map(|port| six(port).map(move |address| (named(port), address)));
    let addresses6: Vec<_> = sixes().map(|(port, address)| format!("\"{port}\" . {address}")).collect();
    let targets: Vec<_> =
        sixes().map(|(port, address)| format!("\"{port}\" . 0x{:032x}", u128::from(address))).collect();
    fill(text, TABLE, "known", &known);
    fill(text, TABLE, "stations", &stations);
    fill(text, TABLE, "addresses", &addresses);
    fill(text, TABLE, "addresses6", &addresses6);
    fill(text, TABLE, "targets", &targets);
    let drop = |condition: &str, reason: &str| {
        format!("{condition} add @dropped_{reason} {{ iifname }} drop").trim().to_owned()
    };
    let pass = |condition: &str| format!("{condition} meta mark set {MARK} accept");
    let rules = [
        // A machine may outlive its port for a moment: it is counted no more, or its counters would stay for good.
        "iifname != @known drop".to_owned(),
        drop("ether type { vlan, 8021ad }", "vlan"),
        drop("iifname . ether saddr != @stations", "mac"),
        // Who asks whether an address is taken has none yet.
        pass("arp operation request iifname . arp saddr ether @stations arp saddr ip 0.0.0.0"),
        pass("iifname . arp saddr ether @stations iifname . arp saddr ip @addresses"),
        drop("ether type arp", "arp"),
        drop("ether type ip udp sport 67", "dhcp"),
        pass("ether type ip iifname . ip saddr @addresses"),
        drop("ether type ip", "ip"),
        drop("icmpv6 type { nd-router-advert, nd-redirect }", "ra"),
        drop("ether type ip6 udp sport 547", "dhcp"),
        // As of ARP: whose address is told, and who asks without one.
        drop("icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets", "nd"),
        pass("icmpv6 type nd-neighbor-solicit ip6 saddr :: iifname . @th,64,128 @targets"),
        pass("ether type ip6 iifname . ip6 saddr @addresses6"),
        drop("ether type ip6", "ipv6"),
        drop("", "other"),
    ];
    chain(text, TABLE, "ports", "{ type filter hook prerouting priority -300; policy drop; }", &rules);
    // What comes from the namespace itself was judged on its way there.
    let own = [format!("meta mark set {MARK}")];
    chain(text, TABLE, "own", "{ type filter hook output priority -300; policy accept; }", &own);
}
