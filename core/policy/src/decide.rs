//! What a set answers, to a question of now and to one that was recorded: both go the same way.

use crate::explain::with_numbers;
use crate::facts::{FactError, Inputs, pairs};
use crate::inputs::gather;
use crate::query::{Outcome, Query, Settings};
use crate::recorded::{Recorded, ReplayError};
use crate::set::PolicySet;
use bulkhead_model::reason::Rule as ReasonRule;
use bulkhead_model::{Action, Class, Reason, Verdict};
use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision, Entities, PolicyId, Request, Response,
};
use std::time::Instant;

/// What a set says of recorded inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    pub verdict: Verdict,
    /// As in [`Outcome`].
    pub reasons: Vec<Reason>,
}

impl Replayed {
    /// Whether the question does not fit the set's schema: it was recorded under another one.
    pub fn is_unaskable(&self) -> bool {
        self.reasons.iter().any(|reason| reason.rule == unaskable_rule())
    }
}

impl PolicySet {
    /// Answers one query. Total: whatever goes wrong denies, with the reason.
    pub fn decide(&self, settings: &Settings, query: &Query<'_>) -> Outcome {
        let outcome = self.decide_quietly(settings, query);
        for reason in &outcome.reasons {
            if let ReasonRule::PolicyError(id) = &reason.rule {
                tracing::error!(policy.id = %id, action = %query.action, error = %reason.text, "a policy failed, which denies");
            }
        }
        outcome
    }

    /// Without a log entry where a policy fails: nobody waits for this answer.
    pub(crate) fn decide_quietly(&self, settings: &Settings, query: &Query<'_>) -> Outcome {
        let started = Instant::now();
        let inputs = gather(query, settings);
        let class = query.subject.vch().map(|vch| &vch.class);
        let Replayed { verdict, reasons } = self.judge(query.action, class, &inputs);
        let is_final = verdict == Verdict::Deny && !reasons.iter().all(|reason| self.is_curable(reason));
        Outcome {
            verdict,
            reasons,
            is_final,
            resource: inputs.resource.to_string(),
            policy_set: self.digest.to_string(),
            took_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            inputs: inputs.to_json(class.map(Class::as_str)),
        }
    }

    /// Answers a recorded question ([`Outcome::inputs`]) again. With the set that answered it, the answer is the same.
    pub fn replay(&self, inputs: &serde_json::Value) -> Result<Replayed, ReplayError> {
        let Recorded { action, class, inputs } = Recorded::read(inputs)?;
        Ok(self.judge(action, class.as_ref(), &inputs))
    }

    pub(crate) fn judge(&self, action: Action, class: Option<&Class>, inputs: &Inputs) -> Replayed {
        let denied = |reason| Replayed { verdict: Verdict::Deny, reasons: vec![reason] };
        match self.policies_for(action, class) {
            None => denied(without_policies(class)),
            Some(policies) => match self.evaluate(policies, action, inputs) {
                Ok(response) => self.answer(&response, action, class, inputs),
                Err(error) => denied(Reason::new(unaskable_rule(), action.name(), error.to_string())),
            },
        }
    }

    /// A class whose folder was taken away has no policies, and what has no policies is denied; an operator can
    /// still look at such a VCH and delete it.
    fn policies_for(&self, action: Action, class: Option<&Class>) -> Option<&cedar_policy::PolicySet> {
        let Some(class) = class else { return Some(&self.base) };
        let leaving = matches!(action, Action::VchInspect | Action::VchDelete | Action::DecisionRead);
        self.classes.get(class).or(leaving.then_some(&self.base))
    }

