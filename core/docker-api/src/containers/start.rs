//! `POST /containers/{id}/start`: answered when the process runs, or could not be started.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::{body, reply};
use bulkhead_engine::{Changed, EngineError};
use http::StatusCode;

pub async fn post(mut call: Call) -> Answer {
    body::none(&mut call).await?;
    match call.engine().start_container(&call.session, &call.name).await {
        Ok(Changed::Done) => reply::empty(StatusCode::NO_CONTENT),
        // Also what is being stopped has not stopped yet.
        Ok(Changed::AlreadySo) | Err(EngineError::IsRunning(_)) => reply::empty(StatusCode::NOT_MODIFIED),
        Err(EngineError::IsPaused(_)) => {
            Err(ApiError::new(StatusCode::CONFLICT, "cannot start a paused container, try unpause instead"))
        }
        Err(error) => Err(error.into()),
    }
}
