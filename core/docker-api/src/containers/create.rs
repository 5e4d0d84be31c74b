//! `POST /containers/create`.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::query::clip;
use crate::{body, create, reply};
use bulkhead_engine::EngineError;
use http::StatusCode;
use serde_json::json;

pub async fn post(mut call: Call) -> Answer {
    let bytes = body::json(&mut call).await?;
    let request = create::read(&bytes)?;
    if let Some(platform) = call.query.text("platform")
        && !is_own(platform)
    {
        return Err(ApiError::not_found(format!(
            "image with reference {} was found but does not match the specified platform: wanted {}, actual: linux/amd64",
            clip(&request.ask.image),
            clip(platform)
        )));
    }
    let name = call.query.text("name").map(|name| name.trim_start_matches('/').to_owned());
    let created = call.engine().create(&call.session, name, request.ask, request.view).await;
    // Clients take every 404 for an image to be pulled; this is one that mounts are to come from.
    let created = created.map_err(|error| match error {
        EngineError::NoSuchContainer(_) => ApiError::bad(ApiError::from(error).message),
        error => error.into(),
    })?;
    let warnings = request.warnings;
    reply::json(StatusCode::CREATED, &json!({ "Id": created.id, "Warnings": warnings }))
}

fn is_own(platform: &str) -> bool {
    matches!(
        platform.to_ascii_lowercase().as_str(),
        "linux" | "linux/amd64" | "linux/x86_64" | "linux/x86-64"
    )
}
