//! A span and a log line for each request, and its place in the figures.
//!
//! **Invariant:** never a header's value, a query or a body: those may hold secrets.

use super::Metrics;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bulkhead_model::Caller;
use std::time::Instant;
use tracing::Instrument as _;

/// What the requests of one listener are called.
#[derive(Debug, Clone)]
pub struct Observed {
    pub listener: String,
    pub metrics: Metrics,
}

/// Counts a request as ended, also when its client goes away in the middle.
struct Open {
    observed: Observed,
    began: Instant,
    method: String,
    endpoint: String,
    status: Option<u16>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // 499: what other servers, too, call a client that closed the connection.
        let status = self.status.unwrap_or(499);
        let took = self.began.elapsed();
        self.observed.metrics.request_ended(
            &self.observed.listener,
            &self.method,
            &self.endpoint,
            status,
            took,
        );
    }
}

/// A middleware; goes around all routes of a listener.
pub async fn observe(State(observed): State<Observed>, request: Request, next: Next) -> Response {
    let method = method_name(request.method());
    let endpoint = request.extensions().get::<MatchedPath>().map(|matched| matched.as_str().to_owned());
    let endpoint = endpoint.unwrap_or_else(|| endpoint_of(request.uri().path()));
    let path: String = request.uri().path().chars().take(200).collect();
    let caller = request.extensions().get::<Caller>().map(ToString::to_string).unwrap_or_default();
    let span = tracing::info_span!("request", listener = %observed.listener, %caller, method, path);
    observed.metrics.request_began(&observed.listener);
    let mut open = Open { observed, began: Instant::now(), method: method.into(), endpoint, status: None };
    async move {
        let response = next.run(request).await;
        open.status = Some(response.status().as_u16());
        let (status, ms) = (response.status().as_u16(), open.began.elapsed().as_millis());
        if open.endpoint.ends_with("/_ping") || open.observed.listener == "telemetry" {
            tracing::debug!(status, ms, "answered");
        } else {
            tracing::info!(status, ms, "answered");
        }
        response
    }
    .instrument(span)
    .await
}

/// Clients may send any word as a method; the figures know few.
fn method_name(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Words of Docker's routes; every other part of a path is a name or an id.
const WORDS: &[&str] = &[
    "_ping",
    "attach",
    "auth",
    "build",
    "commit",
    "containers",
    "create",
    "df",
    "distribution",
    "events",
    "exec",
    "get",
    "history",
    "images",
    "import",
    "info",
    "json",
    "kill",
    "load",
    "logs",
    "networks",
    "pause",
    "plugins",
    "prune",
    "push",
    "rename",
    "resize",
    "restart",
    "search",
    "secrets",
    "services",
    "session",
    "start",
    "stats",
    "stop",
    "swarm",
    "system",
    "tag",
    "top",
    "unpause",
    "update",
    "version",
    "volumes",
    "wait",
];

/// The route behind a path, without the version: a client cannot make up figures by making up names.
fn endpoint_of(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let is_version =
        |part: &&str| part.starts_with('v') && part.bytes().skip(1).all(|b| b.is_ascii_digit() || b == b'.');
    if parts.first().is_some_and(is_version) {
        parts.remove(0);
    }
    let mut endpoint = String::new();
    let mut name = false;
    for part in parts {
        if WORDS.contains(&part) {
            endpoint.push('/');
            endpoint.push_str(part);
            name = false;
        } else if !name {
            // Names of images have several parts.
            endpoint.push_str("/{name}");
            name = true;
        }
    }
    // A real route has at most four parts.
    if endpoint.matches('/').count() > 4 { "other".into() } else { endpoint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_out_of_routes() {
        let check = |path: &str, expect: &str| assert_eq!(endpoint_of(path), expect, "{path}");
        check("/v1.54/containers/0123456789ab/json", "/containers/{name}/json");
        check("/containers/json", "/containers/json");
        check("/_ping", "/_ping");
        check("/v1.47/images/registry.example/a/b/json", "/images/{name}/json");
        check("/made/up", "/{name}");
        check(&"/json/x".repeat(50), "other");
    }
}
