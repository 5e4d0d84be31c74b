//! `POST /containers/{id}/stop`: answered when it has stopped. A client that leaves does not call it off.

use super::kill::signal;
use crate::call::{Answer, Call};
use crate::reply;
use bulkhead_engine::Changed;
use http::StatusCode;

pub async fn post(call: Call) -> Answer {
    // Seconds; below 0 never kills.
    let timeout_s: Option<i64> = call.query.number("t")?;
    let signal = call.query.text("signal").map(signal).transpose()?;
    match call.engine().stop(&call.session, &call.name, signal, timeout_s).await? {
        Changed::Done => reply::empty(StatusCode::NO_CONTENT),
        Changed::AlreadySo => reply::empty(StatusCode::NOT_MODIFIED),
    }
}
