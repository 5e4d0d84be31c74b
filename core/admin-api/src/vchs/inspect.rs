//! `GET /v1/vchs/{name}`.

use super::view;
use crate::error::Problem;
use crate::state::AdminState;
use crate::view::VchView;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use bulkhead_model::Caller;

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<VchView>, Problem> {
    let (vch, usage) = state.engine.vch(&caller, &name).await?;
    let endpoints = state.endpoints_of(vch.id);
    Ok(Json(view(vch, &usage, endpoints)))
}
