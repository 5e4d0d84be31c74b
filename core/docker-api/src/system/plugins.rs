//! `GET /plugins`: there are none of Docker's kind.

use crate::call::{Answer, Call};
use crate::filters::Filters;
use crate::reply;
use bulkhead_model::Action;

pub async fn get(call: Call) -> Answer {
    call.engine().authorize(&call.session, Action::SystemRead).await?;
    Filters::parse(&call.query, &["capability", "enabled"])?;
    reply::ok(&serde_json::json!([]))
}
