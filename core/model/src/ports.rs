//! Published ports: what was asked for, what a VCH may have, and which port of the host is whose.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Where ports of the host are found for those who did not say one.
pub const EPHEMERAL: PortRange = PortRange { first: 32768, last: 60999 };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl FromStr for Protocol {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        match text {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            _ => Err(PortError(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid port or protocol `{0}`")]
pub struct PortError(pub String);

/// Ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        let wrong = || PortError(text.chars().take(40).collect());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
        let range = Self { first: number(first)?, last: number(last)? };
        if range.first <= range.last { Ok(range) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for PortRange {
    type Error = PortError;
    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> String {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// A port of the container that is to be reached from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortWish {
    pub container_port: u16,
    pub protocol: Protocol,
    /// `None`: every address that the VCH may publish on; `0.0.0.0` and `::`: every one of the family.
    pub host_address: Option<IpAddr>,
    /// One of these; `None`: any that is free.
    pub host_ports: Option<PortRange>,
}

/// A port of the host that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    pub container_port: u16,
    pub protocol: Protocol,
    /// `0.0.0.0` and `::`: all of the host's of the family, which is also that of the container's address.
    pub host_address: IpAddr,
    pub host_port: u16,
    /// On the VCH's uplink, where two addresses of the host may have given the same port to two containers.
    pub inner_port: u16,
}

impl Published {
    /// Whether both cannot be at once: the same port on the same address, or on all of them.
    pub fn clashes(&self, other: &Published) -> bool {
        let any = |published: &Published| published.host_address.is_unspecified();
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && self.host_address.is_ipv4() == other.host_address.is_ipv4()
            && (self.host_address == other.host_address || any(self) || any(other))
    }
}

/// Addresses and ports of the host that a VCH may publish on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishGrant {
    /// `0.0.0.0` stands for all of the host's, `::` for those of IPv6.
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<PortRange>,
}

impl Default for PublishGrant {
    /// All but the ports by which a host itself is commonly reached: 22 and 443.
    fn default() -> Self {
        let range = |first, last| PortRange { first, last };
        Self {
            addresses: vec![Ipv4Addr::UNSPECIFIED.into()],
            ports: vec![range(1, 21), range(23, 442), range(444, u16::MAX)],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("Bind for {} failed: port is already allocated", place(.address, .port))]
    Allocated { address: IpAddr, port: u16 },
    #[error("all ports are allocated")]
    Exhausted,
    #[error("ports of address {address} are not this VCH's to publish: it has {grant}")]
    Address { address: IpAddr, grant: String },
    #[error(
        "port {port} of the container cannot be published on {address}: the container has no IPv6 address with a way \
         out; put it on a network that was created with --ipv6"
    )]
    NoIpv6 { port: u16, address: IpAddr },
    #[error(
        "port {port} of the container cannot be published on ::1: nothing leads from IPv6's loopback into another \
         network; publish it on 127.0.0.1"
    )]
    Loopback6 { port: u16 },
    #[error("port {port} of the host is not this VCH's to publish: it has {grant}")]
    Port { port: PortRange, grant: String },
}

fn place(address: &IpAddr, port: &u16) -> SocketAddr {
    SocketAddr::new(*address, *port)
}

fn listed<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "none".into(),
        items => items.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}

impl PublishGrant {
    /// The addresses that a wish is for. `six`: whether the container can be reached by IPv6.
    fn addresses_of(&self, wish: &PortWish, six: bool) -> Result<Vec<IpAddr>, PublishError> {
        const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        const ANY_6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let (all, all_six) = (self.addresses.contains(&ANY), self.addresses.contains(&ANY_6));
        // Of one family, all that the VCH has.
        let every = |any: IpAddr| -> Vec<IpAddr> {
            match all || (all_six && any.is_ipv6()) {
                true => vec![any],
                false => {
                    let of = self.addresses.iter().filter(|one| one.is_ipv4() == any.is_ipv4());
                    of.copied().collect()
                }
            }
        };
        let found = match wish.host_address {
            None => {
                let mut both = every(ANY);
                both.extend(every(ANY_6).into_iter().filter(|_| six));
                both
            }
            // The kernel takes no answer for it from any other interface.
            Some(address) if address.is_ipv6() && address.is_loopback() => {
                return Err(PublishError::Loopback6 { port: wish.container_port });
            }
            Some(address) if address.is_ipv6() && !six => {
                return Err(PublishError::NoIpv6 { port: wish.container_port, address });
            }
            Some(any) if any.is_unspecified() => every(any),
            Some(one) if all || (all_six && one.is_ipv6()) || self.addresses.contains(&one) => vec![one],
            Some(_) => Vec::new(),
        };
        match found.is_empty() {
            true => {
                let address = wish.host_address.unwrap_or(ANY);
                Err(PublishError::Address { address, grant: listed(&self.addresses) })
            }
            false => Ok(found),
        }
    }

