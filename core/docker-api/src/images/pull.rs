//! `POST /images/create?fromImage=`: progress as it comes, then what came of it.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use crate::system::credentials;
use bulkhead_engine::{Credentials, Engine, EngineError, Pull, PullOutcome, PullProgress, Session, Stage};
use bulkhead_model::Reference;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

pub async fn post(call: Call) -> Answer {
    let reference = reference(call.query.text("fromImage").unwrap_or_default(), call.query.text("tag"))?;
    let platform = call.query.text("platform").map(str::to_owned);
    let credentials = credentials::from_header(call.header("x-registry-auth"));
    // What fails before the first byte is an error of HTTP: clients that get a 200 look no further.
    if reference.tag.is_none() && reference.digest.is_none() {
        let tags = call.engine().tags(&call.session, &reference, &credentials).await?;
        let (engine, session) = (call.engine().clone(), call.session.clone());
        let all = AllTags { engine, session, credentials, platform, repository: reference, newer: false };
        return Ok(reply::stream(&call, reply::JSON, all.lines(tags)));
    }
    let pull = call.engine().pull(&call.session, reference.clone(), platform, credentials).await?;
    Ok(reply::stream(&call, reply::JSON, lines(pull, reference)))
}

/// A pull of each tag of a repository in turn, until one fails.
struct AllTags {
    engine: Engine,
    session: Session,
    credentials: Credentials,
    platform: Option<String>,
    repository: Reference,
    /// Whether any of them was.
    newer: bool,
}

/// What comes next of [`AllTags`].
enum Next {
    Tag(AllTags),
    Progress(AllTags, Box<Pull>),
    Over,
}

impl AllTags {
    fn lines(self, tags: Vec<String>) -> impl Stream<Item = Bytes> + Send {
        let mut tags = tags.into_iter();
        stream::unfold(Next::Tag(self), move |next| {
            let tag = if matches!(next, Next::Tag(_)) { tags.next() } else { None };
            async move {
                match next {
                    Next::Over => None,
                    Next::Tag(all) => Some(all.begin(tag).await),
                    Next::Progress(all, pull) => Some(all.go_on(pull).await),
                }
            }
        })
    }

    async fn begin(self, tag: Option<String>) -> (Bytes, Next) {
        let Some(tag) = tag else {
            return (status(self.newer, &self.repository.familiar_name()), Next::Over);
        };
        let reference = Reference { tag: Some(tag), ..self.repository.clone() };
        let (platform, credentials) = (self.platform.clone(), self.credentials.clone());
        match self.engine.pull(&self.session, reference.clone(), platform, credentials).await {
            Ok(pull) => (first(&reference), Next::Progress(self, Box::new(pull))),
            Err(error) => (reply::error_line(&error.into()), Next::Over),
        }
    }

    async fn go_on(mut self, mut pull: Box<Pull>) -> (Bytes, Next) {
        if let Some(progress) = pull.progress.recv().await {
            return (reply::line(&step(&progress)), Next::Progress(self, pull));
        }
        match pull.outcome().await {
            Ok(outcome) => {
                self.newer |= outcome.newer;
                (digest(&outcome), Next::Tag(self))
            }
            Err(error) => (reply::error_line(&error.into()), Next::Over),
        }
    }
}

/// `tag` may be a digest, and the name may hold the tag itself. With neither it stands for all tags.
fn reference(name: &str, tag: Option<&str>) -> Result<Reference, ApiError> {
    let bare: Reference = name.parse().map_err(|error| ApiError::bad(format!("{error}")))?;
    let text = match tag {
        Some(tag) if tag.contains(':') => format!("{name}@{tag}"),
        Some(tag) if bare.digest.is_none() => format!("{}:{tag}", bare.full_name()),
        Some(_) | None => name.to_owned(),
    };
    text.parse().map_err(|error| ApiError::bad(format!("{error}")))
}

