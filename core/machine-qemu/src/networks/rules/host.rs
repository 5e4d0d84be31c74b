//! Of the host's namespace, all VCHs of a server together.

use super::{FOUR, Family, SIX, chain, fill, fill_map};
use bulkhead_machine::networks::PublishedPort;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An uplink, as the host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uplink {
    /// The host's end.
    pub(crate) interface: String,
    /// The VCH's end.
    pub(crate) inner: Ipv4Addr,
    /// `None`: there is no IPv6 on it.
    pub(crate) inner6: Option<Ipv6Addr>,
    pub(crate) published: Vec<PublishedPort>,
}

impl Uplink {
    fn inner(&self, family: Family) -> Option<IpAddr> {
        match family {
            FOUR => Some(self.inner.into()),
            _ => self.inner6.map(Into::into),
        }
    }
}

/// A table of the name for each family that is there.
pub(crate) fn host(table: &str, uplinks: &[Uplink]) -> String {
    let six = uplinks.iter().any(|uplink| uplink.inner6.is_some());
    let families = [Some(FOUR), six.then_some(SIX)];
    families.into_iter().flatten().map(|family| of(table, uplinks, family)).collect()
}

fn of(table: &str, uplinks: &[Uplink], family: Family) -> String {
    let Family { name, address, nowhere, loopback } = family;
    let table = format!("{name} {table}");
    let table = table.as_str();
    let there: Vec<_> = uplinks.iter().filter_map(|uplink| Some((uplink, uplink.inner(family)?))).collect();
    let mut text = String::new();
    let _ = writeln!(text, "add table {table}");
    let _ = writeln!(text, "add set {table} uplinks {{ type ifname; }}");
    let _ = writeln!(text, "add set {table} sources {{ type {address}; }}");
    let _ = writeln!(
        text,
        "add map {table} published {{ type {address} . inet_proto . inet_service : {address} . inet_service; }}"
    );
    let _ = writeln!(
        text,
        "add map {table} published_anywhere {{ type inet_proto . inet_service : {address} . inet_service; }}"
    );
    // Also those that have no address of the family: nothing of it passes there.
    let interfaces: Vec<_> = uplinks.iter().map(|uplink| format!("\"{}\"", uplink.interface)).collect();
    let sources: Vec<_> = there.iter().map(|(_, inner)| inner.to_string()).collect();
    fill(&mut text, table, "uplinks", &interfaces);
    fill(&mut text, table, "sources", &sources);
    let (mut somewhere, mut anywhere) = (Vec::new(), Vec::new());
    for (uplink, to) in &there {
        for port in uplink.published.iter().filter(|port| family.has(port.target)) {
            let one = &port.published;
            let (protocol, port, inner) = (one.protocol, one.host_port, one.inner_port);
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
        format!("fib daddr type local dnat {name} to {name} daddr . meta l4proto . th dport map @published"),
        format!("fib daddr type local dnat {name} to meta l4proto . th dport map @published_anywhere"),
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
            format!("oifname @uplinks {name} saddr {loopback} masquerade"),
            format!("oifname @uplinks {name} saddr @sources ct status dnat masquerade"),
            format!("oifname != @uplinks {name} saddr @sources masquerade"),
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
            format!("{name} daddr {nowhere} drop"),
            format!("{name} saddr != @sources drop"),
        ],
    );
    let mut input = vec![
        "iifname != @uplinks accept".to_owned(),
        "ct state established,related accept".into(),
        "drop".into(),
    ];
    if family == SIX {
        // Without it nobody finds the way.
        input.insert(2, "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept".into());
    }
    chain(&mut text, table, "input", "{ type filter hook input priority -10; policy accept; }", &input);
    text
}
