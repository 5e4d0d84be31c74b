//! `/v1/machines`: what runs, what it takes of the host, and how its start went.

use crate::error::Problem;
use crate::state::AdminState;
use crate::view::MachineView;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use bulkhead_model::Caller;

/// `GET /v1/machines`: all that run, by VCH and name.
pub(crate) async fn list(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<MachineView>>, Problem> {
    let all = state.engine.machines(&caller).await?;
    Ok(Json(all.into_iter().map(MachineView::from).collect()))
}

/// `GET /v1/machines/{container}`: by the container's id, name, or an id's beginning.
pub(crate) async fn inspect(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(container): Path<String>,
) -> Result<Json<MachineView>, Problem> {
    Ok(Json(state.engine.machine(&caller, &container).await?.into()))
}
