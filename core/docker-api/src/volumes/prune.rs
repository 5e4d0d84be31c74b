//! `POST /volumes/prune`: removes volumes that no container has; from 1.42 on only those that nobody named, unless all are
//! asked for.

use super::shape;
use crate::call::{Answer, Call};
use crate::filters::Filters;
use crate::reply;
use bulkhead_model::Volume;
use serde_json::json;

pub async fn post(call: Call) -> Answer {
    let filters = Filters::parse(&call.query, &["label", "label!", "all"])?;
    let all = filters.values("all").iter().any(|value| matches!(value.as_str(), "true" | "1"));
    let all = all || !call.version.since(42);
    let wanted = |volume: &Volume| {
        let labels = shape::labels(volume);
        (all || volume.anonymous) && filters.labels(&labels) && filters.without_labels(&labels)
    };
    let pruned = call.engine().prune_volumes(&call.session, wanted).await?;
    reply::ok(&json!({ "VolumesDeleted": pruned.names, "SpaceReclaimed": pruned.reclaimed_bytes }))
}
