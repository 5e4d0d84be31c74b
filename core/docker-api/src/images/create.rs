//! `POST /images/create`: a pull or an import, told apart by the parameters.

use super::{import, pull};
use crate::call::{Answer, Call};
use crate::error::ApiError;

pub async fn post(call: Call) -> Answer {
    match (call.query.text("fromImage"), call.query.text("fromSrc")) {
        (Some(_), None) => pull::post(call).await,
        (None, Some("-")) => import::post(call).await,
        (None, Some(_)) => Err(ApiError::bad(
            "bulkhead: fromSrc with an address is not supported: fetch the archive and send it (fromSrc=-)",
        )),
        (Some(_), Some(_)) => Err(ApiError::bad("fromImage and fromSrc exclude each other")),
        (None, None) => Err(ApiError::bad("either fromImage or fromSrc is needed")),
    }
}
