//! `[network]`: what containers' networks share of the host.

use bulkhead_model::network::Subnet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Files with the host's own resolvers, the better one first: the second names a resolver on loopback only, where the
/// first is there.
const RESOLVERS: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSection {
    /// Each VCH takes four addresses of it, between the host and its namespace. Nothing there can be reached otherwise.
    pub uplinks: Subnet,
    /// Whom containers ask for names that are not their networks' own. Empty: whom the host asks.
    pub dns: Vec<IpAddr>,
}

impl Default for NetworkSection {
    fn default() -> Self {
        Self { uplinks: Subnet::FOR_BENCHMARKS, dns: Vec::new() }
    }
}

impl NetworkSection {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.uplinks.prefix() > 28 {
            problems.push(format!("[network] uplinks {} is too small: a /28 at least", self.uplinks));
        }
        if let Some(address) = self.dns.iter().find(|address| !address.is_ipv4() || address.is_loopback()) {
            problems.push(format!("[network] dns {address} cannot be reached from containers"));
        }
    }

    /// Those that a container can reach: not on the host's loopback, and by IPv4.
    pub fn resolvers(&self) -> Vec<IpAddr> {
        if !self.dns.is_empty() {
            return self.dns.clone();
        }
        let read = |path: &str| resolvers(&std::fs::read_to_string(path).unwrap_or_default());
        RESOLVERS.into_iter().map(read).find(|found| !found.is_empty()).unwrap_or_default()
    }
}

fn resolvers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
    let all = text.lines().filter_map(address);
    all.filter(|address| address.is_ipv4() && !address.is_loopback()).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_on_loopback_are_passed_over() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver ::1\nsearch example\n";
        assert_eq!(resolvers(text), [IpAddr::from([10, 0, 0, 53])]);
    }
}
