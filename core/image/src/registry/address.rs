//! Which addresses may be connected to. Checked on the resolved address, at the moment of connecting, so that a name
//! that changes its mind between the check and the connection gains nothing.

use super::proxy::Proxies;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Public,
    /// Loopback, RFC 1918, RFC 6598, RFC 4193.
    Private,
    /// Link-local, where clouds keep their secrets, and what is no host's address.
    Never,
}

/// Why an address was refused; found again in the chain of a client's error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub(super) struct Refused {
    pub host: String,
    pub why: String,
}

pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [first, second, ..] = address.octets();
    if address.is_link_local() || first == 0 || first >= 224 {
        Reach::Never
    } else if address.is_loopback() || address.is_private() || (first == 100 && second & 0xc0 == 64) {
        Reach::Private
    } else {
        Reach::Public
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let segments = address.segments();
    let [first, .., high, low] = segments;
    // An IPv4 address in another dress: mapped, compatible, NAT64 (RFC 6052).
    let embedded = matches!(segments, [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _]);
    if address.is_loopback() {
        Reach::Private
    } else if embedded {
        let bits = (u32::from(high) << 16) | u32::from(low);
        reach_v4(Ipv4Addr::from(bits))
    } else if first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00 {
        Reach::Never
    } else if segments == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] {
        // Cloud metadata at a unique local address.
        Reach::Never
    } else if first & 0xfe00 == 0xfc00 {
        Reach::Private
    } else {
        Reach::Public
    }
}

/// Whether an address may be asked, on behalf of a registry that may or may not be private.
pub(super) fn check(host: &str, address: IpAddr, private_allowed: bool) -> Result<(), Refused> {
    let why = match reach(address) {
        Reach::Public => return Ok(()),
        Reach::Private if private_allowed => return Ok(()),
        Reach::Private => {
            format!(
                "{address} is a private address: the operator must list the registry under `private_addresses`"
            )
        }
        Reach::Never => format!("{address} is a link-local or special address"),
    };
    Err(Refused { host: host.into(), why })
}

/// Resolves names as the system does and drops the addresses that may not be asked.
#[derive(Debug, Clone)]
pub(super) struct CheckedResolver {
    pub private_allowed: bool,
    /// The operator's choice, wherever they are.
    pub proxies: Arc<Proxies>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.private_allowed;
        let is_proxy = self.proxies.is_proxy(name.as_str());
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let mut refused = None;
            let mut good = Vec::with_capacity(found.len());
            for address in found {
                match check(&host, address.ip(), allowed) {
                    Err(why) if !is_proxy => refused = Some(why),
                    _ => good.push(address),
                }
            }
            match refused {
                // One bad address among good ones is how a name changes its mind.
                Some(refused) => Err(refused.into()),
                None => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        for (text, expected) in [
            ("93.184.216.34", Reach::Public),
            ("2606:2800:220:1::1", Reach::Public),
            ("127.0.0.1", Reach::Private),
            ("127.255.0.9", Reach::Private),
            ("10.1.2.3", Reach::Private),
            ("172.31.0.1", Reach::Private),
            ("172.32.0.1", Reach::Public),
            ("192.168.1.1", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("100.128.0.1", Reach::Public),
            ("::1", Reach::Private),
            ("fd12::1", Reach::Private),
            ("::ffff:127.0.0.1", Reach::Private),
            ("64:ff9b::10.0.0.1", Reach::Private),
            ("169.254.169.254", Reach::Never),
            ("::ffff:169.254.169.254", Reach::Never),
            ("64:ff9b::169.254.169.254", Reach::Never),
            ("fe80::1", Reach::Never),
            ("fd00:ec2::254", Reach::Never),
            ("0.0.0.0", Reach::Never),
            ("::", Reach::Never),
            ("224.0.0.1", Reach::Never),
            ("255.255.255.255", Reach::Never),
            ("ff02::1", Reach::Never),
        ] {
            assert_eq!(reach(text.parse().unwrap()), expected, "{text}");
        }
    }
}
