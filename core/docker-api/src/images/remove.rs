//! `DELETE /images/{name}`.

use crate::call::{Answer, Call};
use crate::reply;
use bulkhead_engine::RemovedImage;
use serde_json::{Value, json};

pub async fn delete(call: Call) -> Answer {
    let force = call.query.flag("force");
    let removed = call.engine().remove_image(&call.session, &call.name, force).await?;
    let list: Vec<Value> = removed.iter().map(shape).collect();
    reply::ok(&list)
}

pub fn shape(removed: &RemovedImage) -> Value {
    match removed {
        RemovedImage::Untagged(name) => json!({ "Untagged": name }),
        RemovedImage::Deleted(id) => json!({ "Deleted": id }),
    }
}
