//! `POST /containers/{id}/kill`: a signal to the process.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use bulkhead_engine::EngineError;
use bulkhead_model::container::Signal;
use http::StatusCode;

pub async fn post(call: Call) -> Answer {
    let signal = call.query.text("signal").map_or(Ok(Signal::KILL), signal)?;
    match call.engine().kill(&call.session, &call.name, signal).await {
        Ok(()) => reply::empty(StatusCode::NO_CONTENT),
        // In these words: the CLI's signal proxy and compose look for them.
        Err(error @ (EngineError::NotRunning(_) | EngineError::NoSuchContainer(_))) => {
            Err(ApiError::from(error).while_doing(&format!("cannot kill container: {}", call.name)))
        }
        Err(error) => Err(error.into()),
    }
}

pub fn signal(text: &str) -> Result<Signal, ApiError> {
    Signal::parse(text).map_err(|error| ApiError::bad(error.to_string()))
}
