//! A policy set: checked whole, never changed, and able to decide.

use crate::error::PolicyError;
use crate::explain::with_numbers;
use crate::facts::{FactError, Inputs, Uid, pairs};
use crate::inputs::gather;
use crate::load::{self, Rule, Source};
use crate::query::{Outcome, Query, Settings};
use crate::schema::{schema, schema_text};
use bulkhead_model::reason::Rule as ReasonRule;
use bulkhead_model::{Action, Class, Digest, Reason, Verdict};
use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision, Effect, Entities, PolicyId, Request, Response, Schema,
    Validator,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Validated policies of all classes.
pub struct PolicySet {
    digest: Digest,
    schema: Schema,
    /// Each action with the groups that it is in, which Cedar wants as entities, by the action's name.
    actions: BTreeMap<&'static str, Entities>,
    rules: BTreeMap<String, Rule>,
    /// `base` alone: what decides about the installation itself.
    base: cedar_policy::PolicySet,
    /// `base` and what the class adds.
    classes: BTreeMap<Class, cedar_policy::PolicySet>,
}

/// What differs between two sets, by policy id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl PolicySet {
    /// Reads `base/*.cedar` and `CLASS/*.cedar` below a folder. Blocks on files.
    pub fn load(dir: &Path) -> Result<Self, PolicyError> {
        Self::from_sources(&load::read(dir)?).map_err(|error| match error {
            PolicyError::Schema { why } => PolicyError::Layout { path: dir.into(), why },
            other => other,
        })
    }

    /// The policies that come with Bulkhead.
    pub fn shipped() -> Result<Self, PolicyError> {
        Self::from_sources(&crate::shipped::sources())
    }

    fn from_sources(sources: &[Source]) -> Result<Self, PolicyError> {
        let names = load::classes(sources);
        if names.is_empty() {
            return Err(PolicyError::Schema { why: "there is no class: make a folder such as `dev`".into() });
        }
        let schema = schema(&names)?;
        let rules = load::check(sources, &Validator::new(schema.clone()))?;
        let base = select(&rules, None)?;
        let mut classes = BTreeMap::new();
        for class in &names {
            let policies = select(&rules, Some(class))?;
            if !policies.policies().any(|policy| policy.effect() == Effect::Permit) {
                let why = format!("no policy permits anything in class `{class}`");
                return Err(PolicyError::Schema { why });
            }
            classes.insert(class.clone(), policies);
        }
        let actions = actions(&schema)?;
        Ok(Self { digest: digest(sources, &names), schema, actions, rules, base, classes })
    }

    /// Of schema and policies: equal digests decide equally.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.keys()
    }

    /// Number of policies.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Never so for a set that was loaded.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The source text of a policy, for showing.
    pub fn text(&self, id: &str) -> Option<&str> {
        self.rules.get(id).map(|rule| rule.text.as_str())
    }

    pub fn difference(&self, newer: &PolicySet) -> Difference {
        let mut difference = Difference::default();
        for (id, rule) in &newer.rules {
            match self.rules.get(id) {
                None => difference.added.push(id.clone()),
                Some(old) if old.text != rule.text || old.class != rule.class => {
                    difference.changed.push(id.clone())
                }
                Some(_) => {}
            }
        }
        let gone = self.rules.keys().filter(|id| !newer.rules.contains_key(*id));
        difference.removed.extend(gone.cloned());
        difference
    }

    /// Answers one query. Total: whatever goes wrong denies, with the reason.
    pub fn decide(&self, settings: &Settings, query: &Query<'_>) -> Outcome {
        let started = Instant::now();
        let inputs = gather(query, settings);
        let class = query.subject.vch().map(|vch| &vch.class);
        let (verdict, reasons) = match self.policies_for(query.action, class) {
            None => (Verdict::Deny, vec![without_policies(class)]),
            Some(policies) => match self.evaluate(policies, query.action, &inputs) {
                Ok(response) => self.read(&response, query, &inputs),
                Err(error) => (Verdict::Deny, vec![unaskable(query.action, &error)]),
            },
        };
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

    fn read(&self, response: &Response, query: &Query<'_>, inputs: &Inputs) -> (Verdict, Vec<Reason>) {
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
            tracing::warn!(policy.id = %id, action = %query.action, error = %why, "a policy failed, which denies");
            failed.push(Reason::new(ReasonRule::PolicyError(id), query.action.name(), why));
        }
        if failed.is_empty() || verdict == Verdict::Deny {
            reasons.extend(deciding.into_iter().map(|id| self.reason(id, verdict, query.action, inputs)));
        }
        if !failed.is_empty() {
            verdict = Verdict::Deny;
            reasons.extend(failed);
        }
        if reasons.is_empty() {
            reasons.push(not_permitted(query));
        }
        (verdict, reasons)
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

impl std::fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicySet")
            .field("digest", &self.digest)
            .field("policies", &self.rules.len())
            .finish()
    }
}

