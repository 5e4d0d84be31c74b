//! Of a VCH's own namespace: where packets may go.

use super::{FOUR, Family, Openings, SIX, chain, fill, fill_map, ports};
use crate::networks::names;
use bulkhead_machine::networks::VchNetworks;
use bulkhead_model::ipv6::Subnet6;
use bulkhead_model::network::Subnet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Port security, and where packets may go.
pub(crate) fn inside(networks: &VchNetworks, uplinks: Subnet, openings: &Openings) -> String {
    let mut text = String::new();
    ports::ports(&mut text, networks);
    routes(&mut text, networks, FOUR, &uplinks.to_string());
    routes(&mut text, networks, SIX, &Subnet6::UPLINKS.to_string());
    text + &opened(openings)
}

fn routes(text: &mut String, networks: &VchNetworks, family: Family, uplinks: &str) {
    let Family { name, address, nowhere, .. } = family;
    let table = &format!("{name} bulkhead");
    let uplink = names::UPLINK;
    let _ = writeln!(text, "add table {table}");
    let _ = writeln!(text, "add set {table} routed {{ type ifname; }}");
    let _ = writeln!(text, "add set {table} host {{ type {address}; }}");
    let _ = writeln!(text, "add set {table} open {{ type {address} . inet_proto . inet_service; }}");
    let _ = writeln!(text, "add set {table} open_anywhere {{ type inet_proto . inet_service; }}");
    let _ = writeln!(
        text,
        "add map {table} published {{ type inet_proto . inet_service : {address} . inet_service; }}"
    );
    let routed = networks.segments.iter().filter(|segment| !segment.internal);
    let routed: Vec<_> = routed.map(|segment| format!("\"{}\"", names::bridge(&segment.network))).collect();
    fill(text, table, "routed", &routed);
    let published = networks.published.iter().filter(|port| family.has(port.target)).map(|port| {
        let one = &port.published;
        format!("{} . {} : {} . {}", one.protocol, one.inner_port, port.target, one.container_port)
    });
    fill_map(text, table, "published", &published.collect::<Vec<_>>());
    let lead = format!("iifname {uplink} dnat {name} to meta l4proto . th dport map @published");
    chain(text, table, "arriving", "{ type nat hook prerouting priority dstnat; }", &[lead]);
    let leave = format!("oifname {uplink} masquerade");
    chain(text, table, "leaving", "{ type nat hook postrouting priority srcnat; }", &[leave]);
    chain(
        text,
        table,
        "out",
        "",
        &[
            format!("{name} daddr {nowhere} drop"),
            format!("{name} daddr @host {name} daddr . meta l4proto . th dport @open accept"),
            format!("{name} daddr @host meta l4proto . th dport @open_anywhere accept"),
            format!("{name} daddr @host drop"),
            format!("{name} daddr {uplinks} drop"),
            "accept".into(),
        ],
    );
    chain(
        text,
        table,
        "forward",
        "{ type filter hook forward priority filter; policy drop; }",
        &[
            "ct state established,related accept".into(),
            format!("iifname {uplink} ct status dnat accept"),
            format!("iifname @routed oifname {uplink} jump out"),
        ],
    );
    // The gateway answers a ping and nothing else.
    let ping = match family {
        FOUR => "icmp type echo-request accept",
        _ => "icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert } accept",
    };
    chain(
        text,
        table,
        "input",
        "{ type filter hook input priority filter; policy drop; }",
        &["ct state established,related accept".into(), ping.into()],
    );
}

/// The part that may change with every other VCH.
pub(crate) fn opened(openings: &Openings) -> String {
    let mut text = String::new();
    for family in [FOUR, SIX] {
        let table = &format!("{} bulkhead", family.name);
        let host = openings.host.iter().filter(|address| family.has(**address));
        let at = |anywhere: bool| {
            let of = openings
                .open
                .iter()
                .filter(move |(address, ..)| family.has(*address) && address.is_unspecified() == anywhere);
            of.map(|(address, protocol, port)| match anywhere {
                false => format!("{address} . {protocol} . {port}"),
                true => format!("{protocol} . {port}"),
            })
            .collect::<Vec<_>>()
        };
        fill(&mut text, table, "host", &host.map(IpAddr::to_string).collect::<Vec<_>>());
        fill(&mut text, table, "open", &at(false));
        fill(&mut text, table, "open_anywhere", &at(true));
    }
    text
}
