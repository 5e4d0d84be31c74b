//! Putting a set in force: a draft, or a revision again.

use super::folder::{Wanted, version};
use super::{Difference, compute, examined, refused};
use crate::{Engine, EngineError};
use bulkhead_model::{Action, Caller, DraftName, PolicyFiles, PolicyOrigin, PolicyRevision};
use bulkhead_policy::{Known, PolicySet, Subject};
use bulkhead_store::{AuditEntry, Record, StoreError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const COMMENT_CHARS_MAX: usize = 500;

/// Which revision must be in force for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The one that the draft was begun from; any, for a rollback.
    Base,
    Any,
    Revision(u64),
}

/// What was put in force, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Its number is that which it has, or would have.
    pub revision: PolicyRevision,
    /// From what was in force before.
    pub difference: Difference,
    /// Cases of the set that passed.
    pub cases: usize,
}

impl Engine {
    /// Puts a draft in force. `dry_run`: everything but that.
    pub async fn policy_activate(
        &self,
        caller: &Caller,
        name: &str,
        expected: Expected,
        comment: &str,
        dry_run: bool,
    ) -> Result<Activation, EngineError> {
        let audit = self.admit_operator(caller, Action::PolicyActivate, Subject::Platform).await?.audit;
        let draft = self.find_draft(name).await?;
        let expected = match expected {
            Expected::Base => Some(draft.base),
            Expected::Any => None,
            Expected::Revision(number) => Some(number),
        };
        let change = Change {
            files: draft.files,
            origin: PolicyOrigin::Draft(draft.name.to_string()),
            by: caller.clone(),
            comment: comment.to_owned(),
            expected,
            dry_run,
            audit,
        };
        self.change_policies(change).await
    }

    /// Puts a revision in force again, as a new one.
    pub async fn policy_rollback(
        &self,
        caller: &Caller,
        number: u64,
        expected: Expected,
        comment: &str,
        dry_run: bool,
    ) -> Result<Activation, EngineError> {
        let audit = self.admit_operator(caller, Action::PolicyActivate, Subject::Platform).await?.audit;
        let change = Change {
            files: self.find_revision(number).await?.files,
            origin: PolicyOrigin::Rollback(number),
            by: caller.clone(),
            comment: comment.to_owned(),
            expected: if let Expected::Revision(number) = expected { Some(number) } else { None },
            dry_run,
            audit,
        };
        self.change_policies(change).await
    }

    /// To its end, whether or not somebody still waits for it.
    async fn change_policies(&self, change: Change) -> Result<Activation, EngineError> {
        if change.comment.chars().count() > COMMENT_CHARS_MAX || change.comment.contains('\0') {
            let why = format!("at most {COMMENT_CHARS_MAX} characters, none of them NUL");
            let value = change.comment.chars().take(40).filter(|c| !c.is_control()).collect();
            return Err(EngineError::Invalid { what: "comment", value, why });
        }
        let engine = self.clone();
        let work = async move { engine.change_policies_now(change).await };
        self.0.tasks.spawn(work).await.unwrap_or(Err(EngineError::Stopping))
    }

    async fn change_policies_now(&self, change: Change) -> Result<Activation, EngineError> {
        let Change { files, origin, by, comment, expected, dry_run, audit } = change;
        // Before the turn: it is what takes long.
        let examined = examined(files.clone(), PathBuf::new()).await?;
        let cases = examined.cases.len();
        let set = examined.passed().map_err(refused)?;
        let _turn = self.0.policy_desk.turn.lock().await;
        if self.0.policy_desk.behind.load(Ordering::SeqCst) {
            self.policies_as_recorded().await?;
        }
        let active = self.0.policies.version().revision;
        if let Some(expected) = expected.filter(|expected| *expected != active) {
            return Err(EngineError::PoliciesChanged { expected, active });
        }
        let difference = self.0.policies.set().difference(&set);
        let wanted = Wanted { files, origin, by, comment: &comment };
        let revision = match dry_run {
            true => wanted.revision(active + 1, &set, self.now()),
            false => self.put_in_force(wanted, set, Some(audit)).await?,
        };
        Ok(Activation { revision, difference, cases })
    }

