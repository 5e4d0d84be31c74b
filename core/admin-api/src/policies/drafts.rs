//! `/v1/policies/drafts`: sets that somebody writes.

use super::{Tagged, activated, expected, if_match, tagged};
use crate::error::Problem;
use crate::extract::Body;
use crate::state::AdminState;
use crate::view::{
    ActivateAsk, ActivationView, DraftAsk, DraftCheckView, DraftView, PolicyProblemView, WhatIfAsk,
    WhatIfView,
};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use bulkhead_engine::{DraftFiles, EngineError, NewDraft, PolicyError, WhatIfQuery};
use bulkhead_model::{Caller, PolicyDraft};

/// A set of eight MiB, as JSON.
pub(crate) const BODY_BYTES_MAX: usize = 12 << 20;
const WHAT_IF_LIMIT: u32 = 10_000;

/// `GET /v1/policies/drafts`
pub(crate) async fn list(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<DraftView>>, Problem> {
    let all = state.engine.policy_drafts(&caller).await?;
    Ok(Json(all.into_iter().map(DraftView::listed).collect()))
}

/// `GET /v1/policies/drafts/{name}`: with its files; its revision is its entity tag.
pub(crate) async fn inspect(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Tagged<DraftView>, Problem> {
    Ok(view(state.engine.policy_draft(&caller, &name).await?))
}

/// `PUT /v1/policies/drafts/{name}`: makes it, or puts another in its place. With `If-Match`, only if it is the one that
/// is there; with `If-None-Match: *`, only if there is none.
pub(crate) async fn put(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(ask): Body<DraftAsk>,
) -> Result<Tagged<DraftView>, Problem> {
    let before = match headers.get(header::IF_NONE_MATCH) {
        None => if_match(&headers)?.flatten(),
        Some(value) if value == "*" => Some(0),
        Some(_) => return Err(Problem::invalid("If-None-Match: only `*` is taken here")),
    };
    let files = match (ask.files, ask.patch) {
        (Some(files), None) => DraftFiles::Whole(files),
        (None, Some(patch)) => DraftFiles::Patch(patch),
        _ => return Err(Problem::invalid("expected either `files` (all of them) or `patch`")),
    };
    let name = name.parse().map_err(|error| Problem::invalid(format!("{error}")))?;
    let new = NewDraft { base: ask.base, files };
    Ok(view(state.engine.policy_draft_put(&caller, name, new, before).await?))
}

/// `DELETE /v1/policies/drafts/{name}`
pub(crate) async fn remove(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    state.engine.policy_draft_remove(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/policies/drafts/{name}/check`: all that speaks against putting it in force. A draft that is wrong is a good
/// answer here.
pub(crate) async fn check(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<DraftCheckView>, Problem> {
    match state.engine.policy_draft_check(&caller, &name).await {
        Ok(check) => Ok(Json(check.into())),
        Err(EngineError::PoliciesRefused(error)) => Ok(Json(DraftCheckView {
            problem: Some(error.to_string()),
            problems: places(&error),
            ..DraftCheckView::default()
        })),
        Err(other) => Err(other.into()),
    }
}

/// `POST /v1/policies/drafts/{name}/activate`. With `If-Match`, only if that revision is in force (`*`: whichever is);
/// without, only if the draft was begun from what is in force.
pub(crate) async fn activate(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(ActivateAsk { comment, dry_run }): Body<ActivateAsk>,
) -> Result<Tagged<ActivationView>, Problem> {
    let expected = expected(&headers)?;
    let done = state.engine.policy_activate(&caller, &name, expected, &comment, dry_run).await?;
    Ok(activated(done, dry_run))
}

/// `POST /v1/policies/drafts/{name}/what-if`: which recorded decisions would come out the other way.
pub(crate) async fn what_if(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(WhatIfAsk { since, limit }): Body<WhatIfAsk>,
) -> Result<Json<WhatIfView>, Problem> {
    let query = WhatIfQuery { since, limit: limit.unwrap_or(WHAT_IF_LIMIT) };
    Ok(Json(state.engine.policy_what_if(&caller, &name, query).await?.into()))
}

fn view(draft: PolicyDraft) -> Tagged<DraftView> {
    tagged(draft.revision, draft.into())
}

pub(crate) fn places(error: &PolicyError) -> Vec<PolicyProblemView> {
    match error {
        PolicyError::Invalid(problems) => problems.iter().map(Into::into).collect(),
        _ => Vec::new(),
    }
}
