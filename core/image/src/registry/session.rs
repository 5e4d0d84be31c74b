//! Asking one registry on behalf of one user.

use super::auth::{Challenge, fetch_token};
use super::credentials::{Credentials, secret_header};
use super::endpoint::Endpoint;
use crate::error::ImageError;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use http::header::{ACCEPT, AUTHORIZATION, DATE, LOCATION, RANGE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use reqwest::Response;
use serde::Deserialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const REDIRECTS_MAX: u32 = 5;
const ERROR_BYTES_MAX: usize = 16 << 10;

#[derive(Clone)]
pub(super) struct Session {
    pub endpoint: Arc<Endpoint>,
    repository: Option<String>,
    credentials: Credentials,
    /// The header that the registry last accepted, or was last told to want.
    authorization: Arc<Mutex<Option<HeaderValue>>>,
}

/// One thing to ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Below `/v2/`.
    pub path: &'a str,
    pub accept: &'a str,
    /// Bytes to leave out at the start.
    pub from: u64,
}

impl Session {
    /// Credentials never go to a mirror.
    pub fn new(endpoint: Arc<Endpoint>, repository: Option<String>, credentials: Credentials) -> Self {
        let credentials = if endpoint.is_mirror { Credentials::Anonymous } else { credentials };
        Self { endpoint, repository, credentials, authorization: Arc::default() }
    }

