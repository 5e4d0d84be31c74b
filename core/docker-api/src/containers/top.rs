//! `GET /containers/{id}/top`: the processes, as `ps` with these arguments would list them.

use super::ps;
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use bulkhead_engine::EngineError;
use http::StatusCode;
use serde_json::json;

pub async fn get(call: Call) -> Answer {
    let layout = ps::Layout::parse(call.query.text("ps_args").unwrap_or("-ef"))?;
    let processes = match call.engine().processes(&call.session, &call.name).await {
        Ok(processes) => processes,
        Err(EngineError::NotRunning(id)) => {
            return Err(ApiError::new(StatusCode::CONFLICT, format!("container {id} is not running")));
        }
        Err(error) => return Err(error.into()),
    };
    let rows: Vec<Vec<String>> =
        processes.list.iter().map(|process| layout.row(&processes, process)).collect();
    reply::ok(&json!({ "Titles": layout.titles(), "Processes": rows }))
}
