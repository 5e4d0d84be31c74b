//! Request bodies, with problem documents for what is wrong with them.

use crate::error::Problem;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;

/// A JSON body. The content type must say so: a browser cannot send that across origins unasked.
pub(crate) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            return Err(Problem::invalid("the body must be application/json"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| Problem {
            status: error.status().as_u16(),
            ..Problem::invalid(error.body_text())
        })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Problem::invalid(format!("invalid body: {error}")))
    }
}
