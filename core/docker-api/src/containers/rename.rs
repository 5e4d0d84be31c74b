//! `POST /containers/{id}/rename`.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use http::StatusCode;

pub async fn post(call: Call) -> Answer {
    let name = call.query.text("name").map(|name| name.strip_prefix('/').unwrap_or(name));
    match name.filter(|name| !name.is_empty()) {
        None => Err(ApiError::bad("Neither old nor new names may be empty")),
        Some(name) => {
            call.engine().rename(&call.session, &call.name, name).await?;
            reply::empty(StatusCode::NO_CONTENT)
        }
    }
}
