//! `GET /volumes`.

use crate::call::{Answer, Call};
use crate::filters::Filters;
use crate::reply;
use bulkhead_model::Action;
use serde_json::json;

pub async fn get(call: Call) -> Answer {
    call.engine().authorize(&call.session, Action::VolumeList).await?;
    Filters::parse(&call.query, &["name", "label", "driver", "dangling"])?;
    reply::ok(&json!({ "Volumes": [], "Warnings": null }))
}
