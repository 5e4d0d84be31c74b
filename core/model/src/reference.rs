//! Image references: `[registry/]repository[:tag][@digest]`, with Docker's implied parts
//! (grammar: github.com/distribution/reference, `reference.go`).

use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The registry that a reference without one means.
pub const DOCKER_HUB: &str = "docker.io";

/// A parsed, complete reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// Host, with a port where one was given: `docker.io`, `localhost:5000`.
    pub registry: String,
    /// Path below the registry: `library/nginx`.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: `{text}`: {why}")]
pub struct ReferenceError {
    pub text: String,
    pub why: &'static str,
}

impl Reference {
    /// With `latest` where neither tag nor digest was given.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    /// `nginx` for `docker.io/library/nginx`: the name as Docker shows it, without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.registry != DOCKER_HUB {
            return format!("{}/{}", self.registry, self.repository);
        }
        self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
    }

    /// `nginx:latest`, `localhost:5000/app@sha256:…`: as Docker shows it.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }

    /// Registry and repository, complete: `docker.io/library/nginx`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

fn is_path_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
        && !part.contains("..")
        && !part.contains("___")
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_registry(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_good = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    let v6 = name.starts_with('[') && name.ends_with(']');
    let name_good = v6
        || (!name.is_empty()
            && name.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            }));
    port_good && name_good && host.len() <= 255
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let wrong = |why| ReferenceError { text: text.chars().take(300).collect(), why };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(digest.parse().map_err(|_| wrong("the digest is not `sha256:` and 64 hex digits"))?),
            ),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong("the tag must be 1 to 128 letters, digits, `_`, `.`, `-`"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, path.to_owned())
            }
            _ => (DOCKER_HUB, name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
        if !is_registry(registry) {
            return Err(wrong("the registry is not a host name with an optional port"));
        }
        let repository =
            if registry == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path };
        if repository.len() > 255 || !repository.split('/').all(is_path_component) {
            return Err(wrong("the repository must be lower-case letters, digits and single separators"));
        }
        Ok(Self { registry: registry.into(), repository, tag: tag.map(Into::into), digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

/// The complete form, with the registry.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, full: &str, familiar: &str) {
        let parsed: Reference = text.parse().unwrap();
        let parsed = parsed.or_latest();
        assert_eq!(parsed.to_string(), full, "{text}");
        assert_eq!(parsed.familiar(), familiar, "{text}");
        assert_eq!(full.parse::<Reference>().unwrap(), parsed, "{text}: the full form parses to the same");
    }

    #[test]
    fn implied_parts_are_docker_s() {
        check("nginx", "docker.io/library/nginx:latest", "nginx:latest");
        check("me/app:1", "docker.io/me/app:1", "me/app:1");
        check("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest");
        check("localhost/app", "localhost/app:latest", "localhost/app:latest");
        check("reg.example/a/b/c:x-1.2", "reg.example/a/b/c:x-1.2", "reg.example/a/b/c:x-1.2");
    }

    #[test]
    fn a_digest_keeps_latest_away() {
        let text = format!("reg.example/app@sha256:{}", "a".repeat(64));
        check(&text, &text, &text);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("", "empty"),
            ("Nginx", "repository"),
            ("a//b", "repository"),
            ("../etc/passwd", "r"),
            ("app:", "tag"),
            ("app@sha256:12", "digest"),
            ("reg.example:99999/app", "registry"),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.why.contains(why), "{text}: {error}");
        }
    }
}
