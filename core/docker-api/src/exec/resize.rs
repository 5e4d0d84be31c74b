//! `POST /exec/{id}/resize`.

use crate::call::{Answer, Call};
use crate::containers::resize::size;
use crate::reply;
use http::StatusCode;

pub async fn post(call: Call) -> Answer {
    let size = size(&call.query)?;
    call.engine().exec_resize(&call.session, &call.name, size).await?;
    reply::empty(StatusCode::OK)
}