    fn evaluate(
        &self,
        policies: &cedar_policy::PolicySet,
        action: Action,
        inputs: &Inputs,
    ) -> Result<Response, FactError> {
        let things = inputs.things.iter().map(|thing| thing.to_cedar()).collect::<Result<Vec<_>, _>>()?;
        // Not checked against the schema on each decision: a test does, for every action.
        let groups = self.actions.get(action.name()).cloned().unwrap_or_else(Entities::empty);
        let entities = groups.add_entities(things, None);
        let entities = entities.map_err(|error| FactError::new("the entities", error))?;
        let context = Context::from_pairs(pairs(&inputs.context)?);
        let context = context.map_err(|error| FactError::new("the context", error))?;
        let (principal, action) = (inputs.principal.to_cedar()?, inputs.action.to_cedar()?);
        let request =
            Request::new(principal, action, inputs.resource.to_cedar()?, context, Some(&self.schema));
        let request = request.map_err(|error| FactError::new("the request", error))?;
        Ok(Authorizer::new().is_authorized(&request, policies, &entities))
    }

    fn answer(
        &self,
        response: &Response,
        action: Action,
        class: Option<&Class>,
        inputs: &Inputs,
    ) -> Replayed {
        let mut reasons = Vec::new();
        let mut verdict = match response.decision() {
            Decision::Allow => Verdict::Allow,
            Decision::Deny => Verdict::Deny,
        };
        let mut deciding: Vec<&PolicyId> = response.diagnostics().reason().collect();
        deciding.sort();
        let mut failed = Vec::new();
        for error in response.diagnostics().errors() {
            // Cedar goes on as if the policy were not there; a guard that fails must not be a guard that is gone.
            let AuthorizationError::PolicyEvaluationError(error) = error;
            let (id, why) = (error.policy_id().to_string(), error.inner().to_string());
            failed.push((id, why));
        }
        failed.sort();
        let failed = failed.into_iter();
        let failed: Vec<Reason> =
            failed.map(|(id, why)| Reason::new(ReasonRule::PolicyError(id), action.name(), why)).collect();
        if failed.is_empty() || verdict == Verdict::Deny {
            reasons.extend(deciding.into_iter().map(|id| self.reason(id, verdict, action, inputs)));
        }
        if !failed.is_empty() {
            verdict = Verdict::Deny;
            reasons.extend(failed);
        }
        if reasons.is_empty() {
            reasons.push(not_permitted(action, class, inputs));
        }
        Replayed { verdict, reasons }
    }

    fn is_curable(&self, reason: &Reason) -> bool {
        matches!(&reason.rule, ReasonRule::Policy(id) if self.rules.get(id).is_some_and(|rule| rule.curable))
    }

    fn reason(&self, id: &PolicyId, verdict: Verdict, action: Action, inputs: &Inputs) -> Reason {
        let name: &str = id.as_ref();
        let kind = ReasonRule::Policy(name.to_owned());
        let Some(rule) = self.rules.get(name) else {
            return Reason::new(kind, action.name(), "it is not in this set");
        };
        let word = if verdict == Verdict::Allow { "permits" } else { "forbids" };
        let text = rule.reason.clone().unwrap_or_else(|| format!("it {word} `{action}`"));
        let mut reason = Reason::new(kind, action.name(), text);
        if verdict == Verdict::Deny {
            reason.advice.clone_from(&rule.advice);
            reason = with_numbers(reason, &rule.comparisons, inputs);
        }
        reason
    }
}

fn without_policies(class: Option<&Class>) -> Reason {
    let class = class.map(Class::as_str).unwrap_or_default();
    let text = format!("class `{class}` has no policies, and what no policy permits is denied");
    Reason::new(ReasonRule::Engine("class-has-policies".into()), class, text)
        .advise(format!("have the operator put policies for it into the folder `{class}` of the policies"))
}

/// Of a request that does not fit the policy schema, which denies.
fn unaskable_rule() -> ReasonRule {
    ReasonRule::PolicyError("schema".into())
}

fn not_permitted(action: Action, class: Option<&Class>, inputs: &Inputs) -> Reason {
    let caller = &inputs.principal.id;
    let text = match (inputs.vch_name(), class) {
        (Some(vch), Some(class)) => format!("`{action}` by `{caller}` on VCH `{vch}`, class `{class}`"),
        _ => format!("`{action}` by `{caller}` on this installation"),
    };
    Reason::new(ReasonRule::NotPermitted, action.name(), text).advise("ask an operator of this installation")
}
