//! Networks, ports and names in a create request. Texts are Docker's where it has some.

use super::fields::{self, ENDPOINT, Rule};
use super::links::{self, links};
use crate::error::ApiError;
use crate::json::{Fields, is_empty};
use crate::query::clip;
use bulkhead_model::NetworkOptions;
use bulkhead_model::network::{
    DEFAULT_NETWORK, EndpointWish, HOST_NETWORK, NETWORKS_PER_CONTAINER_MAX, NO_NETWORK, exposed_port,
};
use bulkhead_model::ports::{PortRange, PortWish};
use serde_json::Value;
use std::net::IpAddr;

/// Of one container.
const PORTS_MAX: usize = 1000;
const WORDS_MAX: usize = 256;
const WORD_BYTES_MAX: usize = 255;
/// What stands for the host's own address.
const HOST_GATEWAY: &str = "host-gateway";
const NO_LINK_LOCAL: &str = "is not supported: what is link-local is dropped at every port";
const SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";

const HOST_MODE: &str = "NetworkMode host: a container is a machine of its own, with an address of its own on the \
                         VCH's default network. What listens in it is reached there and not at the host's addresses; \
                         publish ports (-p) on a network for that";

/// Reads all three parts of a body.
pub fn options(
    config: &Fields,
    host: &Fields,
    networking: Value,
    warnings: &mut Vec<String>,
) -> Result<NetworkOptions, ApiError> {
    let mut endpoints = endpoints(networking)?;
    let mode = mode(config, host)?;
    match &mode {
        Mode::None => {
            if let Some(other) = endpoints.iter().find(|wish| wish.network != NO_NETWORK) {
                return Err(ApiError::bad(format!(
                    "container cannot be connected to network `{}`: its network mode is `none`",
                    clip(&other.network)
                )));
            }
            endpoints.clear();
        }
        Mode::Host => {
            if endpoints.iter().any(|wish| !matches!(wish.network.as_str(), HOST_NETWORK | DEFAULT_NETWORK)) {
                return Err(ApiError::bad(SHARED));
            }
            endpoints = vec![EndpointWish { network: DEFAULT_NETWORK.into(), ..EndpointWish::default() }];
            warnings.push(HOST_MODE.into());
        }
        Mode::On(main) => {
            if let Some(at) = endpoints.iter().position(|wish| wish.network == *main) {
                endpoints.swap(0, at);
            } else {
                endpoints.insert(0, EndpointWish { network: main.clone(), ..EndpointWish::default() });
            }
        }
    }
    links::of_host(host, &mut endpoints, mode == Mode::Host, warnings)?;
    if endpoints.len() > NETWORKS_PER_CONTAINER_MAX {
        return Err(ApiError::bad(format!(
            "a container can be on {NETWORKS_PER_CONTAINER_MAX} networks at most, not on {}",
            endpoints.len()
        )));
    }
    if let Some(mac) = config.text("MacAddress")?.filter(|mac| !mac.is_empty()) {
        let main = endpoints.first_mut().filter(|_| mode != Mode::Host);
        let main =
            main.ok_or_else(|| ApiError::bad("conflicting options: mac-address and the network mode"))?;
        main.mac =
            Some(mac.parse().map_err(|_| ApiError::bad(format!("invalid MAC address: {}", clip(&mac))))?);
    }
    let mut ports = port_bindings(host.get("PortBindings"))?;
    if mode == Mode::Host && !ports.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".into());
        ports.clear();
    }
    Ok(NetworkOptions {
        endpoints,
        host: mode == Mode::Host,
        ports,
        exposed: exposed(config.get("ExposedPorts"))?,
        publish_all: host.flag("PublishAllPorts")? && mode != Mode::Host,
        dns: dns(host)?,
        dns_search: words(host, "DnsSearch")?.into_iter().filter(|word| word != ".").collect(),
        dns_options: words(host, "DnsOptions")?,
        hosts: words(host, "ExtraHosts")?.iter().map(|text| extra_host(text)).collect::<Result<_, _>>()?,
    })
}

/// Which networks a container may be on.
#[derive(Debug, PartialEq, Eq)]
enum Mode {
    None,
    Host,
    /// On this one first.
    On(String),
}

