//! `POST /networks/create`.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::json::{self, Fields, is_empty};
use crate::query::clip;
use crate::{body, reply};
use bulkhead_engine::NewNetwork;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;

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
    if fields.flag("EnableIPv6")? || *fields.get("EnableIPv4") == Value::Bool(false) {
        return Err(ApiError::bad(
            "bulkhead: EnableIPv6: networks have IPv4 only, IPv6 is not supported yet",
        ));
    }
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
    let (subnet, gateway, range, reserved) = ipam(fields.get("IPAM").clone())?;
    Ok(NewNetwork {
        name: fields.text("Name")?.unwrap_or_default(),
        subnet,
        gateway,
        range,
        reserved,
        internal: fields.flag("Internal")?,
        attachable: fields.flag("Attachable")?,
        labels: fields.map("Labels")?,
        options,
    })
}

type Pool = (
    Option<bulkhead_model::network::Subnet>,
    Option<std::net::Ipv4Addr>,
    Option<bulkhead_model::network::Subnet>,
    BTreeMap<String, std::net::Ipv4Addr>,
);

fn ipam(value: Value) -> Result<Pool, ApiError> {
    let ipam = Fields::of("IPAM.", value)?;
    let driver = ipam.text("Driver")?.unwrap_or_default();
    if !matches!(driver.as_str(), "" | "default") || !is_empty(ipam.get("Options")) {
        return Err(ApiError::bad("bulkhead: IPAM has the default driver and no options"));
    }
    let pools = match ipam.get("Config") {
        Value::Null => return Ok(Pool::default()),
        Value::Array(pools) => pools,
        _ => return Err(ApiError::bad("invalid JSON: IPAM.Config must be a list")),
    };
    let pool = match pools.as_slice() {
        [] => return Ok(Pool::default()),
        [pool] => Fields::of("IPAM.Config.", pool.clone())?,
        _ => return Err(ApiError::bad("bulkhead: IPAM.Config: a network has one subnet, of IPv4")),
    };
    let text = |name: &str| pool.text(name).map(|text| text.filter(|text| !text.is_empty()));
    let subnet = text("Subnet")?.map(|text| parse(&text, "subnet")).transpose()?;
    let range = text("IPRange")?.map(|text| parse(&text, "range")).transpose()?;
    let gateway = text("Gateway")?.map(|text| parse(&text, "gateway")).transpose()?;
    let mut reserved = BTreeMap::new();
    for (name, text) in pool.map("AuxiliaryAddresses")? {
        reserved.insert(name, parse(&text, "aux-address")?);
    }
    if subnet.is_none() && (range.is_some() || gateway.is_some() || !reserved.is_empty()) {
        return Err(ApiError::bad("invalid IPAM.Config: a gateway, a range or an address needs a subnet"));
    }
    Ok((subnet, gateway, range, reserved))
}

fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, ApiError> {
    let six = if text.contains(':') { " (IPv6 is not supported yet)" } else { "" };
    text.parse().map_err(|_| ApiError::bad(format!("invalid {what} {}{six}", clip(text))))
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
        assert!(check(json!({"Name": "x"})).unwrap().subnet.is_none());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (body, text) in [
            (json!({"Name": "x", "Driver": "overlay"}), "plugin \"overlay\" not found"),
            (json!({"Name": "x", "EnableIPv6": true}), "EnableIPv6"),
            (json!({"Name": "x", "Ingress": true}), "Ingress is not supported"),
            (json!({"Name": "x", "Options": {"parent": "eth0"}}), "the network option parent=eth0"),
            (
                json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "fd00::/64"}]}}),
                "IPv6 is not supported yet",
            ),
            (json!({"Name": "x", "IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}), "needs a subnet"),
            (json!({"Name": "x", "IPAM": {"Driver": "mine"}}), "default driver"),
        ] {
            let error = check(body.clone()).unwrap_err();
            assert!(error.contains(text), "{body}: {error}");
        }
    }
}
