//! Reading request bodies: how much, of which kind, for how long.

use crate::call::Call;
use crate::error::ApiError;
use axum::body::Body;
use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// JSON bodies; the largest honest one carries a long environment.
const JSON_BYTES_MAX: usize = 1 << 20;
/// For a whole JSON body to arrive.
const JSON_DEADLINE: Duration = Duration::from_secs(30);

/// A JSON body, its media type checked.
pub async fn json(call: &mut Call) -> Result<Bytes, ApiError> {
    if !is_json(call.header(header::CONTENT_TYPE.as_str())) {
        let found = call.header(header::CONTENT_TYPE.as_str()).unwrap_or("none");
        return Err(ApiError::bad(format!(
            "malformed Content-Type header ({}): expected application/json",
            crate::query::clip(found)
        )));
    }
    small(std::mem::take(&mut call.body), JSON_BYTES_MAX).await
}

/// As [`json`], and nothing at all, of whatever kind.
pub async fn json_or_nothing(call: &mut Call) -> Result<Bytes, ApiError> {
    if is_json(call.header(header::CONTENT_TYPE.as_str())) {
        return json(call).await;
    }
    let body = small(std::mem::take(&mut call.body), JSON_BYTES_MAX).await?;
    match body.is_empty() {
        true => Ok(body),
        false => Err(ApiError::bad("malformed Content-Type header: expected application/json")),
    }
}

/// Takes a body that nobody wants, as far as it is small: a client that is answered while it still writes sees a broken
/// connection instead of the answer.
pub async fn discard(call: &mut Call) {
    let _ = small(std::mem::take(&mut call.body), JSON_BYTES_MAX).await;
}

fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

async fn small(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(JSON_DEADLINE, Limited::new(body, bytes_max).collect());
    match collected.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if is_too_long(error.as_ref()) => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is longer than {bytes_max} bytes"),
        )),
        Ok(Err(error)) => Err(ApiError::bad(format!("the request body could not be read: {error}"))),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the request body did not arrive within {} s", JSON_DEADLINE.as_secs()),
        )),
    }
}

fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Start takes no body, although very old clients sent a HostConfig: it would be silently ignored.
pub async fn none(call: &mut Call) -> Result<(), ApiError> {
    let body = small(std::mem::take(&mut call.body), JSON_BYTES_MAX).await?;
    let text = std::str::from_utf8(&body).unwrap_or("?").trim();
    if matches!(text, "" | "null" | "{}") {
        Ok(())
    } else {
        Err(ApiError::bad(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ))
    }
}

/// An archive, as a reader. Its size is limited by who unpacks it.
pub fn archive(call: &mut Call) -> impl AsyncRead + Send + Unpin + 'static {
    let stream = std::mem::take(&mut call.body).into_data_stream();
    StreamReader::new(TryStreamExt::map_err(stream, std::io::Error::other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn too_long_is_413() {
        assert!(small(Body::from(vec![0; 10]), 10).await.is_ok());
        assert_eq!(small(Body::from(vec![0; 11]), 10).await.unwrap_err().status, 413);
        let chunks =
            futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"x"))));
        assert_eq!(small(Body::from_stream(chunks), 10).await.unwrap_err().status, 413, "without a length");
    }

    #[test]
    fn media_types() {
        assert!(is_json(Some("application/json")));
        assert!(is_json(Some("Application/JSON; charset=utf-8")));
        assert!(!is_json(Some("text/plain")));
        assert!(!is_json(Some("application/jsonp")));
        assert!(!is_json(None));
    }
}
