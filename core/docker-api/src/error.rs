//! Errors as Docker's clients read them: a status and `{"message"}`.
//!
//! Clients match on statuses and on some texts (the CLI pulls after a 404 `No such image: …`, and makes its exit
//! code out of words in a start error), so both are part of the API.

use bulkhead_engine::{EngineError, FileFault, ImageError};
use http::StatusCode;

/// An answer that is not the result.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {message}")]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// What was being done, before the message.
    pub fn while_doing(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// 400: the request itself is at fault.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The answer to unknown paths and wrong methods alike, as dockerd gives it.
    pub fn page_not_found() -> Self {
        Self::not_found("page not found")
    }

    /// 500. The cause goes to the log, with its chain; the client reads the outermost sentence.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

/// Names, as dockerd does, what a paused container has to be unpaused for.
pub fn before(action: &'static str) -> impl FnOnce(EngineError) -> ApiError {
    move |error| match error {
        EngineError::IsPaused(id) => ApiError::new(
            StatusCode::CONFLICT,
            format!("container {id} is paused, unpause the container before {action}"),
        ),
        error => error.into(),
    }
}

/// An error with all that is beneath it, on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// One exhaustive match: a new kind of engine error does not compile until it has a status here.
impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        use StatusCode as Is;
        let (status, message) = match &error {
            EngineError::NoSuchContainer(text) => (Is::NOT_FOUND, format!("No such container: {text}")),
            EngineError::NoSuchExec(text) => (Is::NOT_FOUND, format!("No such exec instance: {text}")),
            EngineError::NoSuchFile { path, container } => {
                (Is::NOT_FOUND, format!("Could not find the file {path} in container {container}"))
            }
            EngineError::Files { why, message } => match why {
                FileFault::Other => (Is::INTERNAL_SERVER_ERROR, message.clone()),
                FileFault::NotFound => (Is::NOT_FOUND, message.clone()),
                FileFault::NotFolder | FileFault::ReadOnly | FileFault::BadArchive | FileFault::OtherKind => {
                    (Is::BAD_REQUEST, message.clone())
                }
            },
            EngineError::LogNotKept => (Is::NOT_IMPLEMENTED, error.to_string()),
            EngineError::InputClosed => (Is::CONFLICT, error.to_string()),
            EngineError::AmbiguousContainer(text) => {
                (Is::BAD_REQUEST, format!("multiple IDs found with provided prefix: {text}"))
            }
            EngineError::NoSuchImage(text) => {
                (Is::NOT_FOUND, format!("No such image: {}", with_latest(text)))
            }
            EngineError::AmbiguousImage(text) => {
                (Is::BAD_REQUEST, format!("multiple IDs found with provided prefix: {text}"))
            }
            EngineError::NoSuchVch(_)
            | EngineError::NoSuchDecision(_)
            | EngineError::NoSuchPlugin(_)
            | EngineError::NoSuchBinding(_)
            | EngineError::NoSuchDraft(_)
            | EngineError::NoSuchRevision(_)
            | EngineError::NoSuchTemplate(_) => (Is::NOT_FOUND, error.to_string()),
            EngineError::AmbiguousPlugin { .. }
            | EngineError::PluginRefused(_)
            | EngineError::PluginSettings(_)
            | EngineError::PoliciesRefused(_) => (Is::BAD_REQUEST, error.to_string()),
            EngineError::PluginInUse { .. }
            | EngineError::NotReplayable { .. }
            | EngineError::DraftChanged(_)
            | EngineError::PoliciesChanged { .. } => (Is::CONFLICT, error.to_string()),
            EngineError::NameInUse { name, holder } => (
                Is::CONFLICT,
                format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
                     You have to remove (or rename) that container to be able to reuse that name."
                ),
            ),
            EngineError::VchNameInUse(_) | EngineError::VchNotEmpty { .. } => {
                (Is::CONFLICT, error.to_string())
            }
            EngineError::InvalidName(name) => (
                Is::BAD_REQUEST,
                format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
            ),
            EngineError::Denied { .. } | EngineError::Limit(_) => (Is::FORBIDDEN, error.to_string()),
            EngineError::IsRunning(id) => (
                Is::CONFLICT,
                format!(
                    "cannot remove container \"{id}\": container is running: \
                     stop the container before removing or force remove"
                ),
            ),
            EngineError::NotRunning(id) => (Is::CONFLICT, format!("container {id} is not running")),
            EngineError::BeingRemoved(id) => {
                (Is::CONFLICT, format!("removal of container {id} is already in progress"))
            }
            EngineError::IsPaused(id) => {
                (Is::CONFLICT, format!("container {id} is paused, unpause the container first"))
            }
            EngineError::NotPaused(id) => (Is::CONFLICT, format!("Container {id} is not paused")),
            EngineError::IsRestarting(_) => (Is::CONFLICT, error.to_string()),
            EngineError::Conflict(_) => (Is::CONFLICT, error.to_string()),
            EngineError::ImageInUse { image, by, running } => {
                let (force, state) =
                    if *running { ("cannot be forced", "running ") } else { ("must be forced", "stopped ") };
                let by = by.short();
                let text = format!(
                    "conflict: unable to delete {image} ({force}) - image is being used by {state}container {by}"
                );
                (Is::CONFLICT, text)
            }
            EngineError::NoSuchVolume(name) => (Is::NOT_FOUND, format!("get {name}: no such volume")),
            EngineError::VolumeInUse { name, containers } => {
                let ids: Vec<_> = containers.iter().map(|id| id.as_str()).collect();
                (Is::CONFLICT, format!("remove {name}: volume is in use - [{}]", ids.join(", ")))
            }
            EngineError::VolumeHeld { .. } => (Is::CONFLICT, error.to_string()),
            EngineError::ImageNameInUse { name, image, by } => (
                Is::CONFLICT,
                format!(
                    "conflict: unable to remove repository reference \"{name}\" (must force) - \
                     container {} is using its referenced image {image}",
                    by.short()
                ),
            ),
            EngineError::ImageHasNames(image) => (
                Is::CONFLICT,
                format!(
                    "conflict: unable to delete {image} (must be forced) - \
                     image is referenced in multiple repositories"
                ),
            ),
            EngineError::WrongPlatform { image, found, wanted } => (
                Is::NOT_FOUND,
                format!(
                    "image with reference {image} was found but does not match the specified platform: \
                     wanted {wanted}, actual: {found}"
                ),
            ),
            EngineError::NoSuchNetwork(_) => (Is::NOT_FOUND, error.to_string()),
            EngineError::AmbiguousNetwork(text) => {
                (Is::BAD_REQUEST, format!("multiple IDs found with provided prefix: {text}"))
            }
            EngineError::BadNetwork(_) => (Is::BAD_REQUEST, error.to_string()),
            EngineError::NetworkNameInUse(_) => (Is::CONFLICT, error.to_string()),
            EngineError::NetworkForbidden(_) | EngineError::Publish(_) => (Is::FORBIDDEN, error.to_string()),
            EngineError::Network(_) => (Is::INTERNAL_SERVER_ERROR, error.to_string()),
            EngineError::Spec(_) | EngineError::Reference(_) | EngineError::Invalid { .. } => {
                (Is::BAD_REQUEST, error.to_string())
            }
            EngineError::StartFailed { message, .. } => (Is::BAD_REQUEST, message.clone()),
            EngineError::TimedOut(_) => (Is::GATEWAY_TIMEOUT, error.to_string()),
            EngineError::Fenced | EngineError::Stopping => (Is::SERVICE_UNAVAILABLE, error.to_string()),
            EngineError::Image(image) => of_image(image),
            EngineError::Machine(_) | EngineError::Plugin(_) | EngineError::Store(_) => {
                return Self::internal(&error);
            }
        };
        Self { status, message }
    }
}

