//! Cases: what a set must allow and deny, as files of the set. The folder is the expectation; a case that is decided by a
//! policy that fails, fails.

mod scene;

pub use scene::{Scene, SceneError};

use crate::error::PolicyError;
use crate::folder::CASES;
use crate::query::Settings;
use crate::set::PolicySet;
use bulkhead_model::capability::Capabilities;
use bulkhead_model::network::Network;
use bulkhead_model::process::Seccomp;
use bulkhead_model::reason::Rule;
use bulkhead_model::{Action, Caller, PolicyFiles, Reason, Verdict};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    /// `TOPIC/DENY/SENTENCE`.
    pub name: String,
    /// What is not as it should be; none: it passed.
    pub failure: Option<String>,
}

/// A case as it is written. Everything but class and action has a default: user 1000 of tenant acme, at the endpoint of
/// its VCH, about to run a modest container of an image of Docker Hub on a machine with KVM.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    class: String,
    action: String,
    caller: Option<Caller>,
    /// Tenant of the thing; the caller came in at acme's endpoint.
    tenant: Option<String>,
    /// `false`: the caller came in at the operator's socket, or is the server itself.
    at_endpoint: Option<bool>,
    loopback: Option<bool>,
    /// The image as it was asked for. `DIGEST` in it is the digest that the image was fetched by from
    /// `registry.example/team/nginx`, `IMAGE_ID` its id.
    asked: Option<String>,
    /// Repositories that the image was pulled from; empty for an image that was loaded or imported.
    pulled_from: Option<Vec<String>>,
    /// `false`: the image is not in the cache.
    cached: Option<bool>,
    /// Name of the container, the volume or the network.
    name: Option<String>,
    owner: Option<String>,
    user: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    /// `NAME=VALUE`; policies see the names.
    env: Option<Vec<String>>,
    privileged: Option<bool>,
    read_only: Option<bool>,
    #[serde(default)]
    cap_add: Vec<String>,
    #[serde(default)]
    seccomp_unconfined: bool,
    cpu_milli: Option<u32>,
    memory_mib: Option<u64>,
    disk_mib: Option<u64>,
    volume_mib: Option<u64>,
    volume_store: Option<String>,
    internal: Option<bool>,
    /// As it would be after the request.
    usage: Option<UsageCase>,
    accelerator: Option<String>,
    /// As in RFC 3339.
    now: Option<chrono::DateTime<chrono::Utc>>,
    #[serde(default)]
    trusted_registries: Vec<String>,
    #[serde(default)]
    operator_uids: Vec<u32>,
    #[serde(default)]
    accepts_emulation: bool,
    /// Ids of the policies that decide; `not-permitted` when none does. All of them, when given.
    reason: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UsageCase {
    containers: u32,
    memory_mib: u64,
    volumes: u32,
    volumes_mib: u64,
    store_mib: u64,
}

/// A case out of a recorded decision: its `inputs`, as `bulkhead decision show -o json` has them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedCase {
    inputs: serde_json::Value,
    reason: Option<Vec<String>>,
}

impl PolicySet {
    /// Runs the cases among the files, in the order of their names.
    pub fn run_cases(&self, files: &PolicyFiles) -> Vec<CaseResult> {
        files.iter().filter_map(|(name, text)| self.run_case(name, text)).collect()
    }

    fn run_case(&self, file: &str, text: &str) -> Option<CaseResult> {
        let name = file.strip_prefix(CASES)?.strip_prefix('/')?.strip_suffix(".json")?;
        let expected = match name.split('/').nth(1)? {
            "ALLOW" => Verdict::Allow,
            _ => Verdict::Deny,
        };
        let failure = self.decide_case(text).and_then(|(decided, wanted)| {
            let (verdict, reasons) = decided;
            compare(expected, verdict, &reasons, wanted.as_deref())
        });
        Some(CaseResult { name: name.to_owned(), failure: failure.err() })
    }

