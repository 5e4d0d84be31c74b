//! `GET /networks/{id}`.

use super::{none, none_id};
use crate::call::{Answer, Call};
use crate::containers::shape;
use crate::error::ApiError;
use crate::query::clip;
use crate::reply;
use bulkhead_model::Action;
use serde_json::{Map, Value, json};

pub async fn get(call: Call) -> Answer {
    call.engine().authorize(&call.session, Action::NetworkList).await?;
    let id = none_id(call.state.vch);
    let elsewhere = call.query.text("scope").is_some_and(|scope| scope != "local");
    if elsewhere || call.name != "none" && !id.starts_with(&call.name) {
        return Err(ApiError::not_found(format!("network {} not found", clip(&call.name))));
    }
    let facts = call.engine().system(&call.session).await?;
    let mut network = none(&facts);
    // Running ones only, as in Docker.
    let running = call.engine().containers(&call.session).await?.into_iter().filter(shape::is_running);
    let containers: Map<String, Value> = running
        .map(|container| {
            let endpoint = json!({
                "Name": container.name, "EndpointID": container.id, "MacAddress": "", "IPv4Address": "",
                "IPv6Address": "",
            });
            (container.id.to_string(), endpoint)
        })
        .collect();
    if let Some(map) = network.as_object_mut() {
        map.insert("Containers".into(), containers.into());
    }
    reply::ok(&network)
}
