//! `POST /containers/{id}/rename`.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use bulkhead_engine::EngineError;
use http::StatusCode;

pub async fn post(call: Call) -> Answer {
    let name = call.query.text("name").map(|name| name.strip_prefix('/').unwrap_or(name));
    match name.filter(|name| !name.is_empty()) {
        None => Err(ApiError::bad("Neither old nor new names may be empty")),
        Some(name) => {
            let renamed = call.engine().rename(&call.session, &call.name, name).await;
            renamed.map_err(in_dockerd_s_words)?;
            reply::empty(StatusCode::NO_CONTENT)
        }
    }
}

fn in_dockerd_s_words(error: EngineError) -> ApiError {
    match error {
        EngineError::Invalid { what: "new name", .. } => {
            ApiError::bad("Renaming a container with the same name as its current name")
        }
        EngineError::NameInUse { .. } | EngineError::InvalidName(_) => {
            ApiError::from(error).while_doing("Error when allocating new name")
        }
        other => other.into(),
    }
}
