//! `GET /volumes/{name}`.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::query::clip;
use bulkhead_model::Action;

pub async fn get(call: Call) -> Answer {
    call.engine().authorize(&call.session, Action::VolumeList).await?;
    Err(ApiError::not_found(format!("get {}: no such volume", clip(&call.name))))
}
