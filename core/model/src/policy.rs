//! Versions of the policies, and sets that are being written.

use crate::digest::Digest;
use crate::vch::NameError;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A set's files: `FOLDER/NAME.cedar` and `cases/TOPIC/{ALLOW,DENY}/SENTENCE.json`, each with its text.
pub type PolicyFiles = BTreeMap<String, String>;

/// A set that is or was in force. Revisions are numbered from 1; the newest is the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRevision {
    pub number: u64,
    /// Of schema and policies, as decisions name it. Several revisions may have the same.
    pub digest: Digest,
    /// What the policies were checked against.
    pub schema: String,
    pub files: PolicyFiles,
    pub origin: PolicyOrigin,
    pub at: DateTime<Utc>,
    /// Name of the caller; `system` for what was found in the folder.
    pub by: String,
    pub comment: String,
}

/// How a revision came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "of")]
pub enum PolicyOrigin {
    /// The folder of policies had it.
    Folder,
    /// A draft, by its name.
    Draft(String),
    /// The files of this revision again.
    Rollback(u64),
    /// The files of the revision before, with the schema of another release.
    Release,
}

/// A set that somebody writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDraft {
    pub name: DraftName,
    /// From 1, one more with each change.
    pub revision: u64,
    /// The revision of the policies that it was begun from.
    pub base: u64,
    pub files: PolicyFiles,
    pub changed_at: DateTime<Utc>,
    pub changed_by: String,
}

/// A draft's name: part of paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DraftName(String);

impl DraftName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DraftName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = (1..=40).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let shown = || text.chars().take(80).collect();
        if good { Ok(Self(text.into())) } else { Err(NameError { kind: "draft's name", text: shown() }) }
    }
}

impl TryFrom<String> for DraftName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<DraftName> for String {
    fn from(name: DraftName) -> String {
        name.0
    }
}

impl fmt::Display for DraftName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `folder`, `draft memory`, `rollback of 3`, `release`.
impl fmt::Display for PolicyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyOrigin::Folder => f.write_str("folder"),
            PolicyOrigin::Draft(name) => write!(f, "draft {name}"),
            PolicyOrigin::Rollback(number) => write!(f, "rollback of {number}"),
            PolicyOrigin::Release => f.write_str("release"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_survive_json() {
        for (origin, text) in [
            (PolicyOrigin::Folder, r#"{"kind":"folder"}"#),
            (PolicyOrigin::Draft("a".into()), r#"{"kind":"draft","of":"a"}"#),
            (PolicyOrigin::Rollback(3), r#"{"kind":"rollback","of":3}"#),
        ] {
            assert_eq!(serde_json::to_string(&origin).unwrap(), text);
            assert_eq!(serde_json::from_str::<PolicyOrigin>(text).unwrap(), origin);
        }
    }

    #[test]
    fn names_of_drafts_are_strict() {
        assert!("memory-2".parse::<DraftName>().is_ok());
        for bad in ["", "A", "a/b", "..", "1a", &"a".repeat(41)] {
            assert!(bad.parse::<DraftName>().is_err(), "{bad}");
        }
    }
}
