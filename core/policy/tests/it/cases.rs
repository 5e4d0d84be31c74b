//! Runs `policies/cases/NAME/{ALLOW,DENY}/SENTENCE.json` through the shipped policies. The folder is the
//! expectation; a denial that comes from a policy that failed is a failure of the case.

use crate::support::{World, image, vch};
use bulkhead_model::caller::Via;
use bulkhead_model::capability::Capabilities;
use bulkhead_model::process::Seccomp;
use bulkhead_model::reason::Rule;
use bulkhead_model::{Action, Caller, Verdict};
use bulkhead_policy::{PolicySet, Settings};
use serde::Deserialize;
use std::path::{Path, PathBuf};

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
    asked: Option<String>,
    /// Repositories that the image was pulled from; empty for an image that was loaded or imported.
    pulled_from: Option<Vec<String>>,
    /// `false`: the image is not in the cache.
    cached: Option<bool>,
    privileged: Option<bool>,
    #[serde(default)]
    cap_add: Vec<String>,
    #[serde(default)]
    seccomp_unconfined: bool,
    memory_mib: Option<u64>,
    accelerator: Option<String>,
    #[serde(default)]
    trusted_registries: Vec<String>,
    #[serde(default)]
    operator_uids: Vec<u32>,
    #[serde(default)]
    accepts_emulation: bool,
    /// Ids of the policies that decide; `not-permitted` when none does. All of them, when given.
    reason: Option<Vec<String>>,
}

impl Case {
    fn world(&self) -> World {
        let mut world = World::new(&self.class);
        if self.loopback == Some(true) {
            world.vch.settings.insecure_listen = Some("127.0.0.1:2375".into());
        }
        world.endpoint = self.at_endpoint.unwrap_or(true).then(|| world.vch.clone());
        if let Some(tenant) = &self.tenant {
            world.vch = vch("other", tenant, &self.class);
            world.vch.settings.socket_uids.clear();
        }
        if let Some(caller) = &self.caller {
            world.caller = caller.clone();
        }
        if let Some(asked) = &self.asked {
            // Digests in cases are those that the test's own origins have.
            let nginx = crate::support::origin("registry.example/team/nginx").digest;
            world.asked = asked
                .replace("DIGEST", nginx.as_str())
                .replace("IMAGE_ID", crate::support::digest("config").as_str());
        }
        if let Some(from) = &self.pulled_from {
            world.image = Some(image(&from.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        if self.cached == Some(false) {
            world.image = None;
        }
        world.spec.privileged = self.privileged.unwrap_or(false);
        world.spec.process.cap_add = Capabilities::parse(&self.cap_add).unwrap();
        if self.seccomp_unconfined {
            world.spec.process.seccomp = Seccomp::Unconfined;
        }
        if let Some(memory) = self.memory_mib {
            world.spec.resources.memory_bytes = memory << 20;
        }
        if let Some(accelerator) = &self.accelerator {
            world.accelerator.clone_from(accelerator);
            world.hardware_isolation = accelerator == "kvm";
        }
        world
    }

    fn run(&self, set: &PolicySet, expected: Verdict) -> Result<(), String> {
        let action = Action::ALL.iter().find(|action| action.name() == self.action);
        let action = *action.ok_or_else(|| format!("there is no action `{}`", self.action))?;
        let settings = Settings {
            trusted_registries: self.trusted_registries.clone(),
            operator_uids: self.operator_uids.clone(),
            accepts_emulation: self.accepts_emulation,
        };
        let world = self.world();
        let outcome = set.decide(&settings, &world.query(action));
        if outcome.verdict != expected {
            return Err(format!("{:?}: {:#?}", outcome.verdict, outcome.reasons));
        }
        let mut ids = Vec::new();
        for reason in &outcome.reasons {
            match &reason.rule {
                Rule::Policy(id) => ids.push(id.clone()),
                Rule::NotPermitted => ids.push("not-permitted".into()),
                other => return Err(format!("decided by {other}: {}", reason.text)),
            }
        }
        match &self.reason {
            Some(wanted) if *wanted != ids => Err(format!("decided by {ids:?}, not by {wanted:?}")),
            _ => Ok(()),
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    // A topic may have no ALLOW or no DENY.
    if !dir.exists() {
        return Vec::new();
    }
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_case_is_decided_as_its_folder_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/cases");
    let set = PolicySet::shipped().unwrap();
    let (mut ran, mut failed) = (0, Vec::new());
    for topic in files(&root) {
        for (folder, verdict) in [("ALLOW", Verdict::Allow), ("DENY", Verdict::Deny)] {
            for path in files(&topic.join(folder)) {
                let text = std::fs::read_to_string(&path).unwrap();
                let outcome = serde_json::from_str::<Case>(&text)
                    .map_err(|error| error.to_string())
                    .and_then(|case| case.run(&set, verdict));
                ran += 1;
                if let Err(why) = outcome {
                    failed.push(format!("{}: {why}", path.strip_prefix(&root).unwrap().display()));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} of {ran} cases failed:\n{}", failed.len(), failed.join("\n"));
    assert!(ran >= 30, "only {ran} cases ran");
}

#[test]
fn an_unknown_key_in_a_case_is_refused() {
    let error =
        serde_json::from_str::<Case>(r#"{"class":"dev","action":"container.create","priviledged":true}"#);
    assert!(error.unwrap_err().to_string().contains("priviledged"));
    assert_eq!(serde_json::to_value(Via::Tls).unwrap(), "tls");
}
