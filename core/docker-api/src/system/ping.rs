//! `GET` and `HEAD /_ping`: how clients find out which version to speak. Nobody needs rights for it.

use crate::call::{Answer, Call};
use crate::reply;
use axum::body::Body;
use http::{HeaderValue, StatusCode, header};

pub async fn get(_call: Call) -> Answer {
    answer(Body::from("OK"))
}

/// Without a length: some clients wait for as many bytes, although there are none.
pub async fn head(_call: Call) -> Answer {
    answer(Body::empty())
}

fn answer(body: Body) -> Answer {
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = reply::with_body(StatusCode::OK, text, body);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    Ok(response)
}
