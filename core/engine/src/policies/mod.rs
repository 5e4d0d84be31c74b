//! The policies as revisions: what is in force, how it came, what comes next, and what another set would have said.
//!
//! ```text
//!   folder ──── looked at, once it stands still ──┐
//!   draft ───── activate ─────────────────────────┼─▶ examine ─▶ revision in the database ─▶ Decider
//!   revision ── roll back ────────────────────────┘   (validation, probe, cases)
//! ```
//!
//! **Invariants:** every way in goes through the same gates and ends in a row; the newest row is what is in force. One
//! change is made after another, each on the revision that its author knew. What was refused changes nothing.

mod activate;
mod drafts;
mod folder;
mod history;
mod replay;
mod what_if;

pub use activate::{Activation, Expected};
pub use drafts::{DraftCheck, DraftFiles, NewDraft};
pub use folder::open_policies;
pub use history::{FileDifference, RevisionDifference};
pub use replay::Replay;
pub use what_if::{Flip, WhatIf, WhatIfQuery};

// What callers need of it, so that they need not know the crates.
pub use bulkhead_policy::{CaseResult, Difference, PolicyError, Problem as PolicyProblem};
pub use bulkhead_store::DecisionFilter;

use crate::EngineError;
use bulkhead_model::PolicyFiles;
use bulkhead_policy::{Examined, examine};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// What the use cases here share.
#[derive(Debug)]
pub(crate) struct PolicyDesk {
    /// Changes are made one after another.
    turn: tokio::sync::Mutex<()>,
    /// The database may say something else than what is in force.
    behind: AtomicBool,
    /// Asking thousands of decisions again takes all processors: one after another.
    what_if: tokio::sync::Mutex<()>,
}

impl PolicyDesk {
    pub(crate) fn new() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            behind: AtomicBool::new(false),
            what_if: Default::default(),
        }
    }
}

/// Computing that takes longer than a moment.
pub(crate) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Stopping)
}

async fn examined(files: PolicyFiles, root: PathBuf) -> Result<Examined, EngineError> {
    compute(move || examine(&files, &root)).await?.map_err(refused)
}

fn refused(error: PolicyError) -> EngineError {
    EngineError::PoliciesRefused(Box::new(error))
}
