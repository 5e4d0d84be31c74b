//! `GET /v1/decisions/{id}`: the whole story of one decision.

use crate::error::Problem;
use crate::state::AdminState;
use crate::view::DecisionView;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use bulkhead_model::{Caller, Decision};

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<DecisionView>, Problem> {
    Ok(Json(view(state.engine.decision(&caller, &id).await?)))
}

pub(crate) fn view(decision: Decision) -> DecisionView {
    DecisionView {
        id: decision.id.to_string(),
        vch: decision.vch.to_string(),
        at: decision.at,
        action: decision.action,
        caller: decision.caller,
        resource: decision.resource,
        verdict: decision.verdict.as_str().into(),
        reasons: decision.reasons,
        policy_set: decision.policy_set,
        inputs: decision.inputs,
        plugins: decision.plugins,
        placement: decision.placement,
        took_us: decision.took_us,
    }
}
