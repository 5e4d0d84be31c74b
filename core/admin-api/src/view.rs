//! The JSON of this API; also what the CLI reads and writes.

mod plugins;
mod policies;

pub use plugins::{BindingAsk, BindingView, PluginView, ScopeView};
pub use policies::{
    ActivateAsk, ActivationView, CaseView, DifferenceView, DraftAsk, DraftCheckView, DraftView,
    FileDifferenceView, FlipView, Page, PolicyProblemView, PolicyStatusView, ReplayView,
    RevisionDifferenceView, RevisionView, WhatIfAsk, WhatIfView,
};

use bulkhead_engine::{Condition, MachineReport, TemplateReport, TemplateState};
use bulkhead_model::{Boot, Class, Reason, VchSettings, VolumeStoreName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// Changes of settings, as a JSON merge patch (RFC 7396): what is not named stays, `null` has its default again or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VchPatch {
    pub settings: serde_json::Map<String, serde_json::Value>,
}

impl VchPatch {
    /// The settings as they would be.
    pub fn applied(self, settings: &VchSettings) -> Result<VchSettings, serde_json::Error> {
        let mut changed = serde_json::to_value(settings)?;
        merge(&mut changed, self.settings.into());
        serde_json::from_value(changed)
    }
}

fn merge(target: &mut serde_json::Value, patch: serde_json::Value) {
    let serde_json::Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = serde_json::json!({});
    }
    for (key, value) in patch {
        let Some(map) = target.as_object_mut() else { return };
        if value.is_null() {
            map.remove(&key);
        } else {
            merge(map.entry(key).or_insert(serde_json::Value::Null), value);
        }
    }
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    pub containers: u64,
    pub running: u64,
    /// Memory of running containers together.
    pub memory_bytes: u64,
    pub images: u64,
    pub volumes: u64,
    /// Sizes of all volumes together.
    pub volumes_bytes: u64,
    pub volume_stores: BTreeMap<VolumeStoreName, VolumeStoreUsageView>,
}

/// What is in a volume store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStoreUsageView {
    pub volumes: u64,
    /// Sizes of its volumes together.
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
    /// What plugins said, in the order in which they were asked.
    #[serde(default)]
    pub plugins: Vec<bulkhead_model::plugin::PluginReport>,
    /// How a place was chosen; nothing, where none was to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<bulkhead_model::placement::PlacementReport>,
    pub took_us: u64,
}

/// Something that should not be, or should be and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingView {
    /// `disk`, `tap`, `address` …
    pub kind: String,
    /// Whose it is, or was: an id, or the beginning of one.
    pub of: String,
    pub what: String,
}

/// A machine that runs, with what it takes of its host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineView {
    /// Of its container.
    pub id: String,
    pub name: String,
    pub vch: String,
    /// On whose CPUs it runs.
    pub host: String,
    /// Where its disk is.
    pub datastore: String,
    /// `clone` or `cold`.
    pub boot: Boot,
    /// What it was cloned from.
    pub template: Option<String>,
    /// Of the hypervisor process.
    pub pid: Option<u32>,
    pub since: DateTime<Utc>,
    pub paused: bool,
    pub vcpus: u32,
    /// What its container may take.
    pub memory_bytes: u64,
    /// Nothing, if it ended while it was looked at.
    pub cost: Option<MachineCostView>,
    /// The container's last start, part by part; empty if that was before this server came.
    pub start: Vec<PhaseView>,
}

/// What a machine takes of its host by now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineCostView {
    /// Its own pages, and its part of those that it shares with other machines (PSS).
    pub proportional_bytes: u64,
    /// Pages that are only its own.
    pub private_bytes: u64,
    pub cpu_ms: u64,
    /// How often something of it that waited was woken.
    pub wake_ups: u64,
}

/// A part of a start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseView {
    pub name: String,
    pub took_us: u64,
}

