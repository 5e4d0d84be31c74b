//! `GET /v1/policies/status`: which policies are in force, and whether the files are newer but wrong.

use crate::state::AdminState;
use crate::view::PolicyStatusView;
use axum::Json;
use axum::extract::State;

pub(crate) async fn handle(State(state): State<AdminState>) -> Json<PolicyStatusView> {
    Json((state.policies)())
}
