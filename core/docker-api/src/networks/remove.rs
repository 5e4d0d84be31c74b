//! `DELETE /networks/{id}` and `POST /networks/prune`.

use crate::call::{Answer, Call};
use crate::containers::prune::until;
use crate::filters::Filters;
use crate::reply;
use bulkhead_model::Network;
use http::StatusCode;
use serde_json::{Value, json};

pub async fn delete(call: Call) -> Answer {
    call.engine().network_remove(&call.session, &call.name).await?;
    reply::empty(StatusCode::NO_CONTENT)
}

pub async fn prune(call: Call) -> Answer {
    let filters = Filters::parse(&call.query, &["until", "label", "label!"])?;
    let until = until(&filters, call.state.clock.now())?;
    let wanted = |network: &Network| {
        until.is_none_or(|until| network.created_at < until)
            && filters.labels(&network.spec.labels)
            && filters.without_labels(&network.spec.labels)
    };
    let names = call.engine().network_prune(&call.session, wanted).await?;
    let names = if names.is_empty() { Value::Null } else { json!(names) };
    reply::ok(&json!({ "NetworksDeleted": names }))
}
