//! Every use case asks here first. Changes and refusals are recorded; permitted reads are not.

use crate::plugins::Reviewed;
use crate::{Engine, EngineError, Happening, Session};
use bulkhead_model::reason::Rule;
use bulkhead_model::{Action, Caller, Decision, DecisionId, Reason, Vch, VchId, Verdict};
use bulkhead_plugin as plugin;
use bulkhead_policy::{HostFacts, Outcome, Query, Subject, Usage};
use bulkhead_store::AuditEntry;

/// A permission, ready to be written down with what it permitted.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) audit: AuditEntry,
    /// What plugins want whoever asked to know.
    pub(crate) warnings: Vec<String>,
}

/// One question to the policies.
pub(crate) struct Ask<'a> {
    pub(crate) action: Action,
    pub(crate) caller: &'a Caller,
    /// The VCH at whose endpoint the caller is; `None` at the operator's socket.
    pub(crate) endpoint: Option<&'a Vch>,
    pub(crate) subject: Subject<'a>,
    pub(crate) usage_after: Usage,
}

impl Engine {
    /// Asks the policies.
    pub(crate) async fn admit(&self, ask: Ask<'_>) -> Result<Admitted, EngineError> {
        let outcome = self.decide(&ask);
        let id = self.new_decision()?;
        self.conclude(&ask, id, outcome, Reviewed::default()).await
    }

    /// Asks the policies, and plugins where policies leave anything for them to say. Nothing can be changed here.
    pub(crate) async fn admit_with_plugins(
        &self,
        ask: Ask<'_>,
        vch: &Vch,
        subject: plugin::Subject<'_>,
    ) -> Result<Admitted, EngineError> {
        let outcome = self.decide(&ask);
        let id = self.new_decision()?;
        let reviewed = if !outcome.is_allowed() {
            Reviewed::default()
        } else {
            let circumstances = self.circumstances(&id, vch, ask.caller)?;
            let usage_after = plugin::UsageAfter::default();
            let question = plugin::Question { circumstances, subject, usage_after };
            let nothing =
                |_: &mut (), _: &[_]| Err("only a container that is to be made can be changed".to_owned());
            self.review(vch, &mut (), |()| question.prepare(), nothing).await
        };
        self.conclude(&ask, id, outcome, reviewed).await
    }

    /// What the policies say, and nothing else.
    pub(crate) fn decide(&self, ask: &Ask<'_>) -> Outcome {
        let capabilities = self.back_end().machines.capabilities();
        self.0.policies.decide(&Query {
            action: ask.action,
            caller: ask.caller,
            endpoint: ask.endpoint,
            subject: ask.subject,
            host: HostFacts {
                accelerator: &capabilities.accelerator,
                hardware_isolation: capabilities.hardware_isolation,
            },
            usage_after: ask.usage_after,
            now: self.now(),
        })
    }

    pub(crate) fn new_decision(&self) -> Result<DecisionId, EngineError> {
        Ok(DecisionId::new(u64::try_from(self.now().timestamp_millis()).unwrap_or(0), random_u64()?))
    }

    pub(crate) fn circumstances<'a>(
        &self,
        decision: &'a DecisionId,
        vch: &'a Vch,
        caller: &'a Caller,
    ) -> Result<plugin::Circumstances<'a>, EngineError> {
        Ok(plugin::Circumstances { decision, vch, caller, now: self.now(), seed: random_u64()? })
    }

    /// Writes the decision down, and is the answer.
    pub(crate) async fn conclude(
        &self,
        ask: &Ask<'_>,
        id: DecisionId,
        outcome: Outcome,
        reviewed: Reviewed,
    ) -> Result<Admitted, EngineError> {
        let now = self.now();
        let allowed = outcome.is_allowed() && reviewed.objections.is_empty();
        self.0.observer.tell(Happening::Decided { action: ask.action, allowed });
        for reason in &outcome.reasons {
            if let Rule::PolicyError(policy) = &reason.rule {
                self.0.observer.tell(Happening::PolicyFailed { policy: policy.clone() });
            }
        }
        let mut audit = AuditEntry {
            caller: ask.caller.name.clone(),
            action: ask.action.name().into(),
            resource: outcome.resource.clone(),
            decision: None,
            outcome: if allowed { "done" } else { "refused" }.into(),
        };
        let warnings = reviewed.warnings;
        if allowed && ask.action.is_read() {
            return Ok(Admitted { audit, warnings });
        }
        audit.decision = Some(id.clone());
        let vch = ask.subject.vch().map_or(VchId(uuid::Uuid::nil()), |vch| vch.id);
        // Policies that permit it are no reason why plugins do not.
        let mut reasons = if outcome.is_allowed() && !allowed { Vec::new() } else { outcome.reasons };
        reasons.extend(reviewed.objections);
        let decision = Decision {
            id: id.clone(),
            vch,
            at: now,
            action: ask.action.name().into(),
            caller: ask.caller.name.clone(),
            resource: outcome.resource,
            verdict: if allowed { Verdict::Allow } else { Verdict::Deny },
            reasons,
            policy_set: outcome.policy_set,
            inputs: outcome.inputs,
            plugins: reviewed.reports,
            placement: reviewed.placement,
            took_us: outcome.took_us,
        };
        self.store().insert_decision(&decision).await?;
        if decision.verdict == Verdict::Deny {
            self.store().insert_audit(ask.subject.vch().map(|vch| vch.id), now, &audit).await?;
            tracing::info!(decision.id = %id, action = %ask.action, caller = %ask.caller, "denied");
            return Err(EngineError::Denied { action: ask.action, decision: id, reasons: decision.reasons });
        }
        Ok(Admitted { audit, warnings })
    }

    /// Decides about the VCH itself, for calls that read.
    pub async fn authorize(&self, session: &Session, action: Action) -> Result<(), EngineError> {
        let vch = self.vch_of(session).await?;
        self.admit_vch(session, &vch, action).await.map(|_| ())
    }

    pub(crate) async fn admit_vch(
        &self,
        session: &Session,
        vch: &Vch,
        action: Action,
    ) -> Result<Admitted, EngineError> {
        self.admit(Ask {
            action,
            caller: &session.caller,
            endpoint: Some(vch),
            subject: Subject::Vch(vch),
            usage_after: Usage::default(),
        })
        .await
    }

    pub(crate) async fn vch_of(&self, session: &Session) -> Result<Vch, EngineError> {
        match self.store().vch(session.vch).await {
            Err(bulkhead_store::StoreError::NotFound { text, .. }) => Err(EngineError::NoSuchVch(text)),
            other => Ok(other?),
        }
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], EngineError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| EngineError::Limit(Box::new(no_entropy(&error.to_string()))))?;
    Ok(bytes)
}

fn no_entropy(why: &str) -> Reason {
    let rule = Rule::Engine("entropy".into());
    Reason::new(rule, "random numbers", format!("the host gives no random numbers: {why}"))
}

fn random_u64() -> Result<u64, EngineError> {
    Ok(u64::from_le_bytes(random()?))
}