impl From<MachineReport> for MachineView {
    fn from(report: MachineReport) -> Self {
        let MachineReport { vch, container, facts, cost, phases } = report;
        let (pid, since, paused) = match facts.condition {
            Condition::Running { pid, since, paused } => (pid, since, paused),
            Condition::Ended { .. } => (None, DateTime::default(), false),
        };
        let whole = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
        Self {
            id: container.id.to_string(),
            name: container.name,
            vch: vch.to_string(),
            host: facts.placement.host.to_string(),
            datastore: facts.placement.datastore.to_string(),
            boot: facts.boot,
            template: facts.template,
            pid,
            since,
            paused,
            vcpus: facts.vcpus,
            memory_bytes: container.spec.resources.memory_bytes,
            cost: cost.map(|cost| MachineCostView {
                proportional_bytes: cost.proportional_bytes,
                private_bytes: cost.private_bytes,
                cpu_ms: whole(cost.cpu_time.as_millis()),
                wake_ups: cost.wake_ups,
            }),
            start: phases
                .iter()
                .map(|phase| PhaseView { name: phase.name.into(), took_us: whole(phase.took.as_micros()) })
                .collect(),
        }
    }
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
    /// What it has of an image's disks; nothing, where it is for machines of any image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<TemplateImageView>,
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
    /// Further clones that wait to be somebody's.
    pub spares: u32,
}

/// Disks that are in place in a template: first starts of containers with the same are clones of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateImageView {
    /// Whose image it is; empty if the VCH is gone by now.
    pub vch: String,
    pub layers: u32,
    /// Size of the writable disk.
    pub disk_bytes: u64,
}

impl From<TemplateReport> for TemplateView {
    fn from(TemplateReport { facts, vch }: TemplateReport) -> Self {
        let (state, failure) = match facts.state {
            TemplateState::Making => ("making", None),
            TemplateState::Loaded => ("loaded", None),
            TemplateState::OnDisk => ("on-disk", None),
            TemplateState::Failed { why } => ("failed", Some(why)),
        };
        Self {
            name: facts.name,
            image: facts.image.map(|image| TemplateImageView {
                vch: vch.map(|name| name.to_string()).unwrap_or_default(),
                layers: image.layers,
                disk_bytes: image.disk_bytes,
            }),
            vcpus: facts.vcpus,
            memory_bytes: facts.memory_bytes,
            state: state.into(),
            failure,
            memory_used_bytes: facts.memory_used_bytes,
            disk_used_bytes: facts.disk_used_bytes,
            made_at: facts.made_at,
            clones: facts.clones,
            spares: facts.spares,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::VolumeStore;
    use serde_json::json;

    #[test]
    fn a_patch_changes_what_it_names() {
        let fast = VolumeStore { folder: Some("/mnt/fast".into()), bytes_max: Some(1 << 30) };
        let mut settings = VchSettings {
            containers_max: 7,
            memory_bytes_max: Some(1 << 30),
            socket_uids: vec![1000, 1001],
            ..VchSettings::default()
        };
        settings.volume_stores.insert("fast".parse().unwrap(), fast.clone());
        let patched = |patch: serde_json::Value| {
            VchPatch { settings: patch.as_object().unwrap().clone() }.applied(&settings)
        };
        assert_eq!(patched(json!({})).unwrap(), settings);
        let changed = patched(json!({
            "containers_max": null,
            "memory_bytes_max": null,
            "socket_uids": [1002],
            "volume_stores": { "fast": { "bytes_max": 5 }, "default": null, "slow": { "folder": "/mnt/slow" } },
        }))
        .unwrap();
        let stores = [
            ("fast".parse().unwrap(), VolumeStore { bytes_max: Some(5), ..fast }),
            ("slow".parse().unwrap(), VolumeStore { folder: Some("/mnt/slow".into()), bytes_max: None }),
        ];
        let expect = VchSettings {
            containers_max: VchSettings::default().containers_max,
            memory_bytes_max: None,
            socket_uids: vec![1002],
            volume_stores: BTreeMap::from(stores),
            ..settings.clone()
        };
        assert_eq!(changed, expect);
        let wrong = [
            json!({ "containers": 1 }),
            json!({ "containers_max": "many" }),
            json!({ "volume_stores": { "Not A Name": {} } }),
            json!({ "volume_stores": { "fast": { "size": 1 } } }),
        ];
        for wrong in wrong {
            assert!(patched(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
