//! `/v1/policies`: what is in force, what was, and what is being written.

pub(crate) mod drafts;
pub(crate) mod revisions;
pub(crate) mod status;

use crate::error::Problem;
use crate::view::{ActivationView, RevisionView};
use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::AppendHeaders;
use bulkhead_engine::{Activation, Expected};

/// Of a list, and at most.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 500;

type Tagged<T> = (AppendHeaders<[(HeaderName, String); 1]>, Json<T>);

fn tagged<T>(tag: u64, view: T) -> Tagged<T> {
    (AppendHeaders([(header::ETAG, format!("\"{tag}\""))]), Json(view))
}

/// An answer about what is in force now, or would be; its entity tag is the revision.
fn activated(activation: Activation, dry_run: bool) -> Tagged<ActivationView> {
    tagged(activation.revision.number, ActivationView::new(activation, dry_run))
}

fn limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(LIMIT).clamp(1, LIMIT_MAX)
}

/// Of what must be in force, or there: `None` without the header, `Some(None)` for `*`.
fn if_match(headers: &HeaderMap) -> Result<Option<Option<u64>>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    if value == HeaderValue::from_static("*") {
        return Ok(Some(None));
    }
    let tag = value.to_str().ok().and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    match tag {
        Some(tag) => Ok(Some(Some(tag))),
        None => Err(Problem::invalid("If-Match: expected `*` or an entity tag, as `\"3\"`")),
    }
}

/// Which revision of the policies must be in force.
fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    Ok(match if_match(headers)? {
        None => Expected::Base,
        Some(None) => Expected::Any,
        Some(Some(number)) => Expected::Revision(number),
    })
}

fn number(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::not_found(format!("no policy revision `{}`", short(text))))
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

fn view(revision: bulkhead_model::PolicyRevision) -> Tagged<RevisionView> {
    tagged(revision.number, revision.into())
}
