//! What a plugin said in one decision, as it is kept.

use super::{Change, Mode, PluginName};
use crate::digest::Digest;
use crate::reason::{Reason, Rule};
use serde::{Deserialize, Serialize};

/// One plugin's part in a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginReport {
    pub binding: PluginName,
    pub plugin: PluginName,
    pub version: String,
    pub digest: Digest,
    pub mode: Mode,
    pub said: Said,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Of candidates, what it read, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    pub took_us: u64,
    /// Instructions, by the counting of the WebAssembly engine: the same call costs the same anywhere.
    pub fuel: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Said {
    Allow,
    Change {
        /// With why.
        changes: Vec<(Change, String)>,
    },
    Deny {
        denials: Vec<Denied>,
    },
    /// To candidates: how many it refused, and how many it gave a score.
    Rate {
        refused: u32,
        rated: u32,
    },
    Failed {
        why: Failure,
        text: String,
    },
    /// It failed too often in short time and is not asked for a while.
    Quarantined,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// Stable, for programs.
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How a plugin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// It ended itself, as by a panic.
    Trap,
    Deadline,
    Fuel,
    Memory,
    /// More data than a call may pass.
    Size,
    /// What it answered cannot be.
    Answer,
    /// It said itself that it cannot.
    Error,
    /// It could not be loaded.
    Load,
    /// The engine's own: it could not be asked.
    Host,
}

impl Failure {
    pub const ALL: [Failure; 9] = [
        Failure::Trap,
        Failure::Deadline,
        Failure::Fuel,
        Failure::Memory,
        Failure::Size,
        Failure::Answer,
        Failure::Error,
        Failure::Load,
        Failure::Host,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Trap => "trap",
            Failure::Deadline => "deadline",
            Failure::Fuel => "fuel",
            Failure::Memory => "memory",
            Failure::Size => "size",
            Failure::Answer => "answer",
            Failure::Error => "error",
            Failure::Load => "load",
            Failure::Host => "host",
        }
    }
}

impl Said {
    /// `allow`, `change`, `deny`, `rate`, `failed`, `quarantined`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Said::Allow => "allow",
            Said::Change { .. } => "change",
            Said::Deny { .. } => "deny",
            Said::Rate { .. } => "rate",
            Said::Failed { .. } => "failed",
            Said::Quarantined => "quarantined",
        }
    }
}

impl PluginReport {
    /// Why it stands in the way, where it does: what it said against the request, or that it could say nothing.
    pub fn objections(&self) -> Vec<Reason> {
        let reason = |text: String| Reason::new(Rule::Plugin(self.binding.to_string()), "request", text);
        match &self.said {
            Said::Allow | Said::Change { .. } | Said::Rate { .. } => Vec::new(),
            Said::Deny { denials } => denials
                .iter()
                .map(|denied| {
                    let reason = reason(denied.message.clone());
                    match &denied.remedy {
                        Some(remedy) => reason.advise(remedy.clone()),
                        None => reason,
                    }
                })
                .collect(),
            Said::Failed { why, text } => {
                vec![reason(format!("it failed ({}), which denies: {text}", why.as_str()))]
            }
            Said::Quarantined => {
                vec![reason("it failed too often and is not asked for a while, which denies".into())]
            }
        }
    }
}
