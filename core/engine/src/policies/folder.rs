//! The folder of policies: at the start, and while the server runs. A change of it is a wish to have it in force, whatever
//! is in force then; a folder that stays as it is wishes nothing, so what came another way stays in force.

use super::{compute, examined, refused};
use crate::{Engine, EngineError};
use bulkhead_model::{Caller, PolicyFiles, PolicyOrigin, PolicyRevision};
use bulkhead_policy::{Decider, LOOK_EVERY, PolicyError, PolicySet, Settings, Version, Watched, read_folder};
use bulkhead_store::{Record, Store};
use chrono::{DateTime, Utc};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// What is in force when a server starts: the folder, if it is another than it was at its last revision; else the newest
/// revision. A wrong folder keeps the newest revision in force, and is an error where there is none.
pub async fn open_policies(
    store: &Store,
    dir: &Path,
    settings: Settings,
    now: DateTime<Utc>,
) -> Result<Decider, EngineError> {
    let newest = store.newest_policy_revision().await?;
    let (folder, path) = (store.newest_folder_revision().await?, dir.to_owned());
    let read = compute(move || read_folder(&path)).await?;
    let number = newest.as_ref().map_or(0, |newest| newest.number) + 1;
    let problem = match read {
        Err(error) => Some(error),
        Ok(files) if folder.is_some_and(|folder| folder.files == files) => None,
        Ok(files) => match examined(files.clone(), dir.into()).await.map(|examined| examined.passed()) {
            Ok(Ok(set)) => {
                let wanted =
                    Wanted { files, origin: PolicyOrigin::Folder, by: Caller::system(), comment: "" };
                let revision = wanted.revision(number, &set, now);
                store.insert_policy_revision(&revision, &Record::at(now)).await?;
                return Ok(Decider::of(Arc::new(set), version(&revision), settings));
            }
            Ok(Err(error)) => Some(error),
            Err(EngineError::PoliciesRefused(error)) => Some(*error),
            Err(other) => return Err(other),
        },
    };
    let Some(newest) = newest else {
        let nothing = || PolicyError::Layout { path: dir.into(), why: "it was never in force".into() };
        return Err(refused(problem.unwrap_or_else(nothing)));
    };
    let (set, revision) = at_start(store, newest, now).await?;
    let decider = Decider::of(Arc::new(set), version(&revision), settings);
    if let Some(problem) = problem {
        tracing::error!(folder = %dir.display(), revision = revision.number, "policies refused, an older revision is in force: {problem}");
        decider.tell(Some(problem.to_string()));
    }
    Ok(decider)
}

/// The newest revision, checked against the schema of this release.
async fn at_start(
    store: &Store,
    newest: PolicyRevision,
    now: DateTime<Utc>,
) -> Result<(PolicySet, PolicyRevision), EngineError> {
    let files = newest.files.clone();
    let set = compute(move || PolicySet::from_files(&files, Path::new(""))).await?;
    let set = set.map_err(|error| {
        tracing::error!(
            revision = newest.number,
            "the policies in force do not fit this release; put a corrected set into the folder"
        );
        refused(error)
    })?;
    if *set.digest() == newest.digest {
        return Ok((set, newest));
    }
    let (origin, by) = (PolicyOrigin::Release, Caller::system());
    let wanted = Wanted { files: newest.files, origin, by, comment: "" };
    let revision = wanted.revision(newest.number + 1, &set, now);
    store.insert_policy_revision(&revision, &Record::at(now)).await?;
    Ok((set, revision))
}

/// A set that is to be in force.
pub(super) struct Wanted<'a> {
    pub files: PolicyFiles,
    pub origin: PolicyOrigin,
    pub by: Caller,
    pub comment: &'a str,
}

impl Wanted<'_> {
    pub fn revision(self, number: u64, set: &PolicySet, at: DateTime<Utc>) -> PolicyRevision {
        PolicyRevision {
            number,
            digest: set.digest().clone(),
            schema: set.schema_text().to_owned(),
            files: self.files,
            origin: self.origin,
            at,
            by: self.by.name,
            comment: self.comment.to_owned(),
        }
    }
}

pub(super) fn version(revision: &PolicyRevision) -> Version {
    Version { revision: revision.number, origin: revision.origin.clone() }
}

impl Engine {
    /// Follows the folder until told to stop: a change is in force within a second, or refused with its position.
    pub async fn follow_policies(self, dir: PathBuf, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watched = Some(Watched::new(dir.clone()));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if self.0.policy_desk.behind.load(Ordering::SeqCst)
                && let Err(error) = self.policies_as_recorded().await
            {
                tracing::error!(%error, "the newest policies cannot be read; it is tried again");
            }
            let retry = self.0.policies.status().problem.is_some();
            let mut taken = watched.take().unwrap_or_else(|| Watched::new(dir.clone()));
            let looked = compute(move || {
                let read = taken.look(retry);
                (taken, read)
            });
            match looked.await {
                Ok((again, read)) => {
                    watched = Some(again);
                    if let Some(read) = read {
                        // A refusal is in the status and the log; there is nobody else to tell.
                        let _ = self.policies_from_folder(&dir, read).await;
                    }
                }
                Err(error) => tracing::error!(%error, "the policy files could not be looked at"),
            }
        }
    }

    /// Reads the folder now, as if it had just changed.
    pub async fn read_policies(&self, dir: &Path) -> Result<(), EngineError> {
        let path = dir.to_owned();
        let read = compute(move || read_folder(&path)).await?;
        self.policies_from_folder(dir, read).await
    }

    async fn policies_from_folder(
        &self,
        dir: &Path,
        read: Result<PolicyFiles, PolicyError>,
    ) -> Result<(), EngineError> {
        let done = async {
            let files = read.map_err(refused)?;
            let _turn = self.0.policy_desk.turn.lock().await;
            let last = self.store().newest_folder_revision().await?;
            if last.is_some_and(|last| last.files == files) {
                if self.0.policies.tell(None) {
                    tracing::info!("the policy files are those of the folder's newest revision again");
                }
                return Ok(());
            }
            let set = examined(files.clone(), dir.into()).await?.passed().map_err(refused)?;
            let wanted = Wanted { files, origin: PolicyOrigin::Folder, by: Caller::system(), comment: "" };
            self.put_in_force(wanted, set, None).await.map(drop)
        };
        let done: Result<(), EngineError> = done.await;
        if let Err(error) = &done {
            let text = error.to_string();
            if self.0.policies.tell(Some(text.clone())) {
                tracing::error!(folder = %dir.display(), "policies refused, the old ones stay in force: {text}");
            }
        }
        done
    }
}
