//! `POST /containers/{id}/restart`: answered when it runs again. A client that leaves does not call it off.

use super::kill::signal;
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use bulkhead_engine::EngineError;
use http::StatusCode;

pub async fn post(call: Call) -> Answer {
    // Seconds before the kill; below 0 never kills.
    let timeout_s: Option<i64> = call.query.number("t")?;
    let signal = call.query.text("signal").map(signal).transpose()?;
    match call.engine().restart(&call.session, &call.name, signal, timeout_s).await {
        Ok(()) => reply::empty(StatusCode::NO_CONTENT),
        Err(EngineError::StartFailed { message, .. }) => {
            Err(ApiError::bad(format!("Cannot restart container {}: {message}", call.name)))
        }
        Err(error) => Err(error.into()),
    }
}
