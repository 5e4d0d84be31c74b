//! Rules in nft(8)'s words: pure functions of what is to hold.
//!
//! ```text
//!   guest ─ tap ─▶ bridge bulkhead/ports      who may speak as whom; all else dropped and counted; the rest is marked
//!                      │ same segment: bridged
//!                      ▼ otherwise: routed
//!                  ip, ip6 bulkhead/forward   out by the uplink only; never to the host, never between segments
//!                      │ masqueraded
//!   ───────────────────┼────────────────── namespace of the VCH / of the host
//!                      ▼
//!                  ip, ip6 bulkhead_<server>  second wall; NAT out; published ports in
//! ```
//!
//! **Invariant:** nothing a user typed is in here: numbers, addresses, digits of ids. Each text is one transaction:
//! there is no moment between the old rules and the new ones. Counters survive it, those of ports that are no more
//! excepted. Without rules nothing is marked, and what is not marked gets neither through a tap nor out
//! ([`super::unmarked`]).

mod host;
mod inside;
mod ports;

pub(crate) use host::{Uplink, host};
pub(crate) use inside::{inside, opened};
pub(crate) use ports::{REASONS, forget};

use bulkhead_machine::networks::PublishedPort;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// What frames carry, inside of a namespace, that rules let pass.
pub(crate) const MARK: u32 = 0x62_68;

/// What differs between IPv4 and IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family {
    /// In nft's words, also before `saddr`.
    pub(crate) name: &'static str,
    /// The type of its addresses.
    address: &'static str,
    /// Destinations that are nobody's to reach: "this host", loopback, link-local with cloud metadata, multicast,
    /// reserved, IPv4 in other words.
    nowhere: &'static str,
    /// From where the host itself may reach what is published. Of IPv6 the kernel lets nothing back there.
    loopback: &'static str,
}

pub(crate) const FOUR: Family = Family {
    name: "ip",
    address: "ipv4_addr",
    nowhere: "{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3 }",
    loopback: "127.0.0.0/8",
};
pub(crate) const SIX: Family = Family {
    name: "ip6",
    address: "ipv6_addr",
    nowhere: "{ ::/96, ::ffff:0:0/96, fe80::/10, ff00::/8 }",
    loopback: "::1",
};

impl Family {
    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == FOUR)
    }
}

/// What holds for all VCHs alike: the host's own addresses, and the ports at which they may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Openings {
    pub(crate) host: BTreeSet<IpAddr>,
    /// `0.0.0.0` and `::`: at any of the host's addresses of the family.
    pub(crate) open: BTreeSet<(IpAddr, &'static str, u16)>,
}

impl Openings {
    pub(crate) fn of<'a>(host: BTreeSet<IpAddr>, published: impl Iterator<Item = &'a PublishedPort>) -> Self {
        let open = published.map(|port| {
            let one = &port.published;
            (one.host_address, one.protocol.as_str(), one.host_port)
        });
        Self { host, open: open.collect() }
    }
}

/// A set or map is filled anew: whatever was in it.
fn fill(text: &mut String, table: &str, name: &str, elements: &[String]) {
    fill_kind(text, "set", table, name, elements);
}

/// Of maps; nft(8) has another word for their flush.
fn fill_map(text: &mut String, table: &str, name: &str, elements: &[String]) {
    fill_kind(text, "map", table, name, elements);
}

fn fill_kind(text: &mut String, kind: &str, table: &str, name: &str, elements: &[String]) {
    let _ = writeln!(text, "flush {kind} {table} {name}");
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
