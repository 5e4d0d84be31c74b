//! Errors as problem documents (RFC 9457), and the one place where an engine error becomes a status.

use crate::view::PolicyProblemView;
use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bulkhead_engine::EngineError;
use bulkhead_model::Reason;
use serde::{Deserialize, Serialize};
use std::error::Error;

/// The stable `code` of problems; programs may rely on them.
pub mod code {
    pub const INVALID: &str = "invalid";
    pub const DENIED: &str = "denied";
    pub const NOT_AN_ADMIN: &str = "not-an-admin";
    pub const NOT_FOUND: &str = "not-found";
    pub const CONFLICT: &str = "conflict";
    /// Somebody else changed it first: what `If-Match` says is not there any more.
    pub const CHANGED: &str = "changed";
    pub const UNAVAILABLE: &str = "unavailable";
    pub const NO_CAPACITY: &str = "no-capacity";
    pub const INTERNAL: &str = "internal";
}

/// What went wrong. `type` and `title` of the document follow from the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub status: u16,
    /// One sentence on this very case.
    pub detail: String,
    /// One of [`code`].
    pub code: Box<str>,
    /// What would help, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub reasons: Box<[Reason]>,
    /// Places in policies that are wrong.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub problems: Box<[PolicyProblemView]>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    #[serde(flatten)]
    problem: &'a Problem,
}

impl Problem {
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            detail: detail.into(),
            code: code.into(),
            remedy: None,
            decision_id: None,
            reasons: Box::default(),
            problems: Box::default(),
        }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::INVALID, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code::NOT_FOUND, detail)
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code::CONFLICT, detail)
    }

    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        use EngineError as E;
        let detail = error.to_string();
        let (status, code) = match &error {
            E::NoSuchContainer(_)
            | E::NoSuchExec(_)
            | E::NoSuchImage(_)
            | E::NoSuchNetwork(_)
            | E::NoSuchFile { .. }
            | E::NoSuchVolume(_)
            | E::NoSuchVch(_)
            | E::NoSuchTemplate(_)
            | E::NoSuchPlugin(_)
            | E::NoSuchBinding(_)
            | E::NoSuchDraft(_)
            | E::NoSuchRevision(_)
            | E::NoSuchDecision(_) => (StatusCode::NOT_FOUND, code::NOT_FOUND),
            E::AmbiguousContainer(_)
            | E::AmbiguousImage(_)
            | E::AmbiguousNetwork(_)
            | E::AmbiguousPlugin { .. }
            | E::PluginRefused(_)
            | E::PluginSettings(_)
            | E::BadNetwork(_)
            | E::Publish(_)
            | E::InvalidName(_)
            | E::Files { .. }
            | E::WrongPlatform { .. }
            | E::Spec(_)
            | E::Reference(_)
            | E::Invalid { .. } => (StatusCode::BAD_REQUEST, code::INVALID),
            E::NameInUse { .. }
            | E::VchNameInUse(_)
            | E::NetworkNameInUse(_)
            | E::NetworkForbidden(_)
            | E::VchNotEmpty { .. }
            | E::IsRunning(_)
            | E::NotRunning(_)
            | E::BeingRemoved(_)
            | E::IsPaused(_)
            | E::NotPaused(_)
            | E::IsRestarting(_)
            | E::InputClosed
            | E::LogNotKept
            | E::Conflict(_)
            | E::NotReplayable { .. }
            | E::ImageInUse { .. }
            | E::VolumeInUse { .. }
            | E::PluginInUse { .. }
            | E::VolumeHeld { .. }
            | E::ImageNameInUse { .. }
            | E::ImageHasNames(_) => (StatusCode::CONFLICT, code::CONFLICT),
            E::PoliciesChanged { .. } | E::DraftChanged(_) => {
                (StatusCode::PRECONDITION_FAILED, code::CHANGED)
            }
            E::PoliciesRefused(_) => (StatusCode::UNPROCESSABLE_ENTITY, code::INVALID),
            E::Denied { .. } => (StatusCode::FORBIDDEN, code::DENIED),
            E::Limit(_) => (StatusCode::INSUFFICIENT_STORAGE, code::NO_CAPACITY),
            E::TimedOut(_) | E::Fenced | E::Stopping => (StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE),
            E::StartFailed { .. }
            | E::Image(_)
            | E::Machine(_)
            | E::Network(_)
            | E::Plugin(_)
            | E::Store(_) => {
                log(&error);
                (StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL)
            }
        };
        let problem = Problem::new(status, code, detail);
        match error {
            E::Denied { decision, reasons, .. } => {
                let remedy = format!("bulkhead decision show {decision} tells the whole story");
                Problem { decision_id: Some(decision.to_string().into()), reasons: reasons.into(), ..problem }
                    .remedy(remedy)
            }
            E::PoliciesRefused(error) => {
                Problem { problems: crate::policies::drafts::places(&error).into(), ..problem }
            }
            E::VchNotEmpty { name, .. } => problem
                .remedy(format!("bulkhead vch rm --force {name} removes its containers and volumes too")),
            _ => problem,
        }
    }
}

/// Once, here, with everything that caused it.
fn log(error: &EngineError) {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain.push_str(": ");
        chain.push_str(&cause.to_string());
        source = cause.source();
    }
    tracing::error!(error = %chain, "an operator's request failed");
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = status.canonical_reason().unwrap_or("Error");
        let mut response =
            (status, Json(Document { r#type: "about:blank", title, problem: &self })).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

pub(crate) async fn no_such_path(request: Request) -> Problem {
    Problem::not_found(format!("no such path: {}", request.uri().path()))
}

pub(crate) async fn no_such_method(request: Request) -> Problem {
    let detail = format!("{} does not take {}", request.uri().path(), request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, code::INVALID, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::reason::Rule;
    use bulkhead_model::{Action, DecisionId};

    #[test]
    fn a_refusal_carries_its_decision_and_reasons() {
        let decision = DecisionId::new(1, 2);
        let reason = Reason::new(Rule::Policy("only-root".into()), "caller", "only root creates VCHs");
        let error = EngineError::Denied {
            action: Action::VchCreate,
            decision: decision.clone(),
            reasons: vec![reason.clone()],
        };
        let problem = Problem::from(error);
        assert_eq!((problem.status, &*problem.code), (403, "denied"));
        assert_eq!(problem.decision_id.as_deref(), Some(decision.as_str()));
        assert_eq!(*problem.reasons, [reason]);
        assert!(problem.detail.contains("only root creates VCHs"), "{}", problem.detail);
        let document = Document { r#type: "about:blank", title: "Forbidden", problem: &problem };
        let text = serde_json::to_string(&document).unwrap();
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }

    #[test]
    fn problems_have_their_media_type() {
        let response = Problem::not_found("no VCH `x`").into_response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
