//! What networks need of the host, and other firewalls that drop what machines will send.

use super::{Finding, find_program, output};
use crate::config::Config;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// Makes a network in a namespace of its own, and takes it away.
pub fn check_networks(_: &Config) -> Finding {
    for (program, package) in [("nft", "nftables"), ("ip", "iproute2")] {
        if find_program(program).is_none() {
            let found = format!("`{program}` was not found: containers can have no networks");
            return Finding::warning("networks", found, format!("apt-get install {package}"));
        }
    }
    match bulkhead_machine_qemu::probe_networks() {
        Ok(()) => Finding::ok("networks", "namespaces, bridges, taps and rules can be made"),
        Err(error) => Finding::warning(
            "networks",
            format!("{error}: containers can have no networks"),
            "run this check as root; load the kernel modules bridge, veth, tun and nf_tables; \
             until then containers run with --network none",
        ),
    }
}

/// A Docker engine, for one, sets the policy of FORWARD to DROP for everybody on the machine.
pub fn check_forwarding(_: &Config) -> Finding {
    for program in ["iptables-nft", "iptables-legacy", "iptables"] {
        let Some(path) = find_program(program) else { continue };
        if let Ok(rules) = output(&path.to_string_lossy(), &["-S", "FORWARD"], LIMIT)
            && let Some(finding) = judge(program, &rules)
        {
            return finding;
        }
    }
    if let Some(nft) = find_program("nft")
        && let Ok(rules) = output(&nft.to_string_lossy(), &["list", "chains"], LIMIT)
        && let Some(chain) = dropping_chain(&rules)
    {
        return Finding::warning(
            "other firewalls",
            format!("the nftables chain `{chain}` drops what is forwarded"),
            "accept there what comes from and goes to interfaces whose names begin with `bh`",
        );
    }
    Finding::ok("other firewalls", "none that drops what is forwarded")
}

fn judge(program: &str, rules: &str) -> Option<Finding> {
    if !rules.lines().any(|line| line.trim() == "-P FORWARD DROP") {
        return None;
    }
    let who = if rules.contains("DOCKER") { "; Docker set it" } else { "" };
    Some(Finding::warning(
        "other firewalls",
        format!("{program}: the policy of FORWARD is DROP{who}"),
        format!("{program} -I FORWARD -i bh+ -j ACCEPT; {program} -I FORWARD -o bh+ -j ACCEPT"),
    ))
}

/// `table/chain` of the first chain at the forward hook whose policy is drop, in what `nft list chains` prints.
fn dropping_chain(rules: &str) -> Option<String> {
    let (mut table, mut chain) = ("", "");
    for line in rules.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches('{').trim();
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches('{').trim();
        } else if line.contains("hook forward") && line.contains("policy drop") {
            return Some(format!("{table} {chain}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropping_forward_chain_is_named() {
        assert!(judge("iptables", "-P FORWARD ACCEPT\n").is_none());
        let docker = judge("iptables", "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n").unwrap();
        assert!(docker.found.contains("Docker set it"), "{}", docker.found);
        let rules = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\
                     \tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";
        assert_eq!(dropping_chain(rules).as_deref(), Some("inet filter forward"));
        assert_eq!(dropping_chain("table ip nat {\n}\n"), None);
    }
}