fn lines(pull: Pull, reference: Reference) -> impl Stream<Item = Bytes> + Send {
    let first = first(&reference);
    let rest = stream::unfold(Some(pull), move |pull| {
        let shown = reference.familiar();
        async move {
            let mut pull = pull?;
            match pull.progress.recv().await {
                Some(progress) => Some((reply::line(&step(&progress)), Some(pull))),
                None => Some((last(pull.outcome().await, &shown), None)),
            }
        }
    });
    stream::once(std::future::ready(first)).chain(rest)
}

fn first(reference: &Reference) -> Bytes {
    reply::line(&json!({
        "status": format!("Pulling from {}", reference.repository),
        "progressDetail": {},
        "id": reference.tag.clone().or_else(|| reference.digest.as_ref().map(ToString::to_string)),
    }))
}

fn step(progress: &PullProgress) -> Value {
    let (status, detail) = match progress.stage {
        Stage::PullingFsLayer => ("Pulling fs layer", json!({})),
        Stage::Waiting => ("Waiting", json!({})),
        Stage::Downloading { current, total } => {
            ("Downloading", json!({ "current": current, "total": total }))
        }
        Stage::VerifyingChecksum => ("Verifying Checksum", json!({})),
        Stage::DownloadComplete => ("Download complete", json!({})),
        Stage::Extracting { current, total } => ("Extracting", json!({ "current": current, "total": total })),
        Stage::PullComplete => ("Pull complete", json!({})),
        Stage::AlreadyExists => ("Already exists", json!({})),
    };
    // On every line, empty or not: compose drops lines without it.
    json!({ "status": status, "progressDetail": detail, "id": progress.layer })
}

/// Two lines, in these words: some clients take anything else at the end for a failure.
fn last(outcome: Result<PullOutcome, EngineError>, shown: &str) -> Bytes {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return reply::error_line(&error.into()),
    };
    [digest(&outcome), status(outcome.newer, shown)].concat().into()
}

fn digest(outcome: &PullOutcome) -> Bytes {
    reply::line(&json!({ "status": format!("Digest: {}", outcome.digest), "progressDetail": {} }))
}

fn status(newer: bool, shown: &str) -> Bytes {
    let status = if newer { "Downloaded newer image for" } else { "Image is up to date for" };
    reply::line(&json!({ "status": format!("Status: {status} {shown}"), "progressDetail": {} }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::Digest;

    #[test]
    fn references_come_in_two_parts() {
        let digest = Digest::of(b"x");
        for (name, tag, expect) in [
            ("docker.io/library/alpine", Some("latest"), "alpine:latest".to_owned()),
            ("alpine", Some("3.20"), "alpine:3.20".to_owned()),
            ("alpine:3.20", None, "alpine:3.20".to_owned()),
            ("alpine:3.19", Some("3.20"), "alpine:3.20".to_owned()),
            ("localhost:5000/a/b", Some("x"), "localhost:5000/a/b:x".to_owned()),
            ("alpine", Some(digest.as_str()), format!("alpine@{digest}")),
        ] {
            assert_eq!(reference(name, tag).unwrap().familiar(), expect);
        }
        for (name, tag) in [("Alpine", Some("x")), ("", None), ("a", Some("b/c"))] {
            assert!(reference(name, tag).is_err(), "{name} {tag:?}");
        }
    }

    fn text(bytes: &Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_end_is_in_words_that_clients_know() {
        let outcome = |newer| Ok(PullOutcome { image: Digest::of(b"i"), digest: Digest::of(b"d"), newer });
        let new = text(&last(outcome(true), "alpine:latest"));
        assert!(new.contains("\"status\":\"Status: Downloaded newer image for alpine:latest\""), "{new}");
        assert!(new.contains("\"status\":\"Digest: sha256:"), "{new}");
        assert!(
            new.lines().all(|line| line.contains("\"progressDetail\":{}")) && new.ends_with("\r\n"),
            "{new}"
        );
        assert!(text(&last(outcome(false), "alpine")).contains("Status: Image is up to date for alpine"));
    }

    #[test]
    fn a_late_error_has_both_fields() {
        let line = text(&last(Err(EngineError::Stopping), "alpine"));
        let value: Value = serde_json::from_str(line.trim()).unwrap();
        assert_eq!(value["error"], value["errorDetail"]["message"]);
        assert!(value["error"].is_string());
    }
}