fn actions(schema: &Schema) -> Result<BTreeMap<&'static str, Entities>, PolicyError> {
    let wrong = |error: &dyn std::fmt::Display| PolicyError::Schema { why: error.to_string() };
    let all = schema.action_entities().map_err(|error| wrong(&error))?;
    let mut actions = BTreeMap::new();
    for action in Action::ALL {
        let uid = Uid::new("Action", action.name()).to_cedar().map_err(|error| wrong(&error))?;
        let groups = all.ancestors(&uid).into_iter().flatten();
        let wanted = groups.chain([&uid]).filter_map(|uid| all.get(uid).cloned());
        let entities = Entities::from_entities(wanted, None).map_err(|error| wrong(&error))?;
        actions.insert(action.name(), entities);
    }
    Ok(actions)
}

fn select(
    rules: &BTreeMap<String, Rule>,
    class: Option<&Class>,
) -> Result<cedar_policy::PolicySet, PolicyError> {
    let chosen = rules.values().filter(|rule| rule.class.is_none() || rule.class.as_ref() == class);
    cedar_policy::PolicySet::from_policies(chosen.map(|rule| rule.policy.clone()))
        .map_err(|error| PolicyError::Schema { why: error.to_string() })
}

/// Lengths go in, so that text cannot move between files unseen; folders go in, paths above them do not.
fn digest(sources: &[Source], classes: &[Class]) -> Digest {
    let mut bytes = schema_text(classes).into_bytes();
    for source in sources {
        let name = source.path.file_name().unwrap_or_default().to_string_lossy();
        let class = source.class.as_ref().map_or(load::BASE, Class::as_str);
        bytes.extend(format!("\n{class}/{name} {}\n", source.text.len()).bytes());
        bytes.extend(source.text.bytes());
    }
    Digest::of(&bytes)
}

fn without_policies(class: Option<&Class>) -> Reason {
    let class = class.map(Class::as_str).unwrap_or_default();
    let text = format!("class `{class}` has no policies, and what no policy permits is denied");
    Reason::new(ReasonRule::Engine("class-has-policies".into()), class, text)
        .advise(format!("have the operator put policies for it into the folder `{class}` of the policies"))
}

fn unaskable(action: Action, error: &FactError) -> Reason {
    tracing::error!(%action, %error, "a request does not fit the policy schema, which denies");
    Reason::new(ReasonRule::PolicyError("schema".into()), action.name(), error.to_string())
}

fn not_permitted(query: &Query<'_>) -> Reason {
    let (action, caller) = (query.action, query.caller);
    let text = match query.subject.vch() {
        Some(vch) => format!("`{action}` by `{caller}` on VCH `{}`, class `{}`", vch.name, vch.class),
        None => format!("`{action}` by `{caller}` on this installation"),
    };
    Reason::new(ReasonRule::NotPermitted, action.name(), text).advise("ask an operator of this installation")
}