fn of_image(error: &ImageError) -> (StatusCode, String) {
    use StatusCode as Is;
    let text = || chain(error);
    match error {
        ImageError::NotFound { .. } | ImageError::Platform { .. } => (Is::NOT_FOUND, text()),
        // Docker's words: registries answer alike for what is not there and what may not be seen.
        ImageError::Denied { what, why } => (
            Is::NOT_FOUND,
            format!(
                "pull access denied for {what}, repository does not exist or may require 'docker login': {why}"
            ),
        ),
        ImageError::Login { .. } => (Is::UNAUTHORIZED, text()),
        ImageError::Address { .. } => (Is::FORBIDDEN, text()),
        ImageError::Invalid { .. }
        | ImageError::Unsupported { .. }
        | ImageError::Digest { .. }
        | ImageError::Size { .. }
        | ImageError::Layer(_)
        | ImageError::Limit { .. } => (Is::BAD_REQUEST, text()),
        ImageError::Registry { .. } | ImageError::Deadline { .. } => (Is::INTERNAL_SERVER_ERROR, text()),
        ImageError::Store(_) | ImageError::Io { .. } => {
            tracing::error!(error = %text(), "image request failed");
            (Is::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}

/// `nginx` as `nginx:latest`: clients compare the text with the reference they meant. Ids and digests stay.
fn with_latest(text: &str) -> String {
    match text.parse::<bulkhead_model::Reference>() {
        Ok(reference) if reference.digest.is_none() && reference.tag.is_none() => format!("{text}:latest"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::{Action, DecisionId, Reason, reason::Rule};

    fn check(error: EngineError, status: u16, message: &str) {
        let api = ApiError::from(error);
        assert_eq!((api.status.as_u16(), api.message.as_str()), (status, message));
    }

    #[test]
    fn texts_that_clients_match_on() {
        let id: bulkhead_model::ContainerId = "ab".repeat(32).parse().unwrap();
        check(EngineError::NoSuchContainer("x".into()), 404, "No such container: x");
        check(EngineError::NoSuchImage("alpine".into()), 404, "No such image: alpine:latest");
        check(EngineError::NoSuchImage("alpine:3".into()), 404, "No such image: alpine:3");
        check(
            EngineError::NameInUse { name: "web".into(), holder: id.clone() },
            409,
            &format!(
                "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
            ),
        );
        check(
            EngineError::StartFailed {
                code: 127,
                message: "exec: \"x\": executable file not found in $PATH".into(),
            },
            400,
            "exec: \"x\": executable file not found in $PATH",
        );
    }

    #[test]
    fn a_refusal_names_policy_and_decision() {
        let reason =
            Reason::new(Rule::Policy("no-privileged".into()), "privileged", "prod runs nothing privileged")
                .advise("leave out --privileged");
        let decision = DecisionId::new(1, 2);
        let error = EngineError::Denied {
            action: Action::ContainerCreate,
            decision: decision.clone(),
            reasons: vec![reason],
        };
        check(
            error,
            403,
            &format!(
                "denied by policy \"no-privileged\": prod runs nothing privileged (leave out --privileged) (decision {decision}; see: bulkhead decision show {decision})"
            ),
        );
    }
}
