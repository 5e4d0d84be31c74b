//! `POST /containers/{id}/pause` and `…/unpause`: the machine's vCPUs stand still, and go on.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use bulkhead_engine::EngineError;
use http::StatusCode;

pub async fn pause(call: Call) -> Answer {
    match call.engine().pause(&call.session, &call.name).await {
        Ok(()) => reply::empty(StatusCode::NO_CONTENT),
        Err(EngineError::IsPaused(id)) => {
            Err(ApiError::new(StatusCode::CONFLICT, format!("container {id} is already paused")))
        }
        Err(error) => Err(error.into()),
    }
}

pub async fn unpause(call: Call) -> Answer {
    call.engine().unpause(&call.session, &call.name).await?;
    reply::empty(StatusCode::NO_CONTENT)
}
