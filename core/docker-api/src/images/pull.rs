//! `POST /images/create?fromImage=`: progress as it comes, then what came of it.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::query::clip;
use crate::reply;
use crate::system::credentials;
use bulkhead_engine::{EngineError, Pull, PullOutcome, PullProgress, Stage};
use bulkhead_model::Reference;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

pub async fn post(call: Call) -> Answer {
    let reference = reference(call.query.text("fromImage").unwrap_or_default(), call.query.text("tag"))?;
    let platform = call.query.text("platform").map(str::to_owned);
    let credentials = credentials::from_header(call.header("x-registry-auth"));
    // What fails before the first byte is an error of HTTP: clients that get a 200 look no further.
    let pull = call.engine().pull(&call.session, reference.clone(), platform, credentials).await?;
    Ok(reply::stream(&call, reply::JSON, lines(pull, reference)))
}

/// `tag` may be a digest, and the name may hold the tag itself.
fn reference(name: &str, tag: Option<&str>) -> Result<Reference, ApiError> {
    let bare: Reference = name.parse().map_err(|error| ApiError::bad(format!("{error}")))?;
    let text = match tag {
        Some(tag) if tag.contains(':') => format!("{name}@{tag}"),
        Some(tag) if bare.digest.is_none() => format!("{}:{tag}", bare.full_name()),
        Some(_) | None => name.to_owned(),
    };
    let reference: Reference = text.parse().map_err(|error| ApiError::bad(format!("{error}")))?;
    if reference.tag.is_none() && reference.digest.is_none() {
        return Err(ApiError::bad(format!(
            "bulkhead: pulling all tags of `{}` is not supported: name one",
            clip(name)
        )));
    }
    Ok(reference)
}

fn lines(pull: Pull, reference: Reference) -> impl Stream<Item = Bytes> + Send {
    let first = reply::line(&json!({
        "status": format!("Pulling from {}", reference.repository),
        "progressDetail": {},
        "id": reference.tag.clone().or_else(|| reference.digest.as_ref().map(ToString::to_string)),
    }));
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
    let status = if outcome.newer { "Downloaded newer image for" } else { "Image is up to date for" };
    let digest =
        reply::line(&json!({ "status": format!("Digest: {}", outcome.digest), "progressDetail": {} }));
    let status = reply::line(&json!({ "status": format!("Status: {status} {shown}"), "progressDetail": {} }));
    [digest, status].concat().into()
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
        for (name, tag) in [("alpine", None), ("Alpine", Some("x")), ("", None), ("a", Some("b/c"))] {
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
