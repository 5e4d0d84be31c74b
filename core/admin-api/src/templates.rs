//! `/v1/templates`: what machines are cloned from.

use crate::error::Problem;
use crate::extract::Body;
use crate::state::AdminState;
use crate::view::{TemplateAsk, TemplateView};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bulkhead_model::Caller;

/// `GET /v1/templates`: all of them, by name.
pub(crate) async fn list(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<TemplateView>>, Problem> {
    let all = state.engine.templates(&caller).await?;
    Ok(Json(all.into_iter().map(TemplateView::from).collect()))
}

/// `POST /v1/templates`: answers when it is there, made or found.
pub(crate) async fn build(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Body(ask): Body<TemplateAsk>,
) -> Result<(StatusCode, Json<TemplateView>), Problem> {
    let built = state.engine.template_build(&caller, ask.vcpus, ask.memory_bytes).await?;
    Ok((StatusCode::CREATED, Json(built.into())))
}

/// `DELETE /v1/templates/{name}`: machines that were cloned from it go on.
pub(crate) async fn remove(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    state.engine.template_remove(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
