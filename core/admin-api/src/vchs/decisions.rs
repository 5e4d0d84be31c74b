//! `GET /v1/vchs/{name}/decisions?limit=`: the latest decisions of a VCH, newest first.

use crate::decisions::view;
use crate::error::Problem;
use crate::state::AdminState;
use crate::view::DecisionView;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use bulkhead_model::Caller;
use serde::Deserialize;

const LIMIT_MAX: u32 = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    #[serde(default = "limit_default")]
    limit: u32,
}

fn limit_default() -> u32 {
    50
}

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    parameters: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<DecisionView>>, Problem> {
    let Query(parameters) = parameters.map_err(|error| Problem::invalid(error.body_text()))?;
    let decisions = state.engine.decisions(&caller, &name, parameters.limit.clamp(1, LIMIT_MAX)).await?;
    Ok(Json(decisions.into_iter().map(view).collect()))
}
