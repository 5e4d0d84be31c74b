//! The recorded answer of admission and placement (later also of network mapping).

use crate::ids::{DecisionId, VchId};
use crate::placement::PlacementReport;
use crate::plugin::PluginReport;
use crate::reason::Reason;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Allow,
    Deny,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        }
    }
}

/// Everything that is needed to tell why, later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub id: DecisionId,
    pub vch: VchId,
    pub at: DateTime<Utc>,
    /// `Action::name` of what was asked.
    pub action: String,
    pub caller: String,
    /// The thing acted on, as the policies saw it: `Container::"…"`.
    pub resource: String,
    pub verdict: Verdict,
    pub reasons: Vec<Reason>,
    /// Digest of the policy set that decided.
    pub policy_set: String,
    /// Canonical inputs, without secrets: what a replay needs.
    pub inputs: serde_json::Value,
    /// What plugins said, in the order in which they were asked.
    pub plugins: Vec<PluginReport>,
    /// How a place was chosen; none where none was to be.
    pub placement: Option<PlacementReport>,
    /// Time that the policies took, in microseconds.
    pub took_us: u64,
}
