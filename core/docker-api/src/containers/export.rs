//! `GET /containers/{id}/export`: the whole root as a tar archive.

use crate::call::{Answer, Call};
use crate::reply;
use axum::body::Body;
use http::{HeaderValue, StatusCode};

pub async fn get(call: Call) -> Answer {
    let pieces = call.engine().export(&call.session, &call.name).await?;
    let content_type = HeaderValue::from_static("application/octet-stream");
    Ok(reply::with_body(StatusCode::OK, content_type, Body::from_stream(pieces)))
}
