//! `GET /v1/policies/status`: which policies are in force, and whether the folder is newer but wrong.

use super::{Tagged, tagged};
use crate::state::AdminState;
use crate::view::PolicyStatusView;
use axum::extract::State;

/// Its entity tag is what `If-Match` wants of those who put other policies in force.
pub(crate) async fn handle(State(state): State<AdminState>) -> Tagged<PolicyStatusView> {
    let status = (state.policies)();
    tagged(status.revision, status)
}
