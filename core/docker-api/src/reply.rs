//! Answers.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::convert::Infallible;

/// Exactly this: Go's client compares the string, and shows raw JSON otherwise.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let bytes = serde_json::to_vec(value).map_err(|error| ApiError::internal(&error))?;
    Ok(with_body(status, JSON, Body::from(bytes)))
}

pub fn ok<T: Serialize>(value: &T) -> Answer {
    json(StatusCode::OK, value)
}

/// Without a body, as 204 and 304 must be.
pub fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Ok(response)
}

pub fn error(error: &ApiError) -> Response {
    // Only a string in it: this cannot fail.
    let bytes = serde_json::to_vec(&serde_json::json!({ "message": error.message })).unwrap_or_default();
    with_body(error.status, JSON, Body::from(bytes))
}

pub fn with_body(status: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A chunked answer whose headers leave at once, each item in a chunk of its own. It ends when the server stops.
pub fn stream(
    call: &Call,
    content_type: HeaderValue,
    items: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    let items = until_stop(call, items).map(Ok::<_, Infallible>);
    with_body(StatusCode::OK, content_type, Body::from_stream(items))
}

pub fn until_stop<T>(call: &Call, items: impl Stream<Item = T> + Send + 'static) -> BoxStream<'static, T> {
    items.take_until(call.state.stop.clone().cancelled_owned()).boxed()
}

/// One item of a JSON stream, with the CRLF that Docker's clients split at.
pub fn line<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// An error after the first byte: both fields, for old clients and new.
pub fn error_line(error: &ApiError) -> Bytes {
    line(&serde_json::json!({
        "errorDetail": { "code": error.status.as_u16(), "message": error.message },
        "error": error.message,
    }))
}