    /// Proves the credentials to the registry.
    pub async fn login(&self) -> Result<(), ImageError> {
        let refused = |why: String| ImageError::Login { registry: self.endpoint.registry.clone(), why };
        match self.get(Ask { path: "", accept: "application/json", from: 0 }).await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status();
                Err(refused(format!("{status}: {}", error_text(&self.endpoint, answer).await)))
            }
            Err(ImageError::Denied { why, .. }) => Err(refused(why)),
            Err(other) => Err(other),
        }
    }

    /// Asks again, after a while, what fails for a reason that may pass.
    pub async fn get_patiently(&self, ask: Ask<'_>) -> Result<Response, ImageError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = self.get(ask).await;
            // What cannot be connected to is tried once more only: the user waits, with nothing to show for it.
            let attempts = if result.is_ok() { self.endpoint.timing.attempts } else { 2 };
            if attempt >= attempts || !may_pass(&result) {
                return result;
            }
            let told = result.as_ref().ok().and_then(retry_after);
            self.wait(attempt, told).await;
        }
    }

    /// Before the next attempt.
    pub async fn wait(&self, attempt: u32, told: Option<Duration>) {
        let timing = &self.endpoint.timing;
        let doubled = timing.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        tokio::time::sleep(told.unwrap_or(doubled).min(timing.backoff_max)).await;
    }

    /// Asks once: authenticates if that is wanted, follows redirects. Any status may come back but 401 and redirects.
    pub async fn get(&self, ask: Ask<'_>) -> Result<Response, ImageError> {
        let mut authenticated = false;
        let mut redirects = 0;
        let mut url = self.endpoint.url(ask.path).await?;
        loop {
            self.endpoint.check(&url)?;
            let is_own = self.endpoint.is_own(&url);
            let mut request = self.endpoint.client.get(url.clone()).header(ACCEPT, ask.accept);
            if ask.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", ask.from));
            }
            if is_own && let Some(authorization) = self.authorization() {
                request = request.header(AUTHORIZATION, authorization);
            }
            let answer = tokio::time::timeout(self.endpoint.timing.answer, request.send())
                .await
                .map_err(|_| ImageError::Registry {
                    registry: self.endpoint.registry.clone(),
                    why: format!("no answer within {} s", self.endpoint.timing.answer.as_secs()),
                    source: None,
                })?
                .map_err(|error| self.endpoint.failed("it cannot be reached", error))?;
            match answer.status() {
                StatusCode::UNAUTHORIZED if is_own && !authenticated => {
                    authenticated = true;
                    self.authenticate(answer).await?;
                    url = self.endpoint.url(ask.path).await?;
                }
                StatusCode::UNAUTHORIZED => {
                    let why = error_text(&self.endpoint, answer).await;
                    return Err(ImageError::Denied { what: self.what(), why });
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    redirects += 1;
                    if redirects > REDIRECTS_MAX {
                        return Err(self.wrong(format!("more than {REDIRECTS_MAX} redirects")));
                    }
                    let target = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    let target = target.ok_or_else(|| self.wrong("a redirect without a target".into()))?;
                    url = url
                        .join(target)
                        .map_err(|error| self.wrong(format!("a redirect to nowhere: {error}")))?;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// An answer's error in our words.
    pub async fn refusal(&self, answer: Response) -> ImageError {
        let status = answer.status();
        let why = error_text(&self.endpoint, answer).await;
        match status {
            StatusCode::NOT_FOUND => ImageError::NotFound { reference: self.what(), why },
            StatusCode::FORBIDDEN => ImageError::Denied { what: self.what(), why },
            _ => self.wrong(format!("it answers {status}: {why}")),
        }
    }

    pub fn wrong(&self, why: String) -> ImageError {
        ImageError::Registry { registry: self.endpoint.registry.clone(), why, source: None }
    }

    fn what(&self) -> String {
        match &self.repository {
            Some(repository) => format!("{}/{repository}", self.endpoint.registry),
            None => self.endpoint.registry.clone(),
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers a challenge. What it finds is kept for all that this session asks later.
    async fn authenticate(&self, answer: Response) -> Result<(), ImageError> {
        let challenge = Challenge::find(answer.headers());
        let denied = |why: &str| ImageError::Denied { what: self.what(), why: why.into() };
        let header = match (challenge, &self.credentials) {
            (None, _) => return Err(denied("it wants no authentication that is known here")),
            (Some(Challenge::Basic), credentials @ Credentials::Password { .. }) => credentials.basic(),
            (Some(Challenge::Basic), _) => return Err(denied("it wants a user name and a password")),
            (Some(Challenge::Bearer { .. }), Credentials::RegistryToken(token)) => {
                secret_header(&format!("Bearer {token}"))
            }
            (Some(Challenge::Bearer { realm, service }), credentials) => {
                let scope =
                    self.repository.as_ref().map(|repository| format!("repository:{repository}:pull"));
                let token =
                    fetch_token(&self.endpoint, &realm, service.as_deref(), scope.as_deref(), credentials)
                        .await?;
                secret_header(&format!("Bearer {token}"))
            }
        };
        let header = header.ok_or_else(|| denied("the credentials have characters that cannot be sent"))?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(header);
        Ok(())
    }
}

/// Whether a failure may pass by itself.
pub(super) fn may_pass(result: &Result<Response, ImageError>) -> bool {
    match result {
        Ok(answer) => answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS,
        // Connections that fail, not answers that are wrong.
        Err(ImageError::Registry { source, .. }) => source.is_some(),
        Err(_) => false,
    }
}

/// How long the registry asks to wait (RFC 9110, section 10.2.3): seconds, or until a time, which is understood by the
/// registry's own clock if it tells that.
pub(super) fn retry_after(answer: &Response) -> Option<Duration> {
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    wait_told(text(RETRY_AFTER)?, text(DATE))
}

fn wait_told(retry_after: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = retry_after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = |text| DateTime::parse_from_rfc2822(text).ok().map(|time| time.to_utc());
    let until = time(retry_after)?;
    let now = date.and_then(time).unwrap_or_else(Utc::now);
    // A time that has passed: at once.
    Some((until - now).to_std().unwrap_or_default())
}

/// A body that fits in memory.
pub(super) async fn read_limited(
    endpoint: &Endpoint,
    answer: Response,
    max: usize,
    what: &str,
) -> Result<Bytes, ImageError> {
    let too_long = || ImageError::Limit { what: what.into(), limit: format!("{max} bytes") };
    if answer.content_length().is_some_and(|length| length > max as u64) {
        return Err(too_long());
    }
    let mut body = bytes::BytesMut::new();
    let mut stream = answer.bytes_stream();
    let read = async {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| endpoint.failed("the answer broke off", error))?;
            if body.len() + chunk.len() > max {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(())
    };
    tokio::time::timeout(endpoint.timing.idle, read).await.map_err(|_| ImageError::Deadline {
        what: format!("reading {what} from `{}`", endpoint.registry),
        seconds: endpoint.timing.idle.as_secs(),
    })??;
    Ok(body.freeze())
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a registry says in an error's body, shortened.
pub(super) async fn error_text(endpoint: &Endpoint, answer: Response) -> String {
    let status = answer.status();
    let body = read_limited(endpoint, answer, ERROR_BYTES_MAX, "an error").await.unwrap_or_default();
    let text = match serde_json::from_slice::<Errors>(&body) {
        Ok(Errors { errors }) if !errors.is_empty() => errors
            .iter()
            .take(3)
            .map(|error| if error.message.is_empty() { &error.code } else { &error.message })
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", "),
        _ => status.canonical_reason().unwrap_or("no reason given").to_lowercase(),
    };
    text.chars().filter(|letter| !letter.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_time() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (text, seconds) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait_told(text, Some(date)), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(wait_told(date, None), Some(Duration::ZERO), "long ago, by our clock");
        let hour = (Utc::now() + Duration::from_secs(3600)).to_rfc2822();
        assert!(wait_told(&hour, None).unwrap() > Duration::from_secs(3500));
    }
}