fn mode(config: &Fields, host: &Fields) -> Result<Mode, ApiError> {
    let mode = host.text("NetworkMode")?.unwrap_or_default();
    if config.flag("NetworkDisabled")? || mode == NO_NETWORK {
        return Ok(Mode::None);
    }
    match mode.as_str() {
        "" | "default" => Ok(Mode::On(DEFAULT_NETWORK.into())),
        HOST_NETWORK => Ok(Mode::Host),
        "container" | "container:" => {
            Err(ApiError::bad("invalid network mode: invalid container format container:<name|id>"))
        }
        mode if mode.starts_with("container:") => Err(ApiError::bad(format!(
            "bulkhead: HostConfig.NetworkMode `{}` is not supported: each container is a machine of its own, and two \
             machines cannot share one network interface; put both on a user-defined network, where they find each \
             other by name",
            clip(mode)
        ))),
        mode => Ok(Mode::On(mode.to_owned())),
    }
}

fn endpoints(networking: Value) -> Result<Vec<EndpointWish>, ApiError> {
    let networking = Fields::of("NetworkingConfig.", networking)?;
    fields::check("NetworkingConfig.", &networking, &[("EndpointsConfig", Rule::Mapped)])?;
    let endpoints = match networking.get("EndpointsConfig") {
        Value::Object(map) => map,
        Value::Null => return Ok(Vec::new()),
        _ => return Err(ApiError::bad("invalid JSON: NetworkingConfig.EndpointsConfig must be an object")),
    };
    endpoints
        .iter()
        .map(|(name, endpoint)| {
            let name = if name == "default" { DEFAULT_NETWORK } else { name };
            wish(&format!("NetworkingConfig.EndpointsConfig.{name}."), name, endpoint.clone())
        })
        .collect()
}

/// The networks that a body says something of.
pub fn named(networking: &Value) -> Vec<String> {
    let all = networking.as_object().into_iter().flatten();
    let places = all.filter(|(name, _)| name.eq_ignore_ascii_case("EndpointsConfig"));
    places.filter_map(|(_, places)| places.as_object()).flat_map(|places| places.keys().cloned()).collect()
}

/// A place on the network of this name.
pub fn wish(prefix: &str, network: &str, endpoint: Value) -> Result<EndpointWish, ApiError> {
    let endpoint = Fields::of(prefix, endpoint)?;
    fields::check(prefix, &endpoint, ENDPOINT)?;
    let ipam = Fields::of(&format!("{prefix}IPAMConfig."), endpoint.get("IPAMConfig").clone())?;
    if !is_empty(ipam.get("LinkLocalIPs")) {
        return Err(ApiError::bad(format!("bulkhead: {prefix}IPAMConfig.LinkLocalIPs: {NO_LINK_LOCAL}")));
    }
    let address6 = ipam.text("IPv6Address")?.filter(|text| !text.is_empty());
    let address6 = address6.map(|text| {
        text.parse().map_err(|_| ApiError::bad(format!("invalid IPv6 address: {}", clip(&text))))
    });
    let address = ipam.text("IPv4Address")?.filter(|text| !text.is_empty());
    let address = address.map(|text| {
        text.parse().map_err(|_| ApiError::bad(format!("invalid IPv4 address: {}", clip(&text))))
    });
    let mac = endpoint.text("MacAddress")?.filter(|text| !text.is_empty());
    let mac = mac
        .map(|text| text.parse().map_err(|_| ApiError::bad(format!("invalid MAC address: {}", clip(&text)))));
    Ok(EndpointWish {
        network: network.to_owned(),
        aliases: words(&endpoint, "Aliases")?,
        address: address.transpose()?,
        address6: address6.transpose()?,
        mac: mac.transpose()?,
        gateway_priority: endpoint.integer("GwPriority")?.unwrap_or(0),
        links: links(&endpoint)?,
    })
}

/// Short, printable, without what separates words in files of the guest.
pub(super) fn words(fields: &Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let words = fields.list(name)?.unwrap_or_default();
    let good = |word: &String| {
        (1..=WORD_BYTES_MAX).contains(&word.len())
            && !word.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    if words.len() > WORDS_MAX {
        return Err(ApiError::bad(format!("{name} has {} entries: at most {WORDS_MAX}", words.len())));
    }
    match words.iter().find(|word| !good(word)) {
        Some(wrong) => Err(ApiError::bad(format!("invalid entry in {name}: `{}`", clip(wrong)))),
        None => Ok(words),
    }
}

fn dns(host: &Fields) -> Result<Vec<IpAddr>, ApiError> {
    let address = |text: &String| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address),
        Err(_) => Err(ApiError::bad(format!("bad parameter: invalid DNS address: {}", clip(text)))),
    };
    words(host, "Dns")?.iter().map(address).collect()
}

