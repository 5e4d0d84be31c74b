//! Every use case asks here first. Changes and refusals are recorded; permitted reads are not.

use crate::{Engine, EngineError, Happening, Session};
use bulkhead_model::{Action, Caller, Decision, DecisionId, Reason, Vch, VchId, Verdict};
use bulkhead_policy::{HostFacts, Query, Subject, Usage};
use bulkhead_store::AuditEntry;

/// A permission, ready to be written down with what it permitted.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) audit: AuditEntry,
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
    pub(crate) async fn admit(&self, ask: Ask<'_>) -> Result<Admitted, EngineError> {
        let now = self.now();
        let capabilities = self.back_end().machines.capabilities();
        let outcome = self.0.policies.decide(&Query {
            action: ask.action,
            caller: ask.caller,
            endpoint: ask.endpoint,
            subject: ask.subject,
            host: HostFacts {
                accelerator: &capabilities.accelerator,
                hardware_isolation: capabilities.hardware_isolation,
            },
            usage_after: ask.usage_after,
            now,
        });
        let allowed = outcome.is_allowed();
        self.0.observer.tell(Happening::Decided { action: ask.action, allowed });
        let mut audit = AuditEntry {
            caller: ask.caller.name.clone(),
            action: ask.action.name().into(),
            resource: outcome.resource.clone(),
            decision: None,
            outcome: if allowed { "done" } else { "refused" }.into(),
        };
        if allowed && ask.action.is_read() {
            return Ok(Admitted { audit });
        }
        let id = DecisionId::new(u64::try_from(now.timestamp_millis()).unwrap_or(0), random_u64()?);
        audit.decision = Some(id.clone());
        let vch = ask.subject.vch().map_or(VchId(uuid::Uuid::nil()), |vch| vch.id);
        let decision = Decision {
            id: id.clone(),
            vch,
            at: now,
            action: ask.action.name().into(),
            caller: ask.caller.name.clone(),
            resource: outcome.resource,
            verdict: outcome.verdict,
            reasons: outcome.reasons,
            policy_set: outcome.policy_set,
            inputs: outcome.inputs,
            took_us: outcome.took_us,
        };
        self.store().insert_decision(&decision).await?;
        if decision.verdict == Verdict::Deny {
            self.store().insert_audit(ask.subject.vch().map(|vch| vch.id), now, &audit).await?;
            tracing::info!(decision.id = %id, action = %ask.action, caller = %ask.caller, "denied");
            return Err(EngineError::Denied { action: ask.action, decision: id, reasons: decision.reasons });
        }
        Ok(Admitted { audit })
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
    let rule = bulkhead_model::reason::Rule::Engine("entropy".into());
    Reason::new(rule, "random numbers", format!("the host gives no random numbers: {why}"))
}

fn random_u64() -> Result<u64, EngineError> {
    Ok(u64::from_le_bytes(random()?))
}
