//! Rules in nft(8)'s words: pure functions of what is to hold.
//!
//! ```text
//!   guest ─ tap ─▶ bridge bulkhead/ports      who may speak as whom; all else dropped and counted
//!                      │ same segment: bridged
//!                      ▼ otherwise: routed
//!                  ip bulkhead/forward        out by the uplink only; never to the host, never between segments
//!                      │ masqueraded
//!   ───────────────────┼────────────────── namespace of the VCH / of the host
//!                      ▼
//!                  ip bulkhead_<server>       second wall; NAT out; published ports in
//! ```
//!
//! **Invariant:** nothing a user typed is in here: numbers, addresses, digits of ids. Each text is one transaction:
//! there is no moment between the old rules and the new ones. Counters survive it.

use super::names;
use bulkhead_machine::networks::{PublishedPort, VchNetworks};
use bulkhead_model::network::Subnet;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Why frames of a port are dropped; each has a set of counters, by port.
pub(crate) const REASONS: [&str; 8] = ["mac", "arp", "ip", "dhcp", "ra", "ipv6", "vlan", "other"];

/// Destinations that are nobody's to reach: "this host", loopback, link-local with cloud metadata, multicast, reserved.
const NOWHERE: &str = "{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3 }";

/// What holds for all VCHs alike: the host's own addresses, and the ports at which they may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Openings {
    pub(crate) host: BTreeSet<Ipv4Addr>,
    /// `None`: at any of the host's addresses.
    pub(crate) open: BTreeSet<(Option<Ipv4Addr>, &'static str, u16)>,
}

impl Openings {
    pub(crate) fn of<'a>(
        host: BTreeSet<Ipv4Addr>,
        published: impl Iterator<Item = &'a PublishedPort>,
    ) -> Self {
        let open = published.map(|port| {
            let one = &port.published;
            let address = (!one.host_address.is_unspecified()).then_some(one.host_address);
            (address, one.protocol.as_str(), one.host_port)
        });
        Self { host, open: open.collect() }
    }
}

/// A set or map is filled anew: whatever was in it.
fn fill(text: &mut String, table: &str, name: &str, elements: &[String]) {
    let _ = writeln!(text, "flush set {table} {name}");
    if !elements.is_empty() {
        let _ = writeln!(text, "add element {table} {name} {{ {} }}", elements.join(", "));
    }
}

/// Of maps; nft(8) has another word for their flush.
fn fill_map(text: &mut String, table: &str, name: &str, elements: &[String]) {
    let _ = writeln!(text, "flush map {table} {name}");
    if !elements.is_empty() {
        let _ = writeln!(text, "add element {table} {name} {{ {} }}", elements.join(", "));
    }
}

fn chain(text: &mut String, table: &str, name: &str, hook: &str, rules: &[String]) {
    let _ = writeln!(text, "add chain {table} {name} {hook}\nflush chain {table} {name}");
    for rule in rules {
        let _ = writeln!(text, "add rule {table} {name} {rule}");
    }
}

/// Of a VCH's own namespace: port security, and where packets may go.
pub(crate) fn inside(networks: &VchNetworks, uplinks: Subnet, openings: &Openings) -> String {
    let mut text = String::new();
    ports(&mut text, networks);
    routes(&mut text, networks, uplinks);
    text + &opened(openings)
}

