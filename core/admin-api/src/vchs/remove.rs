//! `DELETE /v1/vchs/{name}?force=true`: answers when the VCH and its listeners are gone.

use crate::error::Problem;
use crate::state::AdminState;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use bulkhead_model::Caller;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Its containers go too.
    #[serde(default)]
    force: bool,
}

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    parameters: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
) -> Result<StatusCode, Problem> {
    let Query(parameters) = parameters.map_err(|error| Problem::invalid(error.body_text()))?;
    let (vch, _) = state.engine.vch(&caller, &name).await?;
    state.engine.vch_remove(&caller, &name, parameters.force).await?;
    state.endpoints_follow(vch.id, false).await;
    Ok(StatusCode::NO_CONTENT)
}
