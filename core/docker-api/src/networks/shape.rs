//! What a network looks like to clients.

use crate::containers::shape::is_running;
use crate::time;
use bulkhead_engine::SystemFacts;
use bulkhead_model::network::{HOST_NETWORK, NO_NETWORK, predefined_id};
use bulkhead_model::{Container, Network};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a list has of it.
pub fn network(network: &Network) -> Map<String, Value> {
    let spec = &network.spec;
    let mut pools = vec![pool(spec.subnet, spec.gateway, spec.range, &spec.reserved)];
    pools.extend(spec.six.as_ref().map(|six| pool(six.subnet, six.gateway, six.range, &six.reserved)));
    of(json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time::rfc3339(network.created_at),
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": true,
        "EnableIPv6": spec.six.is_some(),
        "IPAM": { "Driver": "default", "Options": null, "Config": pools },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": {},
        "Options": spec.options,
        "Labels": spec.labels,
    }))
}

fn pool<S: Serialize, A: Serialize>(
    subnet: S,
    gateway: A,
    range: Option<S>,
    reserved: &BTreeMap<String, A>,
) -> Value {
    let mut pool = json!({ "Subnet": subnet, "Gateway": gateway });
    if let Some(map) = pool.as_object_mut() {
        if let Some(range) = range {
            map.insert("IPRange".into(), json!(range));
        }
        if !reserved.is_empty() {
            map.insert("AuxiliaryAddresses".into(), json!(reserved));
        }
    }
    pool
}

/// What is no network of the VCH, but stands for something and is in every list: the driver, by the name.
pub const STANDING: [(&str, &str); 2] = [(HOST_NETWORK, "host"), (NO_NETWORK, "null")];

pub fn standing(facts: &SystemFacts, (name, driver): (&str, &str)) -> Map<String, Value> {
    of(json!({
        "Name": name,
        "Id": predefined_id(facts.vch.id, name),
        "Created": time::rfc3339(facts.vch.created_at),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": [] },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }))
}

fn of(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Who is on what stands for a network: running ones only, as in Docker.
pub fn containers_of_standing(all: &[Container], name: &str) -> Map<String, Value> {
    let is_on = |container: &&Container| match name {
        HOST_NETWORK => container.spec.network.host,
        _ => container.endpoints.is_empty(),
    };
    let place = |container: &Container| {
        let lease = container.endpoints.first().and_then(|endpoint| endpoint.lease);
        json!({
            "Name": container.name,
            "EndpointID": container.endpoints.first().map_or(container.id.as_str(), |place| place.id.as_str()),
            "MacAddress": lease.map(|lease| lease.mac.to_string()).unwrap_or_default(),
            "IPv4Address": lease.map(|lease| format!("{}/{}", lease.address, lease.prefix)).unwrap_or_default(),
            "IPv6Address": "",
        })
    };
    let on = all.iter().filter(|container| is_running(container)).filter(is_on);
    on.map(|container| (container.id.to_string(), place(container))).collect()
}

/// Who is on it.
pub fn containers(all: &[Container], network: &Network) -> Map<String, Value> {
    let running = all.iter().filter(|container| is_running(container) && !container.spec.network.host);
    let place = |container: &Container| {
        let endpoint = container.endpoints.iter().find(|endpoint| endpoint.network == network.id)?;
        let lease = endpoint.lease?;
        Some(json!({
            "Name": container.name,
            "EndpointID": endpoint.id,
            "MacAddress": lease.mac,
            "IPv4Address": format!("{}/{}", lease.address, lease.prefix),
            "IPv6Address": lease.six.map(|six| format!("{}/{}", six.address, six.prefix)).unwrap_or_default(),
        }))
    };
    running.filter_map(|container| Some((container.id.to_string(), place(container)?))).collect()
}
