//! `POST /containers/{id}/wait`: headers at once, the exit code when there is one.
//!
//! `docker run` waits for these headers before it starts the container, so the wait is registered first.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::query::clip;
use crate::reply;
use axum::body::Body;
use bulkhead_engine::{EngineError, WaitFor};
use bulkhead_model::lifecycle::Exit;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use serde_json::json;

pub async fn post(call: Call) -> Answer {
    let what = match call.query.text("condition") {
        None | Some("not-running") => WaitFor::NotRunning,
        Some("next-exit") => WaitFor::NextExit,
        Some("removed") => WaitFor::Removed,
        Some(other) => return Err(ApiError::bad(format!("invalid condition: \"{}\"", clip(other)))),
    };
    // Only who asks afterwards: who waits for a start is told by it, and would print the reason twice.
    let told = what == WaitFor::NotRunning;
    let waiting = call.engine().wait(&call.session, &call.name, what).await?;
    let stop = call.state.stop.clone();
    let body = stream::once(async move {
        tokio::select! {
            done = waiting.done() => Ok(result(done, told)),
            // Broken off rather than ended: an ended body would read as an answer.
            () = stop.cancelled() => Err(std::io::Error::other("the server is stopping")),
        }
    });
    Ok(reply::with_body(StatusCode::OK, reply::JSON, Body::from_stream(body)))
}

fn result(done: Result<Exit, EngineError>, told: bool) -> Bytes {
    let value = match done {
        // A container that could not be started tells so, as it does to who starts it.
        Ok(Exit { code, error: Some(message), started_at: None, .. }) if told => {
            json!({ "StatusCode": code, "Error": { "Message": message } })
        }
        Ok(exit) => json!({ "StatusCode": exit.code }),
        Err(error) => json!({ "StatusCode": -1, "Error": { "Message": ApiError::from(error).message } }),
    };
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes.into()
}
