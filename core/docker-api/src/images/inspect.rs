//! `GET /images/{name}/json`.

use super::shape;
use crate::call::{Answer, Call};
use crate::reply;

pub async fn get(call: Call) -> Answer {
    let image = call.engine().image(&call.session, &call.name).await?;
    reply::ok(&shape::details(&image, call.version))
}
