//! `DELETE /volumes/{name}`: answered when its disk is gone.

use crate::call::{Answer, Call};
use crate::reply;
use http::StatusCode;

pub async fn delete(call: Call) -> Answer {
    call.engine().remove_volume(&call.session, &call.name, call.query.flag("force")).await?;
    reply::empty(StatusCode::NO_CONTENT)
}
