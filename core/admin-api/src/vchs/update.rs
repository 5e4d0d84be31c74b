//! `PATCH /v1/vchs/{name}`: sets a VCH to something else. Answers when its listeners have followed.

use super::{settings, view};
use crate::error::Problem;
use crate::extract::Body;
use crate::state::AdminState;
use crate::view::{VchPatch, VchView};
use axum::extract::{Path, State};
use axum::{Extension, Json};
use bulkhead_model::Caller;

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(patch): Body<VchPatch>,
) -> Result<Json<VchView>, Problem> {
    let (before, _) = state.engine.vch(&caller, &name).await?;
    let wanted = patch.applied(&before.settings);
    let wanted = wanted.map_err(|error| Problem::invalid(format!("invalid settings: {error}")))?;
    settings::check(&wanted)?;
    settings::check_addresses_free(&state, Some(before.id), &wanted).await?;
    let listeners = state.endpoints_now();
    let vch = state.engine.vch_update(&caller, &before, wanted).await?;
    AdminState::endpoints_changed(listeners, &vch).await;
    let (_, usage) = state.engine.vch(&caller, &name).await?;
    let endpoints = state.endpoints_of(vch.id);
    Ok(Json(view(vch, &usage, endpoints)))
}
