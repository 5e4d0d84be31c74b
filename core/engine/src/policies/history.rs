//! Revisions that are or were in force.

use super::{Difference, compute, refused};
use crate::{Engine, EngineError};
use bulkhead_model::{Action, Caller, PolicyFiles, PolicyRevision};
use bulkhead_policy::{PolicySet, Subject, unified_diff};
use std::collections::BTreeSet;

/// From one revision to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionDifference {
    /// By policy id.
    pub policies: Difference,
    /// Files that differ, by name.
    pub files: Vec<FileDifference>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    pub name: String,
    /// Lines as `diff -u` has them, without its header.
    pub diff: String,
}

impl Engine {
    /// The newest before number `before`, newest first, without their files.
    pub async fn policy_revisions(
        &self,
        caller: &Caller,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<PolicyRevision>, EngineError> {
        self.admit_operator(caller, Action::PolicyRead, Subject::Platform).await?;
        Ok(self.store().policy_revisions(before, limit).await?)
    }

    pub async fn policy_revision(&self, caller: &Caller, number: u64) -> Result<PolicyRevision, EngineError> {
        self.admit_operator(caller, Action::PolicyRead, Subject::Platform).await?;
        self.find_revision(number).await
    }

    pub async fn policy_diff(
        &self,
        caller: &Caller,
        from: u64,
        to: u64,
    ) -> Result<RevisionDifference, EngineError> {
        let (from, to) = (self.policy_revision(caller, from).await?, self.find_revision(to).await?);
        let differ = move || {
            let (old, new) = (PolicySet::of_revision(&from)?, PolicySet::of_revision(&to)?);
            Ok(RevisionDifference {
                policies: old.difference(&new),
                files: differing(&from.files, &to.files),
            })
        };
        compute(differ).await?.map_err(refused)
    }
}

fn differing(old: &PolicyFiles, new: &PolicyFiles) -> Vec<FileDifference> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let text = |files: &PolicyFiles, name: &str| files.get(name).cloned().unwrap_or_default();
    let differ = |name: &&String| old.get(*name) != new.get(*name);
    let difference = |name: &String| FileDifference {
        name: name.clone(),
        diff: unified_diff(&text(old, name), &text(new, name)),
    };
    names.into_iter().filter(differ).map(difference).collect()
}
