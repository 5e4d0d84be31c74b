//! Drafts: sets that somebody writes. They may be wrong as long as they like; only their size is limited.

use super::{CaseResult, Difference, PolicyProblem, compute, examined};
use crate::{Engine, EngineError};
use bulkhead_model::{Action, Caller, DraftName, PolicyDraft, PolicyFiles};
use bulkhead_policy::Subject;
use bulkhead_store::{Record, StoreError};
use std::collections::BTreeMap;
use std::path::PathBuf;

const DRAFTS_MAX: usize = 50;
const FILES_MAX: usize = 2000;
const NAME_BYTES_MAX: usize = 200;

/// A draft as it is to be.
#[derive(Debug, Clone)]
pub struct NewDraft {
    /// The revision that it is begun from; the one in force if none is said.
    pub base: Option<u64>,
    pub files: DraftFiles,
}

#[derive(Debug, Clone)]
pub enum DraftFiles {
    /// All of them.
    Whole(PolicyFiles),
    /// Those of the base but for these: another text, or none for a file that is to go.
    Patch(BTreeMap<String, Option<String>>),
}

/// What is to be said of a draft that passed validation and probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftCheck {
    pub digest: String,
    pub policies: usize,
    /// From what is in force.
    pub difference: Difference,
    pub cases: Vec<CaseResult>,
    /// What may be a mistake: tenants and VCHs that are not there.
    pub warnings: Vec<PolicyProblem>,
}

impl Engine {
    pub async fn policy_drafts(&self, caller: &Caller) -> Result<Vec<PolicyDraft>, EngineError> {
        self.admit_operator(caller, Action::PolicyRead, Subject::Platform).await?;
        Ok(self.store().policy_drafts().await?)
    }

    pub async fn policy_draft(&self, caller: &Caller, name: &str) -> Result<PolicyDraft, EngineError> {
        self.admit_operator(caller, Action::PolicyRead, Subject::Platform).await?;
        self.find_draft(name).await
    }

    /// Makes a draft, or puts another in its place. `before`: the revision that the draft must have now (0: there must be
    /// none); none: whatever there is.
    pub async fn policy_draft_put(
        &self,
        caller: &Caller,
        name: DraftName,
        new: NewDraft,
        before: Option<u64>,
    ) -> Result<PolicyDraft, EngineError> {
        let admitted = self.admit_operator(caller, Action::PolicyEdit, Subject::Platform).await?;
        let base = match new.base {
            Some(0) | None => self.0.policies.version().revision,
            Some(number) => self.find_revision(number).await?.number,
        };
        let files = match new.files {
            DraftFiles::Whole(files) => files,
            DraftFiles::Patch(patch) => {
                let files =
                    if base == 0 { PolicyFiles::new() } else { self.find_revision(base).await?.files };
                patched(files, patch)?
            }
        };
        check_size(&files)?;
        let _turn = self.0.policy_desk.turn.lock().await;
        let all = self.store().policy_drafts().await?;
        let now = all.iter().find(|draft| draft.name == name).map(|draft| draft.revision);
        if before.is_some_and(|before| before != now.unwrap_or(0)) {
            return Err(changed(&name));
        }
        if now.is_none() && all.len() >= DRAFTS_MAX {
            let why = format!("there are {DRAFTS_MAX} drafts already: remove one");
            return Err(EngineError::Invalid { what: "draft", value: name.to_string(), why });
        }
        let draft = PolicyDraft {
            name,
            revision: now.unwrap_or(0) + 1,
            base,
            files,
            changed_at: self.now(),
            changed_by: caller.name.clone(),
        };
        let record = Record::at(draft.changed_at).audit(admitted.audit);
        match self.store().put_policy_draft(&draft, &record).await {
            Err(StoreError::Conflict { .. }) => Err(changed(&draft.name)),
            other => Ok(other.map(|()| draft)?),
        }
    }

    pub async fn policy_draft_remove(&self, caller: &Caller, name: &str) -> Result<(), EngineError> {
        let admitted = self.admit_operator(caller, Action::PolicyEdit, Subject::Platform).await?;
        let draft = self.find_draft(name).await?;
        let record = Record::at(self.now()).audit(admitted.audit);
        match self.store().delete_policy_draft(&draft.name, &record).await {
            Err(StoreError::NotFound { .. }) => Err(EngineError::NoSuchDraft(name.to_owned())),
            other => Ok(other?),
        }
    }

    /// What activation would say of it. Problems with policies are the error; cases that fail are in the answer.
    pub async fn policy_draft_check(&self, caller: &Caller, name: &str) -> Result<DraftCheck, EngineError> {
        let draft = self.policy_draft(caller, name).await?;
        let examined = examined(draft.files, PathBuf::new()).await?;
        let active = self.0.policies.set();
        let known = self.known_to_policies().await?;
        compute(move || DraftCheck {
            warnings: examined.set.strangers(&known),
            digest: examined.set.digest().to_string(),
            policies: examined.set.len(),
            difference: active.difference(&examined.set),
            cases: examined.cases,
        })
        .await
    }
}

fn patched(
    mut files: PolicyFiles,
    patch: BTreeMap<String, Option<String>>,
) -> Result<PolicyFiles, EngineError> {
    for (name, text) in patch {
        match text {
            Some(text) => {
                files.insert(name, text);
            }
            None if files.remove(&name).is_some() => {}
            None => {
                let why = "the base has no such file that could go".to_owned();
                return Err(EngineError::Invalid { what: "file", value: name, why });
            }
        }
    }
    Ok(files)
}

fn check_size(files: &PolicyFiles) -> Result<(), EngineError> {
    let bytes: usize = files.iter().map(|(name, text)| name.len() + text.len()).sum();
    if files.len() > FILES_MAX || bytes > bulkhead_policy::BYTES_MAX {
        let why = format!("at most {FILES_MAX} files of {} bytes together", bulkhead_policy::BYTES_MAX);
        return Err(EngineError::Invalid { what: "draft", value: format!("{} files", files.len()), why });
    }
    match files.keys().find(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        Some(name) => {
            let why = format!("a name has 1 to {NAME_BYTES_MAX} bytes");
            Err(EngineError::Invalid { what: "file", value: name.chars().take(40).collect(), why })
        }
        None => Ok(()),
    }
}

fn changed(name: &DraftName) -> EngineError {
    EngineError::DraftChanged(name.to_string())
}
