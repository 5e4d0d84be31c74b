//! `GET /networks`.

use super::{none, none_id};
use crate::call::{Answer, Call};
use crate::filters::Filters;
use crate::reply;
use bulkhead_model::Action;
use serde_json::json;

const FILTERS: [&str; 8] = ["name", "id", "driver", "type", "label", "scope", "dangling", "until"];

pub async fn get(call: Call) -> Answer {
    call.engine().authorize(&call.session, Action::NetworkList).await?;
    let filters = Filters::parse(&call.query, &FILTERS)?;
    let facts = call.engine().system(&call.session).await?;
    let id = none_id(call.state.vch);
    let wanted = filters.patterns("name")?.found_in(&["none"])
        && filters.any("id", |prefix| id.starts_with(prefix))
        && filters.any("driver", |driver| driver == "null")
        && filters.any("type", |kind| kind == "builtin")
        && filters.any("scope", |scope| scope == "local")
        && filters.any("dangling", |value| matches!(value, "false" | "0"))
        && !filters.has("label");
    reply::ok(&if wanted { json!([none(&facts)]) } else { json!([]) })
}
