//! A recorded decision, decided again by the set that was in force then.

use super::{compute, refused};
use crate::{Engine, EngineError};
use bulkhead_model::{Action, Caller, Decision, Reason, Verdict};
use bulkhead_policy::{PolicySet, Replayed, Subject};
use bulkhead_store::{DecisionFilter, StoreError};

/// What came of deciding again. Plugins are not asked again; the policies are.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    pub decision: Decision,
    /// The newest revision with the policies that were in force.
    pub revision: u64,
    /// What the policies say now, from what was recorded.
    pub verdict: Verdict,
    pub reasons: Vec<Reason>,
    /// Whether that is what they said then, reason by reason, and said twice now.
    pub same: bool,
}

impl Engine {
    /// Those that match, newest first; of one VCH, by its name, or of all.
    pub async fn decisions_matching(
        &self,
        caller: &Caller,
        vch: Option<&str>,
        mut filter: DecisionFilter,
        limit: u32,
    ) -> Result<Vec<Decision>, EngineError> {
        match vch {
            Some(name) => {
                let vch = self.vch_named(name).await?;
                self.admit_operator(caller, Action::DecisionRead, Subject::Vch(&vch)).await?;
                filter.vch = Some(vch.id);
            }
            None => {
                self.admit_operator(caller, Action::DecisionRead, Subject::Platform).await?;
            }
        }
        Ok(self.store().decisions_matching(&filter, limit).await?)
    }

    pub async fn decision_replay(&self, caller: &Caller, id: &str) -> Result<Replay, EngineError> {
        let decision = self.decision(caller, id).await?;
        let kept = match decision.policy_set.parse() {
            Ok(digest) => self.store().policy_revision_of(&digest).await,
            Err(_) => Err(StoreError::NotFound { kind: "policy revision", text: String::new() }),
        };
        let revision = match kept {
            Err(StoreError::NotFound { .. }) => {
                let why = format!("its policies ({}) are not kept", decision.policy_set);
                return Err(EngineError::NotReplayable { id: decision.id, why });
            }
            other => other?,
        };
        let (number, inputs) = (revision.number, decision.inputs.clone());
        let again = move || {
            let set = PolicySet::of_revision(&revision)?;
            Ok((set.replay(&inputs), set.replay(&inputs)))
        };
        let (first, second) = compute(again).await?.map_err(refused)?;
        let first = match first {
            Ok(first) => first,
            Err(error) => {
                return Err(EngineError::NotReplayable { id: decision.id, why: error.to_string() });
            }
        };
        let same = Ok(&first) == second.as_ref() && is_as_recorded(&decision, &first);
        Ok(Replay { revision: number, verdict: first.verdict, reasons: first.reasons, same, decision })
    }
}

/// What the policies said is recorded, apart from why they permitted what a plugin refused or what had no place.
fn is_as_recorded(decision: &Decision, replayed: &Replayed) -> bool {
    let is_beside = |reason: &&Reason| reason.rule.is_beside_policies();
    let (beside, policies): (Vec<&Reason>, Vec<&Reason>) = decision.reasons.iter().partition(is_beside);
    if decision.verdict == Verdict::Deny && policies.is_empty() && !beside.is_empty() {
        return replayed.verdict == Verdict::Allow;
    }
    replayed.verdict == decision.verdict && replayed.reasons.iter().collect::<Vec<_>>() == policies
}