fn ports(text: &mut String, networks: &VchNetworks) {
    const TABLE: &str = "bridge bulkhead";
    let _ = writeln!(text, "add table {TABLE}");
    let _ = writeln!(text, "add set {TABLE} stations {{ type ifname . ether_addr; }}");
    let _ = writeln!(text, "add set {TABLE} addresses {{ type ifname . ipv4_addr; }}");
    for reason in REASONS {
        // Without a limit a set grows by what passes; there are as many ports as places on networks.
        let _ = writeln!(
            text,
            "add set {TABLE} dropped_{reason} {{ type ifname; size 65535; flags dynamic; counter; }}"
        );
    }
    let all = || networks.segments.iter().flat_map(|segment| &segment.ports);
    let stations: Vec<_> =
        all().map(|port| format!("\"{}\" . {}", names::port(&port.endpoint), port.mac)).collect();
    let addresses: Vec<_> =
        all().map(|port| format!("\"{}\" . {}", names::port(&port.endpoint), port.address)).collect();
    fill(text, TABLE, "stations", &stations);
    fill(text, TABLE, "addresses", &addresses);
    let drop = |condition: &str, reason: &str| {
        format!("{condition} add @dropped_{reason} {{ iifname }} drop").trim().to_owned()
    };
    let rules = [
        drop("ether type { vlan, 8021ad }", "vlan"),
        drop("iifname . ether saddr != @stations", "mac"),
        // Who asks whether an address is taken has none yet.
        "arp operation request iifname . arp saddr ether @stations arp saddr ip 0.0.0.0 accept".into(),
        "iifname . arp saddr ether @stations iifname . arp saddr ip @addresses accept".into(),
        drop("ether type arp", "arp"),
        drop("ether type ip udp sport 67", "dhcp"),
        "ether type ip iifname . ip saddr @addresses accept".into(),
        drop("ether type ip", "ip"),
        drop("ether type ip6 icmpv6 type nd-router-advert", "ra"),
        drop("ether type ip6", "ipv6"),
        drop("", "other"),
    ];
    chain(text, TABLE, "ports", "{ type filter hook prerouting priority -300; policy drop; }", &rules);
}

fn routes(text: &mut String, networks: &VchNetworks, uplinks: Subnet) {
    const TABLE: &str = "ip bulkhead";
    let uplink = names::UPLINK;
    let _ = writeln!(text, "add table {TABLE}");
    let _ = writeln!(text, "add set {TABLE} routed {{ type ifname; }}");
    let _ = writeln!(text, "add set {TABLE} host {{ type ipv4_addr; }}");
    let _ = writeln!(text, "add set {TABLE} open {{ type ipv4_addr . inet_proto . inet_service; }}");
    let _ = writeln!(text, "add set {TABLE} open_anywhere {{ type inet_proto . inet_service; }}");
    let _ = writeln!(
        text,
        "add map {TABLE} published {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}"
    );
    let routed = networks.segments.iter().filter(|segment| !segment.internal);
    let routed: Vec<_> = routed.map(|segment| format!("\"{}\"", names::bridge(&segment.network))).collect();
    fill(text, TABLE, "routed", &routed);
    let published: Vec<_> = networks
        .published
        .iter()
        .map(|port| {
            let one = &port.published;
            format!("{} . {} : {} . {}", one.protocol, one.inner_port, port.target, one.container_port)
        })
        .collect();
    fill_map(text, TABLE, "published", &published);
    let lead = format!("iifname {uplink} dnat ip to meta l4proto . th dport map @published");
    chain(text, TABLE, "arriving", "{ type nat hook prerouting priority dstnat; }", &[lead]);
    let leave = format!("oifname {uplink} masquerade");
    chain(text, TABLE, "leaving", "{ type nat hook postrouting priority srcnat; }", &[leave]);
    chain(
        text,
        TABLE,
        "out",
        "",
        &[
            format!("ip daddr {NOWHERE} drop"),
            "ip daddr @host ip daddr . meta l4proto . th dport @open accept".into(),
            "ip daddr @host meta l4proto . th dport @open_anywhere accept".into(),
            "ip daddr @host drop".into(),
            format!("ip daddr {uplinks} drop"),
            "accept".into(),
        ],
    );
    chain(
        text,
        TABLE,
        "forward",
        "{ type filter hook forward priority filter; policy drop; }",
        &[
            "ct state established,related accept".into(),
            format!("iifname {uplink} ct status dnat accept"),
            format!("iifname @routed oifname {uplink} jump out"),
        ],
    );
    // The gateway answers a ping and nothing else.
    chain(
        text,
        TABLE,
        "input",
        "{ type filter hook input priority filter; policy drop; }",
        &["ct state established,related accept".into(), "icmp type echo-request accept".into()],
    );
}

