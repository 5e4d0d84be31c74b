//! `POST /images/{name}/tag`.

use super::import::name;
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use http::StatusCode;

pub async fn post(call: Call) -> Answer {
    let reference = name(call.query.text("repo"), call.query.text("tag"))?
        .ok_or_else(|| ApiError::bad("invalid reference format: `repo` is empty"))?;
    call.engine().tag(&call.session, &call.name, reference).await?;
    reply::empty(StatusCode::CREATED)
}