    fn has(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(port))
    }

    /// Whether the wish could ever be granted.
    pub fn check(&self, wish: &PortWish) -> Result<(), PublishError> {
        // What networks it will be on, nobody knows yet.
        self.addresses_of(wish, true)?;
        match wish.host_ports {
            Some(ports) if !(ports.first..=ports.last).any(|port| self.has(port)) => {
                Err(PublishError::Port { port: ports, grant: listed(&self.ports) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Finds ports of the host for a container's wishes beside those that are `taken`, on this VCH's uplink beside
    /// those `inside`, and not among `avoid`, which something else on the host uses. `six`: whether the container can be
    /// reached by IPv6.
    pub fn grant(
        &self,
        wishes: &[PortWish],
        six: bool,
        taken: &[Published],
        inside: &BTreeSet<(Protocol, u16)>,
        avoid: &BTreeSet<(Protocol, u16)>,
    ) -> Result<Vec<Published>, PublishError> {
        let mut granted: Vec<Published> = Vec::new();
        let mut by_port: HashMap<(Protocol, u16), Vec<Published>> = HashMap::new();
        for one in taken {
            by_port.entry((one.protocol, one.host_port)).or_default().push(one.clone());
        }
        let mut inside = inside.clone();
        for wish in wishes {
            let addresses = self.addresses_of(wish, six)?;
            let range = wish.host_ports.unwrap_or(EPHEMERAL);
            let fixed = wish.host_ports.is_some_and(|ports| ports.first == ports.last);
            let at = |port: u16| {
                addresses.iter().map(move |address| Published {
                    container_port: wish.container_port,
                    protocol: wish.protocol,
                    host_address: *address,
                    host_port: port,
                    inner_port: port,
                })
            };
            let free = |port: &u16| {
                self.has(*port)
                    && (fixed || !avoid.contains(&(wish.protocol, *port)))
                    && by_port.get(&(wish.protocol, *port)).is_none_or(|others| {
                        at(*port).all(|one| !others.iter().any(|other| one.clashes(other)))
                    })
            };
            // Who leaves the choice gets one of its own, also where that is none of the usual.
            let own =
                self.ports.iter().filter(|_| wish.host_ports.is_none()).flat_map(|own| own.first..=own.last);
            let found = (range.first..=range.last).chain(own).find(free);
            let Some(port) = found else {
                self.check(wish)?;
                let address = wish.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
                return Err(match fixed {
                    true => PublishError::Allocated { address, port: range.first },
                    false => PublishError::Exhausted,
                });
            };
            let new: Vec<Published> = at(port).collect();
            for mut one in new {
                let inner = std::iter::once(port).chain(1..=u16::MAX);
                let inner = inner.into_iter().find(|port| !inside.contains(&(wish.protocol, *port)));
                one.inner_port = inner.ok_or(PublishError::Exhausted)?;
                inside.insert((wish.protocol, one.inner_port));
                by_port.entry((one.protocol, one.host_port)).or_default().push(one.clone());
                granted.push(one);
            }
        }
        Ok(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(host: &str, port: Option<&str>) -> PortWish {
        PortWish {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: host.parse().ok(),
            host_ports: port.map(|text| text.parse().unwrap()),
        }
    }

    fn ports(published: &[Published]) -> Vec<(String, u16)> {
        published.iter().map(|one| (one.host_address.to_string(), one.host_port)).collect()
    }

    fn grant(wishes: &[PortWish], taken: &[Published]) -> Result<Vec<Published>, PublishError> {
        let inside = taken.iter().map(|one| (one.protocol, one.inner_port)).collect();
        PublishGrant::default().grant(wishes, false, taken, &inside, &BTreeSet::new())
    }

    #[test]
    fn a_port_is_somebodys_once() {
        let first = grant(&[wish("0.0.0.0", Some("80"))], &[]).unwrap();
        assert_eq!(ports(&first), [("0.0.0.0".to_owned(), 80)]);
        for host in ["0.0.0.0", "127.0.0.1"] {
            let error = grant(&[wish(host, Some("80"))], &first).unwrap_err();
            assert_eq!(error.to_string(), format!("Bind for {host}:80 failed: port is already allocated"));
        }
        let next = grant(&[wish("0.0.0.0", Some("80-82")), wish("0.0.0.0", None)], &first).unwrap();
        assert_eq!(ports(&next), [("0.0.0.0".to_owned(), 81), ("0.0.0.0".to_owned(), 32768)]);
        let error = grant(&[wish("0.0.0.0", Some("80")), wish("0.0.0.0", Some("80"))], &[]).unwrap_err();
        assert!(matches!(error, PublishError::Allocated { .. }));
    }

    #[test]
    fn who_says_no_address_gets_both_families_where_there_are_two() {
        let none = BTreeSet::new();
        let grant = |host: &str, six: bool| {
            PublishGrant::default().grant(&[wish(host, Some("80"))], six, &[], &none, &none)
        };
        let of = |host: &str, six: bool| ports(&grant(host, six).unwrap());
        let port = |host: &str| (host.to_owned(), 80);
        assert_eq!(of("", true), [port("0.0.0.0"), port("::")]);
        assert_eq!(of("", false), [port("0.0.0.0")]);
        assert_eq!(of("0.0.0.0", true), [port("0.0.0.0")]);
        assert_eq!(of("::", true), [port("::")]);
        let both = grant("", true).unwrap();
        assert_ne!(both[0].inner_port, both[1].inner_port);
        assert!(!both[0].clashes(&both[1]));
        let error = grant("::", false).unwrap_err().to_string();
        assert!(error.contains("created with --ipv6"), "{error}");
        let some = PublishGrant { addresses: vec!["::".parse().unwrap()], ..PublishGrant::default() };
        assert!(some.check(&wish("2001:db8::1", None)).is_ok());
        let error = some.check(&wish("::1", None)).unwrap_err().to_string();
        assert!(error.contains("publish it on 127.0.0.1"), "{error}");
        assert!(some.check(&wish("127.0.0.1", None)).is_err());
    }

    #[test]
    fn one_port_on_two_addresses_is_two_ports_inside() {
        let first = grant(&[wish("10.0.0.1", Some("80"))], &[]).unwrap();
        let second = grant(&[wish("10.0.0.2", Some("80"))], &first).unwrap();
        assert_eq!(first[0].inner_port, 80);
        assert_ne!(second[0].inner_port, 80);
    }

    #[test]
    fn what_a_vch_was_not_given_it_cannot_publish() {
        let error = grant(&[wish("0.0.0.0", Some("22"))], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "port 22 of the host is not this VCH's to publish: it has 1-21, 23-442, 444-65535"
        );
        let some = PublishGrant {
            addresses: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            ports: vec!["8000-8001".parse().unwrap()],
        };
        let free = BTreeSet::new();
        let both = some.grant(&[wish("", Some("8000"))], false, &[], &free, &free).unwrap();
        assert_eq!(ports(&both), [("10.0.0.1".to_owned(), 8000), ("10.0.0.2".to_owned(), 8000)]);
        assert!(matches!(some.check(&wish("127.0.0.1", None)), Err(PublishError::Address { .. })));
        assert!(matches!(some.check(&wish("0.0.0.0", Some("80"))), Err(PublishError::Port { .. })));
        assert!(some.check(&wish("0.0.0.0", Some("7999-8000"))).is_ok());
        let any = some.grant(&[wish("10.0.0.1", None)], false, &[], &free, &free).unwrap();
        assert_eq!(ports(&any), [("10.0.0.1".to_owned(), 8000)]);
    }

    #[test]
    fn what_something_else_uses_is_left_out_where_there_is_a_choice() {
        let avoid = BTreeSet::from([(Protocol::Tcp, 32768), (Protocol::Tcp, 80)]);
        let grant = |port| {
            PublishGrant::default().grant(&[wish("0.0.0.0", port)], false, &[], &BTreeSet::new(), &avoid)
        };
        assert_eq!(ports(&grant(None).unwrap()), [("0.0.0.0".to_owned(), 32769)]);
        assert_eq!(ports(&grant(Some("80-81")).unwrap()), [("0.0.0.0".to_owned(), 81)]);
    }
}
