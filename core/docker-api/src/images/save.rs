//! `GET /images/{name}/get` and `GET /images/get?names=`.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use axum::body::Body;
use http::{HeaderValue, StatusCode};
use tokio_util::io::ReaderStream;

const CHUNK_BYTES: usize = 64 << 10;

pub async fn one(call: Call) -> Answer {
    let names = vec![call.name.clone()];
    save(call, names).await
}

pub async fn many(call: Call) -> Answer {
    let names = call.query.all("names");
    if names.is_empty() {
        return Err(ApiError::bad("no images were named (names=)"));
    }
    save(call, names).await
}

async fn save(call: Call, names: Vec<String>) -> Answer {
    let archive = call.engine().save(&call.session, names).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(archive, CHUNK_BYTES));
    Ok(reply::with_body(StatusCode::OK, HeaderValue::from_static("application/x-tar"), body))
}
