//! `DELETE /images/{name}`.

use crate::call::{Answer, Call};
use crate::reply;
use bulkhead_engine::RemovedImage;
use serde_json::{Value, json};

pub async fn delete(call: Call) -> Answer {
    let force = call.query.flag("force");
    let removed = call.engine().remove_image(&call.session, &call.name, force).await?;
    let list: Vec<Value> = removed
        .iter()
        .map(|what| match what {
            RemovedImage::Untagged(name) => json!({ "Untagged": name }),
            RemovedImage::Deleted(id) => json!({ "Deleted": id }),
        })
        .collect();
    reply::ok(&list)
}