    /// Writes it down, and it decides. Within the turn.
    pub(super) async fn put_in_force(
        &self,
        wanted: Wanted<'_>,
        set: PolicySet,
        audit: Option<AuditEntry>,
    ) -> Result<PolicyRevision, EngineError> {
        let now = self.now();
        let active = self.0.policies.version().revision;
        let revision = wanted.revision(active + 1, &set, now);
        let mut record = Record::at(now);
        record.audit = Some(audit.unwrap_or_else(|| AuditEntry {
            caller: revision.by.clone(),
            action: Action::PolicyActivate.name().into(),
            resource: "Platform::\"bulkhead\"".into(),
            decision: None,
            outcome: "done".into(),
        }));
        match self.store().insert_policy_revision(&revision, &record).await {
            Ok(()) => {}
            Err(StoreError::Conflict { .. }) => {
                self.0.policy_desk.behind.store(true, Ordering::SeqCst);
                return Err(EngineError::PoliciesChanged { expected: active, active: revision.number });
            }
            Err(other) => {
                // It may be written down for all that.
                self.0.policy_desk.behind.store(true, Ordering::SeqCst);
                return Err(other.into());
            }
        }
        let Difference { added, removed, changed } = self.0.policies.set().difference(&set);
        let set = Arc::new(set);
        self.0.policies.put(set.clone(), version(&revision));
        tracing::info!(
            revision = revision.number,
            digest = %revision.digest,
            origin = %revision.origin,
            by = %revision.by,
            ?added,
            ?removed,
            ?changed,
            "new policies are in force"
        );
        // It is in force by now; that it cannot be told what may be wrong with it is no reason to say otherwise.
        for stranger in self.known_to_policies().await.map(|known| set.strangers(&known)).unwrap_or_default()
        {
            tracing::warn!("{stranger}");
        }
        Ok(revision)
    }

    pub(super) async fn known_to_policies(&self) -> Result<Known, EngineError> {
        let all = self.store().vchs().await?;
        Ok(Known {
            tenants: all.iter().map(|vch| vch.tenant.clone()).collect(),
            vchs: all.iter().map(|vch| vch.id.to_string()).collect(),
        })
    }

    /// Puts in force what the database says, where it is not.
    pub(super) async fn policies_as_recorded(&self) -> Result<(), EngineError> {
        if let Some(newest) = self.store().newest_policy_revision().await?
            && newest.number != self.0.policies.version().revision
        {
            let (files, now) = (newest.files.clone(), version(&newest));
            let set =
                compute(move || PolicySet::from_files(&files, Path::new(""))).await?.map_err(refused)?;
            self.0.policies.put(Arc::new(set), now);
        }
        self.0.policy_desk.behind.store(false, Ordering::SeqCst);
        Ok(())
    }

    pub(super) async fn find_draft(&self, name: &str) -> Result<bulkhead_model::PolicyDraft, EngineError> {
        let missing = || EngineError::NoSuchDraft(name.chars().take(80).collect());
        let parsed: DraftName = name.parse().map_err(|_| missing())?;
        match self.store().policy_draft(&parsed).await {
            Err(StoreError::NotFound { .. }) => Err(missing()),
            other => Ok(other?),
        }
    }

    pub(super) async fn find_revision(&self, number: u64) -> Result<PolicyRevision, EngineError> {
        // Above what the database can count to there is none.
        let number = number.min(u64::try_from(i64::MAX).unwrap_or(0));
        match self.store().policy_revision(number).await {
            Err(StoreError::NotFound { .. }) => Err(EngineError::NoSuchRevision(number)),
            other => Ok(other?),
        }
    }
}

struct Change {
    files: PolicyFiles,
    origin: PolicyOrigin,
    by: Caller,
    comment: String,
    expected: Option<u64>,
    dry_run: bool,
    audit: AuditEntry,
}
