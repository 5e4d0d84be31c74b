//! `[policies]`: where the policies are and how long decisions are kept.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoliciesSection {
    /// `policies` in the data folder unless given.
    pub dir: Option<PathBuf>,
    pub decision_days: u32,
}

impl Default for PoliciesSection {
    fn default() -> Self {
        Self { dir: None, decision_days: 30 }
    }
}

impl PoliciesSection {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            problems.push("[policies] dir is not an absolute path".into());
        }
        if self.decision_days == 0 {
            problems.push("[policies] decision_days is 0: a refusal could not be looked up".into());
        }
    }
}
