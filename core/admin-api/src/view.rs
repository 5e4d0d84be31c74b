//! The JSON of this API; also what the CLI reads and writes.

use bulkhead_engine::{TemplateFacts, TemplateState};
use bulkhead_model::{Class, Reason, VchSettings};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Asks for a VCH. What is left out of `settings` has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VchAsk {
    pub name: String,
    pub class: String,
    pub tenant: String,
    #[serde(default)]
    pub settings: VchSettings,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VchView {
    pub id: String,
    pub name: String,
    pub tenant: String,
    pub class: Class,
    pub created_at: DateTime<Utc>,
    /// Deletion was asked for.
    pub deleting: bool,
    pub settings: VchSettings,
    pub usage: UsageView,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    pub containers: u64,
    pub running: u64,
    /// Memory of running containers together.
    pub memory_bytes: u64,
    pub images: u64,
    pub volumes: u64,
    /// Sizes of all volumes together.
    pub volumes_bytes: u64,
}

/// A way into a VCH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub kind: EndpointKind,
    /// As in DOCKER_HOST.
    pub host: String,
    /// Why nobody listens there now; it is tried again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointKind {
    Unix,
    Tls,
    /// Plain TCP on loopback: whoever is on this machine may use it.
    InsecureTcp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateAsk {
    /// Who it is for; the policies see the caller `cert:NAME`.
    pub client: String,
}

/// Everything that a client needs, in PEM. The key is not kept by the server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    pub host: String,
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
    pub not_after: DateTime<Utc>,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").field("host", &self.host).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    pub id: String,
    pub vch: String,
    pub at: DateTime<Utc>,
    pub action: String,
    pub caller: String,
    pub resource: String,
    pub verdict: String,
    pub reasons: Vec<Reason>,
    pub policy_set: String,
    pub inputs: serde_json::Value,
    pub took_us: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatusView {
    /// Digest of the set in force.
    pub policy_set: String,
    pub policies: usize,
    pub classes: Vec<Class>,
    /// Why the files, as they are now, are not in force.
    pub problem: Option<String>,
}

/// Body of `POST /v1/templates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateAsk {
    pub vcpus: u32,
    /// What the containers of its clones may take, at most.
    pub memory_bytes: u64,
}

/// A machine that has booted and waits, kept to be cloned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateView {
    pub name: String,
    pub vcpus: u32,
    /// Of each clone; a container may take less.
    pub memory_bytes: u64,
    /// `making`, `loaded`, `on-disk` or `failed`.
    pub state: String,
    /// Why machines of this class boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// On this host, once for all clones.
    pub memory_used_bytes: u64,
    pub disk_used_bytes: u64,
    pub made_at: Option<DateTime<Utc>>,
    /// Machines that run and were cloned from it.
    pub clones: u32,
}

impl From<TemplateFacts> for TemplateView {
    fn from(facts: TemplateFacts) -> Self {
        let (state, failure) = match facts.state {
            TemplateState::Making => ("making", None),
            TemplateState::Loaded => ("loaded", None),
            TemplateState::OnDisk => ("on-disk", None),
            TemplateState::Failed { why } => ("failed", Some(why)),
        };
        Self {
            name: facts.name,
            vcpus: facts.vcpus,
            memory_bytes: facts.memory_bytes,
            state: state.into(),
            failure,
            memory_used_bytes: facts.memory_used_bytes,
            disk_used_bytes: facts.disk_used_bytes,
            made_at: facts.made_at,
            clones: facts.clones,
        }
    }
}