    #[expect(clippy::type_complexity, reason = "an answer and what it should be")]
    fn decide_case(&self, text: &str) -> Result<((Verdict, Vec<Reason>), Option<Vec<String>>), String> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
        if value.get("inputs").is_some() {
            // From the text, so that errors have their place.
            let case: RecordedCase = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let replayed = self.replay(&case.inputs).map_err(|error| error.to_string())?;
            return Ok(((replayed.verdict, replayed.reasons), case.reason));
        }
        let case: Case = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let action = Action::ALL.iter().find(|action| action.name() == case.action);
        let action = *action.ok_or_else(|| format!("there is no action `{}`", case.action))?;
        let settings = Settings {
            trusted_registries: case.trusted_registries.clone(),
            operator_uids: case.operator_uids.clone(),
            accepts_emulation: case.accepts_emulation,
        };
        let scene = case.scene()?;
        let outcome = self.decide_quietly(&settings, &scene.query(action));
        Ok(((outcome.verdict, outcome.reasons), case.reason))
    }

    /// Each policy that fails when it is asked about ordinary requests: a guard that would deny everything, or a grant
    /// that never holds. What only some requests make fail is for cases to find.
    pub fn probe(&self) -> Result<(), PolicyError> {
        let mut problems = Vec::new();
        let found = |error: SceneError| PolicyError::Schema { why: error.to_string() };
        for class in self.classes() {
            let scene = Scene::new(class.as_str()).map_err(found)?;
            for action in Action::ALL {
                let decided = self.decide_quietly(&Settings::default(), &scene.query(*action));
                for reason in decided.reasons {
                    let Rule::PolicyError(id) = &reason.rule else { continue };
                    let Some(rule) = self.rules.get(id) else { continue };
                    let mut problem = rule.place.clone();
                    problem.message = format!("this policy fails, which denies: {}", reason.text);
                    problem.help = Some(format!("it was asked about an ordinary `{action}`"));
                    if !problems.iter().any(|known: &crate::Problem| known.is_at(&problem)) {
                        problems.push(problem);
                    }
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(PolicyError::Invalid(problems)) }
    }
}

fn compare(
    expected: Verdict,
    verdict: Verdict,
    reasons: &[Reason],
    wanted: Option<&[String]>,
) -> Result<(), String> {
    let mut ids = Vec::new();
    for reason in reasons {
        match &reason.rule {
            Rule::Policy(id) => ids.push(id.clone()),
            Rule::NotPermitted => ids.push("not-permitted".into()),
            other => return Err(format!("{other}: {}", reason.text)),
        }
    }
    if verdict != expected {
        let told: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        return Err(format!("{} instead of {}: {}", verdict.as_str(), expected.as_str(), told.join("; ")));
    }
    match wanted {
        Some(wanted) if *wanted != ids => {
            Err(format!("decided by {}, not by {}", ids.join(", "), wanted.join(", ")))
        }
        _ => Ok(()),
    }
}

impl Case {
    fn scene(&self) -> Result<Scene, String> {
        let mut scene = Scene::new(&self.class).map_err(|error| error.to_string())?;
        if self.loopback == Some(true) {
            scene.vch.settings.insecure_listen = Some("127.0.0.1:2375".into());
        }
        scene.endpoint = self.at_endpoint.unwrap_or(true).then(|| scene.vch.clone());
        if let Some(tenant) = &self.tenant {
            scene.vch = scene::vch("other", tenant, &self.class).map_err(|error| error.to_string())?;
            scene.vch.settings.socket_uids.clear();
        }
        if let Some(asked) = &self.asked {
            let nginx = scene::origin("registry.example/team/nginx").digest;
            scene.asked =
                asked.replace("DIGEST", nginx.as_str()).replace("IMAGE_ID", scene::digest("config").as_str());
        }
        if let Some(from) = &self.pulled_from {
            scene.image = Some(scene::image(&from.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        if self.cached == Some(false) {
            scene.image = None;
        }
        self.set_container(&mut scene)?;
        self.set_others(&mut scene)?;
        Ok(scene)
    }

    fn set_container(&self, scene: &mut Scene) -> Result<(), String> {
        let set = |place: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                place.clone_from(value);
            }
        };
        set(&mut scene.name, &self.name);
        set(&mut scene.owner, &self.owner);
        set(&mut scene.spec.user, &self.user);
        if let Some(labels) = &self.labels {
            scene.spec.labels.clone_from(labels);
            scene.volume.labels.clone_from(labels);
        }
        if let Some(env) = &self.env {
            scene.spec.env.clone_from(env);
        }
        let spec = &mut scene.spec;
        spec.privileged = self.privileged.unwrap_or(false);
        spec.process.read_only = self.read_only.unwrap_or(false);
        spec.process.cap_add =
            Capabilities::parse(&self.cap_add).map_err(|error| format!("cap_add: {error}"))?;
        if self.seccomp_unconfined {
            spec.process.seccomp = Seccomp::Unconfined;
        }
        spec.resources.cpu_milli = self.cpu_milli.unwrap_or(spec.resources.cpu_milli);
        spec.resources.memory_bytes = self.memory_mib.map_or(spec.resources.memory_bytes, bytes);
        spec.resources.disk_bytes = self.disk_mib.map_or(spec.resources.disk_bytes, bytes);
        Ok(())
    }

    fn set_others(&self, scene: &mut Scene) -> Result<(), String> {
        if let Some(caller) = &self.caller {
            scene.caller = caller.clone();
        }
        if let Some(name) = &self.name {
            scene.network = Network { name: name.clone(), ..scene.network.clone() };
            if let Ok(name) = name.parse() {
                scene.volume.name = name;
            }
        }
        if let Some(owner) = &self.owner {
            scene.volume.owner.clone_from(owner);
        }
        scene.network.spec.internal = self.internal.unwrap_or(scene.network.spec.internal);
        scene.volume.size_bytes = self.volume_mib.map_or(scene.volume.size_bytes, bytes);
        if let Some(store) = &self.volume_store {
            scene.volume.store = store.parse().map_err(|error| format!("volume_store: {error}"))?;
        }
        if let Some(usage) = &self.usage {
            scene.usage = crate::Usage {
                containers: usage.containers,
                memory_bytes: bytes(usage.memory_mib),
                volumes: usage.volumes,
                volumes_bytes: bytes(usage.volumes_mib),
                store_bytes: bytes(usage.store_mib),
            };
        }
        if let Some(accelerator) = &self.accelerator {
            scene.accelerator.clone_from(accelerator);
            scene.hardware_isolation = accelerator == "kvm";
        }
        scene.now = self.now.unwrap_or(scene.now);
        Ok(())
    }
}

fn bytes(mib: u64) -> u64 {
    mib.saturating_mul(1 << 20)
}
