//! Typed ids. Each is its own type, so that one can never be passed for another.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// An id whose text is not one: names what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected {expected}")]
pub struct IdError {
    pub kind: &'static str,
    pub text: String,
    pub expected: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| IdError { kind: $kind, text: text.into(), expected: "a UUID" })
            }
        }
    };
}

uuid_id!(
    /// A virtual container host.
    VchId,
    "VCH id"
);
uuid_id!(
    /// One installation of the server: kept in its data folder, written on every machine that it makes.
    ServerId,
    "server id"
);
uuid_id!(
    /// The disk of a volume. A volume that is made anew under an old name has another.
    VolumeId,
    "volume id"
);

/// A container, and the machine that carries it: 64 lower-case hex digits, as Docker's clients expect.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 12 digits that people see.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.len() == 64 && hex {
            Ok(Self(text.into()))
        } else {
            Err(IdError { kind: "container id", text: text.into(), expected: "64 lower-case hex digits" })
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// A recorded decision: `d-`, milliseconds since 1970 in 11 hex digits, 9 random hex digits. Sorts by time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DecisionId(String);

impl DecisionId {
    pub fn new(unix_ms: u64, random: u64) -> Self {
        Self(format!("d-{:011x}{:09x}", unix_ms & 0xfff_ffff_ffff, random & 0xf_ffff_ffff))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DecisionId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix("d-") {
            Some(rest) if rest.len() == 20 && rest.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Ok(Self(text.into()))
            }
            _ => Err(IdError { kind: "decision id", text: text.into(), expected: "`d-` and 20 hex digits" }),
        }
    }
}

impl TryFrom<String> for DecisionId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<DecisionId> for String {
    fn from(id: DecisionId) -> String {
        id.0
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_ids_sort_by_time_and_survive_text() {
        let early = DecisionId::new(1_700_000_000_000, u64::MAX);
        let late = DecisionId::new(1_700_000_000_001, 0);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<DecisionId>().unwrap(), early);
    }

    #[test]
    fn container_ids_refuse_anything_but_64_lower_hex() {
        assert!("../../etc".parse::<ContainerId>().is_err());
        assert!("A".repeat(64).parse::<ContainerId>().is_err());
        assert!("a".repeat(64).parse::<ContainerId>().is_ok());
    }
}
