//! API versions: `/v1.NN` in front of a path, what is accepted, and which shapes it asks for.

use crate::error::ApiError;
use std::fmt;

/// A version of the Docker Engine API, compared part by part (1.9 is older than 1.24).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    pub major: u16,
    pub minor: u16,
}

pub const OLDEST: ApiVersion = ApiVersion::new(1, 24);
/// Also what a path without a version means.
pub const NEWEST: ApiVersion = ApiVersion::new(1, 54);

impl ApiVersion {
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Whether the client speaks 1.`minor` or newer.
    pub fn since(self, minor: u16) -> bool {
        self >= Self::new(1, minor)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Splits `/v1.41/containers/json` into the version and `/containers/json`. A first segment that is not a
/// version belongs to the path.
pub fn split(path: &str) -> Result<(ApiVersion, &str), ApiError> {
    let Some((text, rest)) = prefix(path) else { return Ok((NEWEST, path)) };
    let version = parse(text).ok_or_else(|| ApiError::bad(format!("invalid API version `{text}`")))?;
    if version < OLDEST {
        return Err(ApiError::bad(format!(
            "client version {text} is too old. Minimum supported API version is {OLDEST}, \
             please upgrade your client to a newer version"
        )));
    }
    if version > NEWEST {
        return Err(ApiError::bad(format!(
            "client version {text} is too new. Maximum supported API version is {NEWEST}"
        )));
    }
    Ok((version, rest))
}

fn prefix(path: &str) -> Option<(&str, &str)> {
    let first = path.strip_prefix("/v")?;
    let (text, rest) = first.split_at(first.find('/')?);
    let numeric =
        !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    numeric.then_some((text, rest))
}

fn parse(text: &str) -> Option<ApiVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ApiVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_from_the_path() {
        assert_eq!(split("/v1.41/containers/json").unwrap(), (ApiVersion::new(1, 41), "/containers/json"));
        assert_eq!(split("/_ping").unwrap(), (NEWEST, "/_ping"));
        assert_eq!(split("/volumes/v1.2").unwrap(), (NEWEST, "/volumes/v1.2"));
    }

    #[test]
    fn versions_compare_by_part() {
        let old = split("/v1.9/info").unwrap_err();
        assert_eq!(
            old.message,
            "client version 1.9 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        let new = split("/v1.240/info").unwrap_err();
        assert_eq!(new.message, "client version 1.240 is too new. Maximum supported API version is 1.54");
        assert!(split("/v1.24/info").is_ok());
        assert!(split("/v1.54/info").is_ok());
        assert!(split("/v2.1/info").is_err());
    }

    #[test]
    fn odd_versions_are_refused() {
        for path in ["/v1/info", "/v1.2.3/info", "/v./info", "/v99999.1/info"] {
            assert!(split(path).is_err(), "{path}");
        }
    }
}
