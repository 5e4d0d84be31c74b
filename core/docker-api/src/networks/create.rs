//! `POST /networks/create`.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::json::{self, Fields, is_empty};
use crate::query::clip;
use crate::{body, reply};
use bulkhead_engine::{NewNetwork, NewPool6};
use bulkhead_model::ipv6::Subnet6;
use bulkhead_model::network::Subnet;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Fields that mean something here, or nothing anywhere.
const KNOWN: [&str; 12] = [
    "Name",
    "Driver",
    "Scope",
    "Internal",
    "Attachable",
    "IPAM",
    "Options",
    "Labels",
    "EnableIPv4",
    "EnableIPv6",
    "CheckDuplicate",
    "ConfigFrom",
];
/// Options of Docker's bridges, with the one value that is so here.
const OPTIONS: [(&str, &str); 4] = [
    ("com.docker.network.bridge.enable_icc", "true"),
    ("com.docker.network.bridge.enable_ip_masquerade", "true"),
    ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
    ("com.docker.network.driver.mtu", "1500"),
];

pub async fn post(mut call: Call) -> Answer {
    let new = read(&body::json(&mut call).await?)?;
    let network = call.engine().network_create(&call.session, new).await?;
    reply::json(StatusCode::CREATED, &json!({ "Id": network.id, "Warning": "" }))
}

fn read(bytes: &[u8]) -> Result<NewNetwork, ApiError> {
    let fields = Fields::of("", json::parse(bytes)?)?;
    for name in fields.names() {
        if !is_empty(fields.get(name)) && !KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(ApiError::bad(format!("bulkhead: {} is not supported for a network", clip(name))));
        }
    }
    let driver = fields.text("Driver")?.unwrap_or_default();
    if !matches!(driver.as_str(), "" | "default" | "bridge") {
        return Err(ApiError::not_found(format!("plugin \"{}\" not found", clip(&driver))));
    }
    if *fields.get("EnableIPv4") == Value::Bool(false) {
        return Err(ApiError::bad(
            "bulkhead: EnableIPv4 cannot be false: networks have IPv4, and IPv6 beside it (--ipv6)",
        ));
    }
    let has_six = fields.flag("EnableIPv6")?;
    let from = Fields::of("ConfigFrom.", fields.get("ConfigFrom").clone())?;
    if !is_empty(from.get("Network")) {
        return Err(ApiError::bad(
            "bulkhead: ConfigFrom is not supported: there are no networks of configuration only",
        ));
    }
    let options = fields.map("Options")?;
    for (name, value) in &options {
        let same = OPTIONS.iter().any(|(known, only)| name == known && value == only);
        if !same {
            return Err(ApiError::bad(format!(
                "bulkhead: the network option {}={} is not supported",
                clip(name),
                clip(value)
            )));
        }
    }
    let Pools { four, six } = ipam(fields.get("IPAM").clone(), has_six)?;
    let six = has_six.then(|| six.unwrap_or_default());
    Ok(NewNetwork {
        name: fields.text("Name")?.unwrap_or_default(),
        subnet: four.subnet,
        gateway: four.gateway,
        range: four.range,
        reserved: four.reserved,
        six: six.map(|pool| NewPool6 {
            subnet: pool.subnet,
            gateway: pool.gateway,
            range: pool.range,
            reserved: pool.reserved,
        }),
        internal: fields.flag("Internal")?,
        attachable: fields.flag("Attachable")?,
        labels: fields.map("Labels")?,
        options,
    })
}

/// What a network's subnets are to be.
#[derive(Default)]
struct Pools {
    four: Pool<Subnet, Ipv4Addr>,
    six: Option<Pool<Subnet6, Ipv6Addr>>,
}

/// One entry of `IPAM.Config`, of one family.
struct Pool<S, A> {
    subnet: Option<S>,
    gateway: Option<A>,
    range: Option<S>,
    reserved: BTreeMap<String, A>,
}

impl<S, A> Default for Pool<S, A> {
    fn default() -> Self {
        Self { subnet: None, gateway: None, range: None, reserved: BTreeMap::new() }
    }
}

fn ipam(value: Value, has_six: bool) -> Result<Pools, ApiError> {
    let ipam = Fields::of("IPAM.", value)?;
    let driver = ipam.text("Driver")?.unwrap_or_default();
    if !matches!(driver.as_str(), "" | "default") || !is_empty(ipam.get("Options")) {
        return Err(ApiError::bad("bulkhead: IPAM has the default driver and no options"));
    }
    let entries = match ipam.get("Config") {
        Value::Null => return Ok(Pools::default()),
        Value::Array(entries) => entries,
        _ => return Err(ApiError::bad("invalid JSON: IPAM.Config must be a list")),
    };
    let (mut four, mut six) = (None, None);
    for entry in entries {
        let entry = Fields::of("IPAM.Config.", entry.clone())?;
        let subnet = entry.text("Subnet")?.unwrap_or_default();
        if subnet.contains(':') {
            if !has_six {
                let text = format!(
                    "invalid subnet {}: EnableIPv6 (--ipv6) is not set for the network",
                    clip(&subnet)
                );
                return Err(ApiError::bad(text));
            }
            once(&mut six, pool(&entry)?)?;
        } else {
            once(&mut four, pool(&entry)?)?;
        }
    }
    Ok(Pools { four: four.unwrap_or_default(), six })
}

