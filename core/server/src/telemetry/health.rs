//! `/healthz`: the process answers. `/readyz`: it can do its work. `/metrics`.

use super::Metrics;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use bulkhead_machine::BackEnd;
use bulkhead_model::lifecycle::Status;
use bulkhead_policy::Decider;
use bulkhead_store::Store;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A probe that takes longer has failed.
const PROBE: Duration = Duration::from_secs(3);

/// What readiness depends on.
#[derive(Debug, Clone)]
pub struct Readiness {
    pub store: Store,
    pub policies: Arc<Decider>,
    pub back_end: BackEnd,
    pub metrics: Metrics,
}

pub fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(readiness)
}

async fn ready(State(this): State<Readiness>) -> impl IntoResponse {
    let database = match tokio::time::timeout(PROBE, this.store.ping()).await {
        Ok(Ok(())) => "ok".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    let back_end = match tokio::time::timeout(PROBE, this.back_end.machines.list()).await {
        Ok(Ok(_)) => "ok".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    let policies = this.policies.status();
    // Wrong files are an operator's business, not a reason to send clients away: the set in force still decides.
    let ready = database == "ok" && back_end == "ok" && policies.policies > 0;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": ready,
        "database": database,
        "back_end": back_end,
        "policies": policies.problem.as_deref().unwrap_or("ok"),
    });
    (status, Json(body))
}

async fn metrics(State(this): State<Readiness>) -> impl IntoResponse {
    if let Err(error) = refresh(&this).await {
        tracing::warn!(%error, "the number of containers cannot be read for the metrics");
    }
    this.metrics.set_policy_problem(this.policies.status().problem.is_some());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], this.metrics.render())
}

/// Counted when asked, from the database: nothing here can be out of step.
async fn refresh(this: &Readiness) -> Result<(), bulkhead_store::StoreError> {
    let vchs = this.store.vchs().await?;
    let mut counts = Vec::new();
    for vch in &vchs {
        let mut by_status = BTreeMap::from([("created", 0), ("starting", 0), ("running", 0), ("exited", 0)]);
        for container in this.store.containers(vch.id).await? {
            *by_status.entry(word(&container.status)).or_default() += 1;
        }
        counts.extend(by_status.into_iter().map(|(status, count)| (vch.name.to_string(), status, count)));
    }
    this.metrics.set_containers(vchs.len(), &counts);
    Ok(())
}

fn word(status: &Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Starting { .. } => "starting",
        Status::Running { .. } => "running",
        Status::Exited { .. } => "exited",
    }
}
