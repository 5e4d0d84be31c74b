//! `/v1/bindings`: which plugin has a say where, and how it is set.

use crate::error::Problem;
use crate::extract::Body;
use crate::state::AdminState;
use crate::view::{BindingAsk, BindingView, ScopeView};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse};
use axum::{Extension, Json};
use bulkhead_engine::{NewBinding, NewScope};
use bulkhead_model::Caller;
use bulkhead_model::plugin::Binding;

/// `GET /v1/bindings`: all of them, in the order in which they are asked.
pub(crate) async fn list(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<BindingView>>, Problem> {
    let all = state.engine.bindings(&caller).await?;
    Ok(Json(all.into_iter().map(BindingView::from).collect()))
}

/// `GET /v1/bindings/{name}`; its revision is its entity tag.
pub(crate) async fn inspect(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    Ok(tagged(state.engine.binding(&caller, &name).await?))
}

/// `PUT /v1/bindings/{name}`: makes it, or puts another in its place. With `If-Match`, only if it is the one that is
/// there; with `If-None-Match: *`, only if there is none.
pub(crate) async fn put(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(ask): Body<BindingAsk>,
) -> Result<impl IntoResponse, Problem> {
    let before = expected(&headers)?;
    let name = name.parse().map_err(|error| Problem::invalid(format!("{error}")))?;
    let new = NewBinding {
        plugin: ask.plugin,
        scope: match ask.scope {
            ScopeView::Everywhere => NewScope::Everywhere,
            ScopeView::Class(class) => NewScope::Class(class),
            ScopeView::Vch(name) => NewScope::Vch(name),
        },
        position: ask.position,
        mode: ask.mode,
        on_failure: ask.on_failure,
        settings: ask.settings,
    };
    Ok(tagged(state.engine.binding_put(&caller, name, new, before).await?))
}

/// `DELETE /v1/bindings/{name}`: from the next request on.
pub(crate) async fn remove(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    state.engine.binding_remove(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn tagged(binding: Binding) -> (AppendHeaders<[(HeaderName, String); 1]>, Json<BindingView>) {
    (AppendHeaders([(header::ETAG, format!("\"{}\"", binding.revision))]), Json(binding.into()))
}

/// The revision that the binding must have; 0: there must be none; `None`: it does not matter.
fn expected(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    match headers.get(header::IF_NONE_MATCH) {
        None => {}
        Some(value) if value == "*" => return Ok(Some(0)),
        Some(_) => return Err(Problem::invalid("If-None-Match: only `*` is taken here")),
    }
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = value.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    tag.map(Some)
        .ok_or_else(|| Problem::invalid("If-Match: expected the entity tag of a binding, as `\"3\"`"))
}