/// The part that may change with every other VCH.
pub(crate) fn opened(openings: &Openings) -> String {
    const TABLE: &str = "ip bulkhead";
    let mut text = String::new();
    let host: Vec<_> = openings.host.iter().map(Ipv4Addr::to_string).collect();
    let at = |anywhere: bool| {
        let of = openings.open.iter().filter(move |(address, ..)| address.is_none() == anywhere);
        of.map(|(address, protocol, port)| match address {
            Some(address) => format!("{address} . {protocol} . {port}"),
            None => format!("{protocol} . {port}"),
        })
        .collect::<Vec<_>>()
    };
    fill(&mut text, TABLE, "host", &host);
    fill(&mut text, TABLE, "open", &at(false));
    fill(&mut text, TABLE, "open_anywhere", &at(true));
    text
}

/// An uplink, as the host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uplink {
    /// The host's end.
    pub(crate) interface: String,
    /// The VCH's end.
    pub(crate) inner: Ipv4Addr,
    pub(crate) published: Vec<PublishedPort>,
}

/// Of the host's namespace, all VCHs of a server together.
pub(crate) fn host(table: &str, uplinks: &[Uplink]) -> String {
    let table = format!("ip {table}");
    let table = table.as_str();
    let mut text = String::new();
    let _ = writeln!(text, "add table {table}");
    let _ = writeln!(text, "add set {table} uplinks {{ type ifname; }}");
    let _ = writeln!(text, "add set {table} sources {{ type ipv4_addr; }}");
    let _ = writeln!(
        text,
        "add map {table} published {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}"
    );
    let _ = writeln!(
        text,
        "add map {table} published_anywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}"
    );
    let interfaces: Vec<_> = uplinks.iter().map(|uplink| format!("\"{}\"", uplink.interface)).collect();
    let sources: Vec<_> = uplinks.iter().map(|uplink| uplink.inner.to_string()).collect();
    fill(&mut text, table, "uplinks", &interfaces);
    fill(&mut text, table, "sources", &sources);
    let (mut somewhere, mut anywhere) = (Vec::new(), Vec::new());
    for uplink in uplinks {
        for port in &uplink.published {
            let one = &port.published;
            let (protocol, port, to) = (one.protocol, one.host_port, uplink.inner);
            let inner = one.inner_port;
            match one.host_address.is_unspecified() {
                true => anywhere.push(format!("{protocol} . {port} : {to} . {inner}")),
                false => {
                    somewhere.push(format!("{} . {protocol} . {port} : {to} . {inner}", one.host_address))
                }
            }
        }
    }
    fill_map(&mut text, table, "published", &somewhere);
    fill_map(&mut text, table, "published_anywhere", &anywhere);
    let lead = [
        "fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published".to_owned(),
        "fib daddr type local dnat ip to meta l4proto . th dport map @published_anywhere".to_owned(),
    ];
    chain(&mut text, table, "arriving", "{ type nat hook prerouting priority dstnat; }", &lead);
    chain(&mut text, table, "sent", "{ type nat hook output priority -100; }", &lead);
    chain(
        &mut text,
        table,
        "leaving",
        "{ type nat hook postrouting priority srcnat; }",
        &[
            // Nobody can answer to loopback, nor to itself.
            "oifname @uplinks ip saddr 127.0.0.0/8 masquerade".into(),
            "oifname @uplinks ip saddr @sources ct status dnat masquerade".into(),
            "oifname != @uplinks ip saddr @sources masquerade".into(),
        ],
    );
    chain(
        &mut text,
        table,
        "forward",
        "{ type filter hook forward priority -10; policy accept; }",
        &[
            "iifname != @uplinks oifname != @uplinks accept".into(),
            "ct state established,related accept".into(),
            "oifname @uplinks ct status dnat accept".into(),
            "oifname @uplinks drop".into(),
            format!("ip daddr {NOWHERE} drop"),
            "ip saddr != @sources drop".into(),
        ],
    );
    chain(
        &mut text,
        table,
        "input",
        "{ type filter hook input priority -10; policy accept; }",
        &["iifname != @uplinks accept".into(), "ct state established,related accept".into(), "drop".into()],
    );
    text
}
