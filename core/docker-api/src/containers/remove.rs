//! `DELETE /containers/{id}`: answered when it is gone. `v` needs nothing done: an image's volumes lie on the
//! container's own disk.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use bulkhead_engine::EngineError;
use http::StatusCode;

pub async fn delete(call: Call) -> Answer {
    if call.query.flag("link") {
        return Err(ApiError::bad("bulkhead: link is not supported: there are no links"));
    }
    match call.engine().remove(&call.session, &call.name, call.query.flag("force")).await {
        Ok(()) => reply::empty(StatusCode::NO_CONTENT),
        Err(EngineError::IsRunning(_)) => Err(ApiError::new(
            StatusCode::CONFLICT,
            format!(
                "cannot remove container \"{}\": container is running: \
                 stop the container before removing or force remove",
                call.name
            ),
        )),
        Err(error) => Err(error.into()),
    }
}
