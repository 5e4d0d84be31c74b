//! `GET /v1/fsck`: what does not fit together, on the host and in the database.

use crate::error::Problem;
use crate::state::AdminState;
use crate::view::FindingView;
use axum::extract::State;
use axum::{Extension, Json};
use bulkhead_model::Caller;

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<FindingView>>, Problem> {
    let found = state.engine.fsck(&caller).await?;
    let view = found.into_iter().map(|one| FindingView { kind: one.kind, of: one.of, what: one.what });
    Ok(Json(view.collect()))
}
