//! `POST /containers/{id}/resize`: how large the terminal is at the client.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::query::Query;
use crate::reply;
use bulkhead_engine::Size;
use http::StatusCode;

pub async fn post(call: Call) -> Answer {
    let size = size(&call.query)?;
    call.engine().resize(&call.session, &call.name, size).await?;
    reply::empty(StatusCode::OK)
}

/// `h` and `w`, in characters.
pub fn size(query: &Query) -> Result<Size, ApiError> {
    let number = |name: &str| {
        query
            .number::<u16>(name)?
            .ok_or_else(|| ApiError::bad(format!("`{name}` is missing: expected a size")))
    };
    Ok(Size { rows: number("h")?, columns: number("w")? })
}
