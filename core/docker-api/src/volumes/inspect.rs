//! `GET /volumes/{name}`.

use super::shape;
use crate::call::{Answer, Call};
use crate::reply;

pub async fn get(call: Call) -> Answer {
    let volume = call.engine().volume(&call.session, &call.name).await?;
    reply::ok(&shape::volume(&volume))
}
