//! `/v1/policies/revisions`: sets that are or were in force.

use super::{Tagged, activated, expected, limit, number, short, view};
use crate::error::Problem;
use crate::extract::Body;
use crate::state::AdminState;
use crate::view::{ActivateAsk, ActivationView, Page, RevisionDifferenceView, RevisionView};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use bulkhead_model::Caller;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /v1/policies/revisions?limit=&cursor=`: the newest first.
pub(crate) async fn list(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Page<RevisionView>>, Problem> {
    let Query(Parameters { limit: asked, cursor }) =
        parameters.map_err(|error| Problem::invalid(error.body_text()))?;
    let before = cursor.map(|text| {
        text.parse().map_err(|_| Problem::invalid(format!("cursor: `{}` is none of this list", short(&text))))
    });
    let limit = limit(asked);
    let items = state.engine.policy_revisions(&caller, before.transpose()?, limit).await?;
    let full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let last = items.last().filter(|last| full && last.number > 1);
    let next = last.map(|last| last.number.to_string());
    Ok(Json(Page { next, items: items.into_iter().map(RevisionView::listed).collect() }))
}

/// `GET /v1/policies/revisions/{number}`: with its files.
pub(crate) async fn inspect(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(revision): Path<String>,
) -> Result<Tagged<RevisionView>, Problem> {
    Ok(view(state.engine.policy_revision(&caller, number(&revision)?).await?))
}

/// `GET /v1/policies/revisions/{from}/diff/{to}`
pub(crate) async fn diff(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path((from, to)): Path<(String, String)>,
) -> Result<Json<RevisionDifferenceView>, Problem> {
    Ok(Json(state.engine.policy_diff(&caller, number(&from)?, number(&to)?).await?.into()))
}

/// `POST /v1/policies/revisions/{number}/rollback`: puts its files in force again, as a new revision. With `If-Match`,
/// only if that revision is in force.
pub(crate) async fn rollback(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(revision): Path<String>,
    headers: HeaderMap,
    Body(ActivateAsk { comment, dry_run }): Body<ActivateAsk>,
) -> Result<Tagged<ActivationView>, Problem> {
    let (number, expected) = (number(&revision)?, expected(&headers)?);
    let done = state.engine.policy_rollback(&caller, number, expected, &comment, dry_run).await?;
    Ok(activated(done, dry_run))
}
