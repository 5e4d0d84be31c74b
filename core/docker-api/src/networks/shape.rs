//! What a network looks like to clients.

use crate::containers::shape::is_running;
use crate::time;
use bulkhead_engine::SystemFacts;
use bulkhead_model::network::{NO_NETWORK, predefined_id};
use bulkhead_model::{Container, Network};
use serde_json::{Map, Value, json};

/// What a list has of it.
pub fn network(network: &Network) -> Map<String, Value> {
    let spec = &network.spec;
    let mut pool = json!({ "Subnet": spec.subnet, "Gateway": spec.gateway });
    if let Some(map) = pool.as_object_mut() {
        if let Some(range) = spec.range {
            map.insert("IPRange".into(), json!(range));
        }
        if !spec.reserved.is_empty() {
            map.insert("AuxiliaryAddresses".into(), json!(spec.reserved));
        }
    }
    of(json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time::rfc3339(network.created_at),
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": [pool] },
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

/// Driver `null`, as Docker calls it.
pub fn none(facts: &SystemFacts) -> Map<String, Value> {
    of(json!({
        "Name": NO_NETWORK,
        "Id": predefined_id(facts.vch.id, NO_NETWORK),
        "Created": time::rfc3339(facts.vch.created_at),
        "Scope": "local",
        "Driver": "null",
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

/// Who is on it: running ones only, as in Docker. `network`: the id, or `None` for those without any.
pub fn containers(all: &[Container], network: Option<&Network>) -> Map<String, Value> {
    let running = all.iter().filter(|container| is_running(container));
    let place = |container: &Container| match network {
        None if container.endpoints.is_empty() => Some(json!({
            "Name": container.name, "EndpointID": container.id, "MacAddress": "", "IPv4Address": "",
            "IPv6Address": "",
        })),
        None => None,
        Some(network) => {
            let endpoint = container.endpoints.iter().find(|endpoint| endpoint.network == network.id)?;
            let lease = endpoint.lease?;
            Some(json!({
                "Name": container.name,
                "EndpointID": endpoint.id,
                "MacAddress": lease.mac,
                "IPv4Address": format!("{}/{}", lease.address, lease.prefix),
                "IPv6Address": "",
            }))
        }
    };
    running.filter_map(|container| Some((container.id.to_string(), place(container)?))).collect()
}
