//! `GET /networks`.

use super::shape;
use crate::call::{Answer, Call};
use crate::filters::Filters;
use crate::reply;
use bulkhead_model::network::DEFAULT_NETWORK;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const FILTERS: [&str; 8] = ["name", "id", "driver", "type", "label", "scope", "dangling", "until"];

pub async fn get(call: Call) -> Answer {
    let filters = Filters::parse(&call.query, &FILTERS)?;
    let facts = call.engine().system(&call.session).await?;
    let networks = call.engine().networks(&call.session).await?;
    let used: Vec<_> = call.engine().containers(&call.session).await?;
    let is_used =
        |id: &str| used.iter().flat_map(|one| &one.endpoints).any(|place| place.network.as_str() == id);
    let names = filters.patterns("name")?;
    let text = |network: &Map<String, Value>, field: &str| {
        network.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let wanted = |network: &Map<String, Value>| {
        let (name, id) = (text(network, "Name"), text(network, "Id"));
        let builtin =
            name == DEFAULT_NETWORK || shape::STANDING.iter().any(|(standing, _)| *standing == name);
        let labels: BTreeMap<String, String> = network
            .get("Labels")
            .and_then(|labels| serde_json::from_value(labels.clone()).ok())
            .unwrap_or_default();
        names.found_in(&[&name])
            && filters.any("id", |prefix| id.starts_with(prefix))
            && filters.any("driver", |driver| driver == text(network, "Driver"))
            && filters.any("type", |kind| kind == if builtin { "builtin" } else { "custom" })
            && filters.any("scope", |scope| scope == "local")
            && filters.any("dangling", |value| matches!(value, "true" | "1") == (!builtin && !is_used(&id)))
            && filters.labels(&labels)
    };
    let all =
        networks.iter().map(shape::network).chain(shape::STANDING.map(|one| shape::standing(&facts, one)));
    reply::ok(&all.filter(wanted).collect::<Vec<_>>())
}
