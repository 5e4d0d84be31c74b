//! What another set would have said of what was decided: recorded decisions, asked again of a draft.

use super::{compute, refused};
use crate::{Engine, EngineError};
use bulkhead_model::{Action, Caller, DecisionId, Reason, VchId, Verdict};
use bulkhead_policy::{PolicySet, Replayed, Subject};
use bulkhead_store::{DecisionFilter, RecordedDecision};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Decisions that are read from the database at a time, and decided on by one processor.
const PAGE: u32 = 500;
/// Of one question.
pub const DECISIONS_MAX: u32 = 10_000;

/// Which decisions are asked again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WhatIfQuery {
    /// From this time on.
    pub since: Option<DateTime<Utc>>,
    /// At most so many, the newest; at most [`DECISIONS_MAX`].
    pub limit: u32,
}

/// What a draft would have said.
#[derive(Debug, Clone, PartialEq)]
pub struct WhatIf {
    /// Of the draft's policies.
    pub policy_set: String,
    /// Decisions that were asked again.
    pub decisions: u64,
    /// Newly allowed ones first, then newly denied ones; the newest of each first.
    pub flips: Vec<Flip>,
    /// Decisions that could not be asked again, counted by why.
    pub not_replayed: BTreeMap<String, u64>,
    pub took: Duration,
}

/// A decision that would come out the other way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    pub id: DecisionId,
    pub at: DateTime<Utc>,
    pub vch: VchId,
    pub action: String,
    pub caller: String,
    pub resource: String,
    pub before: Verdict,
    pub after: Verdict,
    /// Why it would, by the draft's policies.
    pub reasons: Vec<Reason>,
}

enum Answer {
    Same,
    Flip(Box<Flip>),
    NotReplayed(String),
}

impl Engine {
    pub async fn policy_what_if(
        &self,
        caller: &Caller,
        name: &str,
        query: WhatIfQuery,
    ) -> Result<WhatIf, EngineError> {
        let draft = self.policy_draft(caller, name).await?;
        self.admit_operator(caller, Action::DecisionRead, Subject::Platform).await?;
        let _alone = self.0.policy_desk.what_if.lock().await;
        let started = Instant::now();
        let set = compute(move || PolicySet::from_files(&draft.files, Path::new(""))).await?;
        let set = Arc::new(set.map_err(refused)?);
        let mut pages = Pages {
            filter: DecisionFilter { since: query.since, ..DecisionFilter::default() },
            left: query.limit.min(DECISIONS_MAX),
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut work = JoinSet::new();
        let mut found = Found::default();
        while let Some(page) = pages.next(self).await? {
            if work.len() >= workers
                && let Some(done) = work.join_next().await
            {
                found.add(done.map_err(|_| EngineError::Stopping)?);
            }
            let set = set.clone();
            work.spawn_blocking(move || page.iter().map(|decision| ask(&set, decision)).collect::<Vec<_>>());
        }
        while let Some(done) = work.join_next().await {
            found.add(done.map_err(|_| EngineError::Stopping)?);
        }
        // `Allow` sorts before `Deny` by what they are called.
        found.flips.sort_by(|a, b| {
            let after = a.after.as_str().cmp(b.after.as_str());
            after.then_with(|| (b.at, &b.id).cmp(&(a.at, &a.id)))
        });
        Ok(WhatIf {
            policy_set: set.digest().to_string(),
            decisions: found.decisions,
            flips: found.flips,
            not_replayed: found.not_replayed,
            took: started.elapsed(),
        })
    }
}

/// The newest first.
struct Pages {
    filter: DecisionFilter,
    left: u32,
}

impl Pages {
    async fn next(&mut self, engine: &Engine) -> Result<Option<Vec<RecordedDecision>>, EngineError> {
        let limit = PAGE.min(self.left);
        if limit == 0 {
            return Ok(None);
        }
        let page = engine.store().recorded_decisions(&self.filter, limit).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.filter.after = Some((last.at, last.id.clone()));
        let count = u32::try_from(page.len()).unwrap_or(u32::MAX);
        self.left = if count < limit { 0 } else { self.left - limit };
        Ok(Some(page))
    }
}

#[derive(Default)]
struct Found {
    decisions: u64,
    flips: Vec<Flip>,
    not_replayed: BTreeMap<String, u64>,
}

impl Found {
    fn add(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            self.decisions += 1;
            match answer {
                Answer::Same => {}
                Answer::Flip(flip) => self.flips.push(*flip),
                Answer::NotReplayed(why) => *self.not_replayed.entry(why).or_default() += 1,
            }
        }
    }
}

fn ask(set: &PolicySet, decision: &RecordedDecision) -> Answer {
    let unreadable =
        |error: serde_json::Error| Answer::NotReplayed(format!("the record cannot be read: {error}"));
    let inputs = match serde_json::from_str(&decision.inputs) {
        Ok(inputs) => inputs,
        Err(error) => return unreadable(error),
    };
    let recorded: Vec<Reason> = match serde_json::from_str(&decision.reasons) {
        Ok(reasons) => reasons,
        Err(error) => return unreadable(error),
    };
    let replayed = match set.replay(&inputs) {
        Ok(replayed) => replayed,
        Err(error) => return Answer::NotReplayed(error.to_string()),
    };
    if replayed.is_unaskable() {
        return Answer::NotReplayed("it was recorded under another schema".into());
    }
    let Replayed { verdict, reasons } = replayed;
    // What a plugin refused, or had no place, policies do not allow.
    let objected = recorded.iter().any(|reason| reason.rule.is_beside_policies());
    let after = if objected { Verdict::Deny } else { verdict };
    if after == decision.verdict {
        return Answer::Same;
    }
    Answer::Flip(Box::new(Flip {
        id: decision.id.clone(),
        at: decision.at,
        vch: decision.vch,
        action: decision.action.clone(),
        caller: decision.caller.clone(),
        resource: decision.resource.clone(),
        before: decision.verdict,
        after,
        reasons,
    }))
}
