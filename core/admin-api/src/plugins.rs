//! `/v1/plugins`: what is installed. A plugin decides nothing until it is bound.

use crate::error::Problem;
use crate::state::AdminState;
use crate::view::PluginView;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use bulkhead_model::Caller;

/// What a component's bytes are sent as.
const COMPONENT: &str = "application/wasm";

/// `GET /v1/plugins`: all of them, by name, the newest of each name first.
pub(crate) async fn list(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<PluginView>>, Problem> {
    let all = state.engine.plugins(&caller).await?;
    Ok(Json(all.into_iter().map(PluginView::from).collect()))
}

/// `POST /v1/plugins`: the body is the component. Answers when it is compiled and has said what it is.
pub(crate) async fn install(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    component: Bytes,
) -> Result<(StatusCode, Json<PluginView>), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind != Some(COMPONENT) {
        return Err(Problem::invalid(format!("the body must be {COMPONENT}")));
    }
    let installed = state.engine.plugin_install(&caller, component.to_vec()).await?;
    Ok((StatusCode::CREATED, Json(installed.into())))
}

/// `GET /v1/plugins/{plugin}`: by name, digest, or the beginning of one.
pub(crate) async fn inspect(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(plugin): Path<String>,
) -> Result<Json<PluginView>, Problem> {
    Ok(Json(state.engine.plugin(&caller, &plugin).await?.into()))
}

/// `DELETE /v1/plugins/{plugin}`: refused while a binding has it.
pub(crate) async fn remove(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(plugin): Path<String>,
) -> Result<StatusCode, Problem> {
    state.engine.plugin_remove(&caller, &plugin).await?;
    Ok(StatusCode::NO_CONTENT)
}
