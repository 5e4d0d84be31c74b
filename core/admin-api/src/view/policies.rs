//! Policies: revisions, drafts, and what would change.

use bulkhead_engine::{
    Activation, CaseResult, Difference, DraftCheck, FileDifference, Flip, PolicyProblem, Replay,
    RevisionDifference, WhatIf,
};
use bulkhead_model::{PolicyDraft, PolicyFiles, PolicyOrigin, PolicyRevision, Reason};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatusView {
    /// Digest of the set in force.
    pub policy_set: String,
    /// Its revision, which is the entity tag that `If-Match` wants; 0: it was never written down.
    pub revision: u64,
    pub origin: PolicyOrigin,
    pub policies: usize,
    pub classes: Vec<bulkhead_model::Class>,
    /// Why the folder, as it is now, is not in force.
    pub problem: Option<String>,
}

/// A set that is or was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionView {
    pub revision: u64,
    pub digest: String,
    pub origin: PolicyOrigin,
    pub at: DateTime<Utc>,
    pub by: String,
    pub comment: String,
    /// Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<PolicyFiles>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// `cursor` of the next page; none: this is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Ids of policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceView {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionDifferenceView {
    pub policies: DifferenceView,
    pub files: Vec<FileDifferenceView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDifferenceView {
    pub name: String,
    /// As `diff -u` has it, without the header.
    pub diff: String,
}

/// Asks for a draft: all files, or a patch of those of its base, where `null` takes a file away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftAsk {
    /// The revision that it is begun from; the one in force if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<PolicyFiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftView {
    pub name: String,
    /// Its entity tag.
    pub revision: u64,
    /// The revision of the policies that it was begun from.
    pub base: u64,
    pub changed_at: DateTime<Utc>,
    pub changed_by: String,
    /// Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<PolicyFiles>,
}

