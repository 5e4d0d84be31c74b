//! Plugins: WebAssembly components that have a say in decisions, and where they are bound.

mod change;
mod report;

pub use change::{Change, ChangeError};
pub use report::{Denied, Failure, PluginReport, Said};

use crate::digest::Digest;
use crate::ids::VchId;
use crate::vch::{Class, NameError};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Largest component that can be installed, in bytes.
pub const COMPONENT_BYTES_MAX: usize = 4 << 20;
/// Largest settings of a binding, in bytes of JSON.
pub const SETTINGS_BYTES_MAX: usize = 64 << 10;
/// Bindings that can have a say in one request.
pub const BINDINGS_PER_REQUEST_MAX: usize = 16;

/// What a plugin is called by its author; a binding is named like this, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PluginName(String);
crate::vch::strict_name!(PluginName, "plugin or binding name");

/// What a plugin says of itself, and where it can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: PluginName,
    /// As semver.org has it; told to people, never compared.
    pub version: String,
    pub description: String,
    /// An SPDX expression.
    pub license: String,
    /// A JSON Schema of its settings. Nothing here reads it: the plugin itself checks them.
    pub settings_schema: serde_json::Value,
    /// By the interfaces that it has. Those that were installed before there was another have the first.
    #[serde(default = "first_point")]
    pub points: Vec<Point>,
}

fn first_point() -> Vec<Point> {
    vec![Point::Admission]
}

/// An installed plugin. Its digest is what it is; several of one name may be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// Of the component's bytes.
    pub digest: Digest,
    pub manifest: Manifest,
    pub bytes: u64,
    pub installed_at: DateTime<Utc>,
    pub installed_by: String,
}

/// Whose requests a binding has a say in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "of")]
pub enum Scope {
    Everywhere,
    Class(Class),
    Vch(VchId),
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal),+ }, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$of])* $variant),+ }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $name {
            type Err = WordError;
            fn from_str(text: &str) -> Result<Self, WordError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(WordError {
                        text: text.chars().take(40).collect(),
                        kind: $kind,
                        words: &[$($word),+],
                    }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {kind}: expected {words}", words = words.join(" or "))]
pub struct WordError {
    pub text: String,
    pub kind: &'static str,
    pub words: &'static [&'static str],
}

words!(
    /// Where a plugin is asked.
    Point {
        /// May this be done, and with which changes.
        Admission = "admission",
        /// Where may this be, and where best.
        Placement = "placement"
    },
    "point"
);

words!(
    /// Whether what a plugin says is done.
    Mode {
        /// It decides.
        Enforce = "enforce",
        /// It is asked and what it says is written down, and nothing else.
        Monitor = "monitor"
    },
    "mode"
);

words!(
    /// What becomes of a request whose plugin failed, or answered what cannot be.
    OnFailure {
        Refuse = "refuse",
        /// As if it had not been bound. Of placement that means: the engine chooses by itself, if nobody else has a say.
        Skip = "skip"
    },
    "failure policy"
);

/// A plugin at work: where, in which order, and how it is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub name: PluginName,
    pub plugin: PluginName,
    pub digest: Digest,
    pub scope: Scope,
    /// Lower ones are asked first; of equals, the one whose name is first.
    pub position: i32,
    pub mode: Mode,
    pub on_failure: OnFailure,
    /// A JSON object that the plugin found good.
    pub settings: serde_json::Value,
    /// Grows with each change.
    pub revision: u64,
    pub changed_at: DateTime<Utc>,
    pub changed_by: String,
}

impl Binding {
    pub fn covers(&self, vch: &crate::Vch) -> bool {
        match &self.scope {
            Scope::Everywhere => true,
            Scope::Class(class) => *class == vch.class,
            Scope::Vch(id) => *id == vch.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for mode in [Mode::Enforce, Mode::Monitor] {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        for policy in [OnFailure::Refuse, OnFailure::Skip] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let error = "warn".parse::<Mode>().unwrap_err();
        assert_eq!(error.to_string(), "`warn` is no mode: expected enforce or monitor");
    }
}