/// `NAME:ADDRESS`.
fn extra_host(text: &str) -> Result<(String, Option<IpAddr>), ApiError> {
    let wrong = || ApiError::bad(format!("bad format for add-host: \"{}\"", clip(text)));
    let (name, address) = text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    match address {
        HOST_GATEWAY => Ok((name.to_owned(), None)),
        address => {
            let invalid = || ApiError::bad(format!("invalid IP address in add-host: \"{}\"", clip(address)));
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            Ok((name.to_owned(), Some(bare.parse().map_err(|_| invalid())?)))
        }
    }
}

/// Documentation of what listens; clients parse it again: `80`, `80/tcp`, `8000-8010/udp`.
fn exposed(ports: &Value) -> Result<std::collections::BTreeSet<String>, ApiError> {
    let ports = match ports {
        Value::Null => return Ok(Default::default()),
        Value::Object(ports) => ports,
        _ => return Err(ApiError::bad("invalid JSON: ExposedPorts must be an object")),
    };
    match ports.keys().find(|port| !is_port(port)) {
        Some(port) => Err(ApiError::bad(format!("invalid port `{}` in ExposedPorts", clip(port)))),
        None if ports.len() > PORTS_MAX => {
            Err(ApiError::bad(format!("{} exposed ports: at most {PORTS_MAX}", ports.len())))
        }
        None => {
            let named = ports.keys().filter_map(|text| exposed_port(text));
            Ok(named.map(|(port, protocol)| format!("{port}/{protocol}")).collect())
        }
    }
}

fn is_port(text: &str) -> bool {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let both = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    matches!(protocol, "tcp" | "udp" | "sctp") && both.is_some_and(|(first, last)| first <= last)
}

fn port_bindings(bindings: &Value) -> Result<Vec<PortWish>, ApiError> {
    let bindings = match bindings {
        Value::Null => return Ok(Vec::new()),
        Value::Object(bindings) => bindings,
        _ => return Err(ApiError::bad("invalid JSON: HostConfig.PortBindings must be an object")),
    };
    let mut wishes = Vec::new();
    for (port, places) in bindings {
        let (container_port, protocol) = exposed_port(port)
            .ok_or_else(|| ApiError::bad(format!("invalid port specification: \"{}\"", clip(port))))?;
        let places = match places {
            Value::Null => continue,
            Value::Array(places) => places,
            _ => return Err(ApiError::bad("invalid JSON: bindings of a port must be a list")),
        };
        for place in places {
            let place = Fields::of("HostConfig.PortBindings.", place.clone())?;
            wishes.push(PortWish {
                container_port,
                protocol,
                host_address: host_address(&place.text("HostIp")?.unwrap_or_default())?,
                host_ports: host_ports(&place.text("HostPort")?.unwrap_or_default())?,
            });
        }
        if wishes.len() > PORTS_MAX {
            return Err(ApiError::bad(format!("more than {PORTS_MAX} published ports")));
        }
    }
    // By number: a map has no order that a user could have meant.
    wishes.sort_by_key(|wish| (wish.container_port, wish.protocol));
    Ok(wishes)
}

/// Nothing means all of them.
fn host_address(text: &str) -> Result<Option<IpAddr>, ApiError> {
    match text {
        "" => Ok(None),
        text => match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(ApiError::bad(format!("invalid IP address: {}", clip(text)))),
        },
    }
}