fn once<T>(place: &mut Option<T>, pool: T) -> Result<(), ApiError> {
    match place.replace(pool) {
        None => Ok(()),
        Some(_) => {
            Err(ApiError::bad("bulkhead: IPAM.Config: a network has one subnet of IPv4 and one of IPv6"))
        }
    }
}

fn pool<S: FromStr, A: FromStr>(entry: &Fields) -> Result<Pool<S, A>, ApiError> {
    let text = |name: &str| entry.text(name).map(|text| text.filter(|text| !text.is_empty()));
    let subnet = text("Subnet")?.map(|text| parse(&text, "subnet")).transpose()?;
    let range = text("IPRange")?.map(|text| parse(&text, "range")).transpose()?;
    let gateway = text("Gateway")?.map(|text| parse(&text, "gateway")).transpose()?;
    let mut reserved = BTreeMap::new();
    for (name, text) in entry.map("AuxiliaryAddresses")? {
        reserved.insert(name, parse(&text, "aux-address")?);
    }
    if subnet.is_none() && (range.is_some() || gateway.is_some() || !reserved.is_empty()) {
        return Err(ApiError::bad("invalid IPAM.Config: a gateway, a range or an address needs a subnet"));
    }
    Ok(Pool { subnet, gateway, range, reserved })
}

fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::bad(format!("invalid {what} {}", clip(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: Value) -> Result<NewNetwork, String> {
        read(body.to_string().as_bytes()).map_err(|error| error.message)
    }

    #[test]
    fn a_body_of_the_cli() {
        let new = check(json!({
            "Name": "mine", "Driver": "bridge", "CheckDuplicate": true, "EnableIPv6": false, "Internal": true,
            "IPAM": {"Driver": "default", "Options": {}, "Config": [
                {"Subnet": "10.1.0.0/16", "IPRange": "10.1.2.0/24", "Gateway": "10.1.0.9", "AuxiliaryAddresses": {"x": "10.1.0.5"}},
            ]},
            "Options": {}, "Labels": {"a": "b"}, "ConfigOnly": false, "Ingress": false, "ConfigFrom": null, "Scope": "",
        }))
        .unwrap();
        assert_eq!((new.name.as_str(), new.internal), ("mine", true));
        assert_eq!(new.subnet.unwrap().to_string(), "10.1.0.0/16");
        assert_eq!(new.gateway.unwrap().to_string(), "10.1.0.9");
        assert_eq!(new.reserved["x"].to_string(), "10.1.0.5");
        let new = check(json!({"Name": "x"})).unwrap();
        assert!(new.subnet.is_none() && new.six.is_none());
    }

    #[test]
    fn ipv6_comes_beside_ipv4() {
        let pools = json!([{"Subnet": "10.1.0.0/16"}, {"Subnet": "fd00::/64", "Gateway": "fd00::9"}]);
        let new = check(json!({"Name": "x", "EnableIPv6": true, "IPAM": {"Config": pools}})).unwrap();
        let six = new.six.unwrap();
        assert_eq!(new.subnet.unwrap().to_string(), "10.1.0.0/16");
        assert_eq!(
            (six.subnet.unwrap().to_string(), six.gateway.unwrap().to_string()),
            ("fd00::/64".into(), "fd00::9".into())
        );
        assert!(check(json!({"Name": "x", "EnableIPv6": true})).unwrap().six.unwrap().subnet.is_none());
        let twice = json!({"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "fd01::/64"}]});
        let error = check(json!({"Name": "x", "EnableIPv6": true, "IPAM": twice})).unwrap_err();
        assert!(error.contains("one subnet of IPv4 and one of IPv6"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (body, text) in [
            (json!({"Name": "x", "Driver": "overlay"}), "plugin \"overlay\" not found"),
            (json!({"Name": "x", "EnableIPv4": false}), "EnableIPv4 cannot be false"),
            (json!({"Name": "x", "Ingress": true}), "Ingress is not supported"),
            (json!({"Name": "x", "Options": {"parent": "eth0"}}), "the network option parent=eth0"),
            (
                json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "fd00::/64"}]}}),
                "EnableIPv6 (--ipv6) is not set",
            ),
            (json!({"Name": "x", "IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}), "needs a subnet"),
            (json!({"Name": "x", "IPAM": {"Driver": "mine"}}), "default driver"),
        ] {
            let error = check(body.clone()).unwrap_err();
            assert!(error.contains(text), "{body}: {error}");
        }
    }
}
