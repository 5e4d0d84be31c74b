//! `GET /v1/vchs`: all VCHs, by name.

use super::view;
use crate::error::Problem;
use crate::state::AdminState;
use crate::view::VchView;
use axum::extract::State;
use axum::{Extension, Json};
use bulkhead_model::Caller;

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<VchView>>, Problem> {
    let all = state.engine.vchs(&caller).await?;
    let views = all.into_iter().map(|(vch, usage)| {
        let endpoints = state.endpoints_of(vch.id);
        view(vch, &usage, endpoints)
    });
    Ok(Json(views.collect()))
}
