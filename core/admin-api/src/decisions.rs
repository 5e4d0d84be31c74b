//! `/v1/decisions`: what was decided, the whole story of one, and whether it is decided so again.

use crate::error::Problem;
use crate::state::AdminState;
use crate::view::{DecisionView, Page, ReplayView};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use bulkhead_engine::DecisionFilter;
use bulkhead_model::{Caller, Decision, DecisionId, Verdict};
use chrono::{DateTime, Utc};
use serde::Deserialize;

const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 1000;

/// What is left out does not matter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    vch: Option<String>,
    verdict: Option<Verdict>,
    action: Option<String>,
    caller: Option<String>,
    /// As in RFC 3339: from this time on.
    since: Option<DateTime<Utc>>,
    /// Before this time.
    until: Option<DateTime<Utc>>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /v1/decisions`: the newest first, page by page.
pub(crate) async fn list(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Page<DecisionView>>, Problem> {
    let Query(asked) = parameters.map_err(|error| Problem::invalid(error.body_text()))?;
    let limit = asked.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let filter = DecisionFilter {
        vch: None,
        verdict: asked.verdict,
        action: asked.action,
        caller: asked.caller,
        since: asked.since,
        until: asked.until,
        after: asked.cursor.as_deref().map(parse_cursor).transpose()?,
    };
    let found = state.engine.decisions_matching(&caller, asked.vch.as_deref(), filter, limit).await?;
    let full = found.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = found.last().filter(|_| full).map(cursor);
    Ok(Json(Page { next, items: found.into_iter().map(view).collect() }))
}

/// The place after a decision: its time in microseconds and its id.
fn cursor(last: &Decision) -> String {
    format!("{}.{}", last.at.timestamp_micros(), last.id)
}

fn parse_cursor(text: &str) -> Result<(DateTime<Utc>, DecisionId), Problem> {
    let parsed = text
        .split_once('.')
        .and_then(|(at, id)| Some((DateTime::from_timestamp_micros(at.parse().ok()?)?, id.parse().ok()?)));
    let shown: String = text.chars().take(40).collect();
    parsed.ok_or_else(|| Problem::invalid(format!("cursor: `{shown}` is none of this list")))
}

/// `GET /v1/decisions/{id}`
pub(crate) async fn inspect(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<DecisionView>, Problem> {
    Ok(Json(view(state.engine.decision(&caller, &id).await?)))
}

/// `POST /v1/decisions/{id}/replay`: what the policies that were in force say of the recorded inputs. Changes nothing.
pub(crate) async fn replay(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<ReplayView>, Problem> {
    Ok(Json(state.engine.decision_replay(&caller, &id).await?.into()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_text_and_strangers_are_refused() {
        let id = DecisionId::new(1_700_000_000_000, 5);
        let at = DateTime::from_timestamp_micros(1_700_000_000_000_123).unwrap();
        assert_eq!(parse_cursor(&format!("{}.{id}", at.timestamp_micros())).unwrap(), (at, id));
        for bad in ["", "1", "x.d-0", "1.d-0", "99999999999999999999.d-00000000000000000000"] {
            assert_eq!(parse_cursor(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
