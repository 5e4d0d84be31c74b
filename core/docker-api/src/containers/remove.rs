//! `DELETE /containers/{id}`: answered when it is gone. With `v` volumes that nobody named go, too.

use super::shape::State;
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use bulkhead_engine::EngineError;
use http::StatusCode;

/// `docker rm --link web/db`: names what links had in dockerd; the parameter that goes with it is refused.
pub async fn delete_link(_: Call) -> Answer {
    Err(ApiError::page_not_found())
}

pub async fn delete(call: Call) -> Answer {
    let (force, volumes) = (call.query.flag("force"), call.query.flag("v"));
    match call.engine().remove(&call.session, &call.name, force, volumes).await {
        Ok(()) => reply::empty(StatusCode::NO_CONTENT),
        Err(EngineError::IsRunning(id)) => {
            // By name, as dockerd does, however it was called in the request.
            let (shown, state) = match call.engine().container(&call.session, id.as_str()).await {
                Ok(container) => (format!("/{}", container.name), State::of(&container)),
                Err(_) => (call.name, State::Running),
            };
            let why = match state {
                State::Paused => "paused and must be unpaused first",
                State::Restarting => "restarting: stop the container before removing or force remove",
                State::Created | State::Running | State::Removing | State::Exited => {
                    "running: stop the container before removing or force remove"
                }
            };
            let text = format!("cannot remove container \"{shown}\": container is {why}");
            Err(ApiError::new(StatusCode::CONFLICT, text))
        }
        Err(error) => Err(error.into()),
    }
}
