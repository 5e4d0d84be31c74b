//! `POST /containers/create`.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::query::clip;
use crate::version::ApiVersion;
use crate::{body, create, reply};
use bulkhead_engine::{ClientView, EngineError};
use http::StatusCode;
use serde_json::json;

pub async fn post(mut call: Call) -> Answer {
    let bytes = body::json(&mut call).await?;
    let request = create::read(&bytes)?;
    check_networks(&request, call.version)?;
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
    let view = ClientView { value: request.view, amend: create::amend };
    let created = call.engine().create(&call.session, name, request.ask, view).await;
    // Clients take every 404 for an image to be pulled; this is one that mounts are to come from.
    let created = created.map_err(|error| match error {
        EngineError::NoSuchContainer(_) => ApiError::bad(ApiError::from(error).message),
        error => error.into(),
    })?;
    let warnings: Vec<String> = request.warnings.into_iter().chain(created.warnings).collect();
    reply::json(StatusCode::CREATED, &json!({ "Id": created.id, "Warnings": warnings }))
}

/// Until API 1.44 a container is made on one network, and connected to others afterwards.
fn check_networks(request: &create::CreateRequest, version: ApiVersion) -> Result<(), ApiError> {
    let asked = &request.networks_named;
    if version.since(44) || asked.len() < 2 {
        return Ok(());
    }
    Err(ApiError::bad(format!(
        "Container cannot be created with multiple network endpoints: {}",
        clip(&asked.join(", "))
    )))
}

fn is_own(platform: &str) -> bool {
    matches!(
        platform.to_ascii_lowercase().as_str(),
        "linux" | "linux/amd64" | "linux/x86_64" | "linux/x86-64"
    )
}