fn host_ports(text: &str) -> Result<Option<PortRange>, ApiError> {
    match text {
        "" | "0" => Ok(None),
        text => match text.parse() {
            Ok(range) => Ok(Some(range)),
            Err(_) => Err(ApiError::bad(format!("invalid port specification: \"{}\"", clip(text)))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(host: Value, networking: Value) -> Result<NetworkOptions, String> {
        let config = Fields::of("", Value::Null).unwrap();
        let host = Fields::of("HostConfig.", host).unwrap();
        options(&config, &host, networking, &mut Vec::new()).map_err(|error| error.message)
    }

    fn networks(options: &NetworkOptions) -> Vec<&str> {
        options.endpoints.iter().map(|wish| wish.network.as_str()).collect()
    }

    #[test]
    fn the_mode_names_the_first_network() {
        for mode in ["", "default", "bridge"] {
            assert_eq!(networks(&read(json!({"NetworkMode": mode}), Value::Null).unwrap()), ["bridge"]);
        }
        assert!(networks(&read(json!({"NetworkMode": "none"}), Value::Null).unwrap()).is_empty());
        let others = json!({"EndpointsConfig": {"a": {}, "mine": {"Aliases": ["web"]}}});
        let options = read(json!({"NetworkMode": "mine"}), others.clone()).unwrap();
        assert_eq!(networks(&options), ["mine", "a"]);
        assert_eq!(options.endpoints[0].aliases, ["web"]);
        for (mode, text) in [
            ("host", "cannot be connected to any other network"),
            ("container:x", "user-defined network"),
            ("none", "its network mode is `none`"),
        ] {
            let error = read(json!({"NetworkMode": mode}), others.clone()).unwrap_err();
            assert!(error.contains(text), "{mode}: {error}");
        }
    }

    #[test]
    fn on_the_hosts_network_means_on_the_default_one_without_ports() {
        let config = Fields::of("", Value::Null).unwrap();
        let ports = json!({"80/tcp": [{"HostPort": "8080"}]});
        let host = json!({"NetworkMode": "host", "PortBindings": ports, "PublishAllPorts": true});
        let (host, mut warnings) = (Fields::of("HostConfig.", host).unwrap(), Vec::new());
        let places = json!({"EndpointsConfig": {"host": {}}});
        let options = options(&config, &host, places, &mut warnings).unwrap();
        assert_eq!(networks(&options), ["bridge"]);
        assert!(options.host && options.ports.is_empty() && !options.publish_all);
        assert!(warnings[0].contains("with an address of its own"), "{warnings:?}");
        assert_eq!(warnings[1], "Published ports are discarded when using host network mode");
        for (host, text) in [
            (
                json!({"NetworkMode": "host", "Links": ["db"]}),
                "host type networking can't be used with links",
            ),
            (json!({"NetworkMode": "container:"}), "invalid container format container:<name|id>"),
        ] {
            assert!(read(host, Value::Null).unwrap_err().contains(text));
        }
    }

    #[test]
    fn ports_are_read_as_the_cli_sends_them() {
        let ports = json!({"PortBindings": {
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": ""}, {"HostIp": "::1"}],
            "53/udp": [{"HostIp": "10.0.0.1", "HostPort": "5300-5310"}],
            "81/tcp": null,
        }});
        let options = read(ports, Value::Null).unwrap();
        let shown: Vec<_> = options
            .ports
            .iter()
            .map(|wish| {
                let ports = wish.host_ports.map(|range| range.to_string()).unwrap_or_default();
                let host = wish.host_address.map(|address| address.to_string()).unwrap_or_default();
                format!("{host}:{ports}:{}/{}", wish.container_port, wish.protocol)
            })
            .collect();
        assert_eq!(shown, ["10.0.0.1:5300-5310:53/udp", ":8080:80/tcp", "127.0.0.1::80/tcp", "::1::80/tcp"]);
        for (bindings, text) in [
            (json!({"80/sctp": [{}]}), "invalid port specification"),
            (json!({"80/tcp": [{"HostPort": "x"}]}), "invalid port specification: \"x\""),
            (json!({"80/tcp": [{"HostPort": "9-8"}]}), "invalid port specification"),
            (json!({"80/tcp": [{"HostIp": "x"}]}), "invalid IP address: x"),
        ] {
            let error = read(json!({"PortBindings": bindings}), Value::Null).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn names_and_resolvers_are_checked() {
        let good = json!({"Dns": ["10.0.0.53"], "DnsSearch": ["."], "ExtraHosts": ["db:10.0.0.3", "up:host-gateway", "six:[::1]"]});
        let options = read(good, Value::Null).unwrap();
        assert_eq!(options.dns, [IpAddr::from([10, 0, 0, 53])]);
        assert!(options.dns_search.is_empty());
        assert_eq!(options.hosts[1], ("up".to_owned(), None));
        for wrong in [
            json!({"Dns": ["x"]}),
            json!({"DnsSearch": ["a b"]}),
            json!({"DnsOptions": ["a\nnameserver 6.6.6.6"]}),
            json!({"ExtraHosts": ["db"]}),
            json!({"ExtraHosts": ["db:10.0.0.3\n6.6.6.6 x"]}),
            json!({"ExtraHosts": [":1.2.3.4"]}),
        ] {
            assert!(read(wrong.clone(), Value::Null).is_err(), "{wrong}");
        }
    }

    #[test]
    fn exposed_ports_are_checked() {
        for good in ["80", "80/tcp", "1-9/udp", "1/sctp"] {
            assert!(is_port(good), "{good}");
        }
        for bad in ["", "x", "80/http", "9-1", "70000", "1-2-3"] {
            assert!(!is_port(bad), "{bad}");
        }
    }
}
