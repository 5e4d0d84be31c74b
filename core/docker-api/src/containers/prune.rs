//! `POST /containers/prune`: removes what does not run.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::{reply, time};
use bulkhead_model::Container;
use chrono::{DateTime, Utc};
use serde_json::json;

pub async fn post(call: Call) -> Answer {
    let filters = Filters::parse(&call.query, &["until", "label", "label!"])?;
    let until = until(&filters, call.state.clock.now())?;
    let wanted = |container: &Container| {
        until.is_none_or(|until| container.created_at < until)
            && filters.labels(&container.spec.labels)
            && filters.without_labels(&container.spec.labels)
    };
    let pruned = call.engine().prune_containers(&call.session, wanted).await?;
    reply::ok(&json!({ "ContainersDeleted": pruned.containers, "SpaceReclaimed": pruned.reclaimed_bytes }))
}

/// The time before which things must have been made.
pub fn until(filters: &Filters, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, ApiError> {
    match filters.values("until") {
        [] => Ok(None),
        [text] => time::parse_until(text, now).map(Some),
        _ => Err(ApiError::bad("more than one until filter specified")),
    }
}