/// What is wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyProblemView {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// In characters, at least 1.
    pub length: usize,
    pub source_line: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// What activation would say of a draft.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftCheckView {
    /// Whether it could be put in force.
    pub good: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    pub policies: usize,
    /// From what is in force.
    pub difference: DifferenceView,
    /// Everything that is wrong, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The same by places, where it has some.
    pub problems: Vec<PolicyProblemView>,
    pub cases: Vec<CaseView>,
    /// What may be a mistake: tenants and VCHs that are not there.
    #[serde(default)]
    pub warnings: Vec<PolicyProblemView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseView {
    /// `TOPIC/DENY/SENTENCE`.
    pub name: String,
    /// Left out: it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActivateAsk {
    /// Why, for whoever reads the history.
    pub comment: String,
    /// Everything but putting it in force.
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationView {
    pub revision: RevisionView,
    pub difference: DifferenceView,
    /// Cases of the set that passed.
    pub cases: usize,
    pub dry_run: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WhatIfAsk {
    pub since: Option<DateTime<Utc>>,
    /// The newest so many; 10,000 if left out, and at most.
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhatIfView {
    /// Digest of the draft's policies.
    pub policy_set: String,
    /// Asked again.
    pub decisions: u64,
    pub newly_allowed: u64,
    pub newly_denied: u64,
    /// Newly allowed ones first; the newest of each first.
    pub flips: Vec<FlipView>,
    /// Could not be asked again: why, and how many.
    pub not_replayed: BTreeMap<String, u64>,
    pub took_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlipView {
    pub id: String,
    pub at: DateTime<Utc>,
    pub vch: String,
    pub action: String,
    pub caller: String,
    pub resource: String,
    pub before: String,
    pub after: String,
    pub reasons: Vec<Reason>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplayView {
    pub id: String,
    /// The newest revision with the policies that were in force.
    pub revision: u64,
    pub policy_set: String,
    /// As it was recorded, plugins included.
    pub recorded: String,
    /// What the policies say, asked again.
    pub verdict: String,
    pub reasons: Vec<Reason>,
    /// Whether that is what they said then.
    pub same: bool,
}

impl RevisionView {
    /// Without its files.
    pub(crate) fn listed(revision: PolicyRevision) -> Self {
        Self { files: None, ..Self::from(revision) }
    }
}

impl From<PolicyRevision> for RevisionView {
    fn from(revision: PolicyRevision) -> Self {
        Self {
            revision: revision.number,
            digest: revision.digest.to_string(),
            origin: revision.origin,
            at: revision.at,
            by: revision.by,
            comment: revision.comment,
            files: Some(revision.files),
        }
    }
}

impl DraftView {
    pub(crate) fn listed(draft: PolicyDraft) -> Self {
        Self { files: None, ..Self::from(draft) }
    }
}

impl From<PolicyDraft> for DraftView {
    fn from(draft: PolicyDraft) -> Self {
        Self {
            name: draft.name.to_string(),
            revision: draft.revision,
            base: draft.base,
            changed_at: draft.changed_at,
            changed_by: draft.changed_by,
            files: Some(draft.files),
        }
    }
}

impl From<Difference> for DifferenceView {
    fn from(difference: Difference) -> Self {
        let Difference { added, removed, changed } = difference;
        Self { added, removed, changed }
    }
}

impl From<RevisionDifference> for RevisionDifferenceView {
    fn from(difference: RevisionDifference) -> Self {
        let file = |FileDifference { name, diff }| FileDifferenceView { name, diff };
        Self { policies: difference.policies.into(), files: difference.files.into_iter().map(file).collect() }
    }
}

impl From<&PolicyProblem> for PolicyProblemView {
    fn from(problem: &PolicyProblem) -> Self {
        Self {
            file: problem.file.display().to_string(),
            line: problem.line,
            column: problem.column,
            length: problem.length,
            source_line: problem.source_line.clone(),
            message: problem.message.clone(),
            help: problem.help.clone(),
        }
    }
}

impl From<DraftCheck> for DraftCheckView {
    fn from(check: DraftCheck) -> Self {
        let case = |CaseResult { name, failure }| CaseView { name, failure };
        Self {
            good: check.cases.iter().all(|case| case.failure.is_none()),
            digest: Some(check.digest),
            policies: check.policies,
            difference: check.difference.into(),
            problem: None,
            problems: Vec::new(),
            cases: check.cases.into_iter().map(case).collect(),
            warnings: check.warnings.iter().map(PolicyProblemView::from).collect(),
        }
    }
}

impl ActivationView {
    pub(crate) fn new(activation: Activation, dry_run: bool) -> Self {
        Self {
            revision: RevisionView::listed(activation.revision),
            difference: activation.difference.into(),
            cases: activation.cases,
            dry_run,
        }
    }
}

impl From<WhatIf> for WhatIfView {
    fn from(what_if: WhatIf) -> Self {
        let flips: Vec<FlipView> = what_if.flips.into_iter().map(FlipView::from).collect();
        let count = |verdict: &str| flips.iter().map(|flip| u64::from(flip.after == verdict)).sum();
        Self {
            policy_set: what_if.policy_set,
            decisions: what_if.decisions,
            newly_allowed: count("allow"),
            newly_denied: count("deny"),
            flips,
            not_replayed: what_if.not_replayed,
            took_ms: u64::try_from(what_if.took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl From<Flip> for FlipView {
    fn from(flip: Flip) -> Self {
        Self {
            id: flip.id.to_string(),
            at: flip.at,
            vch: flip.vch.to_string(),
            action: flip.action,
            caller: flip.caller,
            resource: flip.resource,
            before: flip.before.as_str().into(),
            after: flip.after.as_str().into(),
            reasons: flip.reasons,
        }
    }
}

impl From<Replay> for ReplayView {
    fn from(replay: Replay) -> Self {
        Self {
            id: replay.decision.id.to_string(),
            revision: replay.revision,
            policy_set: replay.decision.policy_set,
            recorded: replay.decision.verdict.as_str().into(),
            verdict: replay.verdict.as_str().into(),
            reasons: replay.reasons,
            same: replay.same,
        }
    }
}
