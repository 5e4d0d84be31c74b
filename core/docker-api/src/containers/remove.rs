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
        Err(EngineError::IsRunning(id)) => {
            // By name, as dockerd does, however it was called in the request.
            let shown = match call.engine().container(&call.session, id.as_str()).await {
                Ok(container) => format!("/{}", container.name),
                Err(_) => call.name,
            };
            Err(ApiError::new(
                StatusCode::CONFLICT,
                format!(
                    "cannot remove container \"{shown}\": container is running: \
                     stop the container before removing or force remove"
                ),
            ))
        }
        Err(error) => Err(error.into()),
    }
}
