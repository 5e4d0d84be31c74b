//! Content digests, as the OCI image specification writes them (image-spec, descriptor.md, "Digests").

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::ids::IdError;

/// `sha256:` and 64 lower-case hex digits; no other algorithm is accepted.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    pub fn sha256(hash: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex::encode(hash)))
    }

    /// Of bytes that are at hand.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::sha256(sha2::Sha256::digest(bytes).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits, fit for a file name.
    pub fn hex(&self) -> &str {
        self.0.get(7..).unwrap_or_default()
    }

    /// The 12 digits that people see.
    pub fn short(&self) -> &str {
        self.0.get(7..19).unwrap_or_default()
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let good = text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if good {
            Ok(Self(text.into()))
        } else {
            Err(IdError {
                kind: "digest",
                text: text.into(),
                expected: "`sha256:` and 64 lower-case hex digits",
            })
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
