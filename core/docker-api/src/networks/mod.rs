//! Networks: for now there is one, `none`, a loopback interface. What cannot be used is not listed.

pub mod inspect;
pub mod list;

use crate::time;
use bulkhead_engine::SystemFacts;
use bulkhead_model::VchId;
use serde_json::{Value, json};

/// 64 hex digits, as Docker's ids are; the same for the VCH's whole life.
pub fn none_id(vch: VchId) -> String {
    let half = vch.0.simple().to_string();
    format!("{half}{half}")
}

/// Driver `null`, as Docker calls it.
pub fn none(facts: &SystemFacts) -> Value {
    json!({
        "Name": "none",
        "Id": none_id(facts.vch.id),
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
    })
}
