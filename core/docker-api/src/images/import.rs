//! `POST /images/create?fromSrc=-`: a file tree in a tar archive becomes an image of one layer.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::{body, reply};
use bulkhead_model::Reference;
use http::StatusCode;
use serde_json::json;

pub async fn post(mut call: Call) -> Answer {
    let reference = name(call.query.text("repo"), call.query.text("tag"))?;
    let message = call.query.text("message").unwrap_or_default().to_owned();
    let changes = call.query.all("changes");
    if let Some(platform) = call.query.text("platform")
        && !matches!(platform, "linux" | "linux/amd64")
    {
        return Err(ApiError::bad("bulkhead: platform is not supported here: images are for linux/amd64"));
    }
    let archive = body::archive(&mut call);
    let id = call.engine().import(&call.session, archive, reference, message, changes).await?;
    let line = reply::line(&json!({ "status": id }));
    Ok(reply::with_body(StatusCode::OK, reply::JSON, line.into()))
}

/// A name for an image: `repo` may hold the tag itself; no digest.
pub fn name(repository: Option<&str>, tag: Option<&str>) -> Result<Option<Reference>, ApiError> {
    let Some(repository) = repository else { return Ok(None) };
    let mut reference: Reference = repository.parse().map_err(|error| ApiError::bad(format!("{error}")))?;
    if let Some(tag) = tag {
        let text = format!("{}:{tag}", reference.full_name());
        reference = text.parse().map_err(|error| ApiError::bad(format!("{error}")))?;
    }
    if reference.digest.is_some() {
        return Err(ApiError::bad("refusing to create a tag with a digest reference"));
    }
    Ok(Some(reference.or_latest()))
}
