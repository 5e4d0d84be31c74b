//! Runs `policies/cases/TOPIC/{ALLOW,DENY}/SENTENCE.json` through the shipped policies, and odd cases.

use crate::support::World;
use bulkhead_model::{Action, PolicyFiles};
use bulkhead_policy::{PolicySet, Settings, examine, read_folder};
use std::path::Path;

fn shipped() -> PolicyFiles {
    read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")).unwrap()
}

#[test]
fn every_case_is_decided_as_its_folder_says() {
    let examined = examine(&shipped(), Path::new("")).unwrap();
    assert!(examined.cases.len() >= 140, "only {} cases ran", examined.cases.len());
    examined.passed().unwrap();
}

/// What is said of one case beside the shipped ones.
fn said(name: &str, text: &str) -> String {
    let file = format!("cases/odd/{name}.json");
    let set = PolicySet::shipped().unwrap();
    let result = set.run_cases(&PolicyFiles::from([(file, text.to_owned())])).pop().unwrap();
    assert_eq!(result.name, format!("odd/{name}"));
    result.failure.unwrap_or_default()
}

#[test]
fn a_case_that_is_wrong_says_why() {
    let create = |more: &str| format!(r#"{{"class":"dev","action":"container.create"{more}}}"#);
    assert_eq!(said("ALLOW/a", &create("")), "");
    for (name, text, expected) in [
        ("DENY/a", create(""), "allow instead of deny: policy \"dev-users-work\""),
        ("ALLOW/a", create(r#", "reason": ["other"]"#), "decided by dev-users-work, not by other"),
        ("ALLOW/a", create(r#", "priviledged": true"#), "unknown field `priviledged`"),
        ("ALLOW/a", create("}"), "it is no JSON"),
        ("ALLOW/a", create(r#", "cap_add": ["CAP_FLY"]"#), "cap_add"),
        (
            "ALLOW/a",
            r#"{"class":"dev","action":"container.creat"}"#.into(),
            "there is no action `container.creat`",
        ),
        ("ALLOW/a", r#"{"class":"Dev","action":"container.create"}"#.into(), "is not a class"),
        ("DENY/a", r#"{"class":"lab","action":"container.create"}"#.into(), "class-has-policies"),
        ("DENY/a", r#"{"inputs":{"class":"dev"}}"#.into(), "action: it is missing"),
    ] {
        let said = said(name, &text);
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn a_recorded_decision_is_a_case() {
    let set = PolicySet::shipped().unwrap();
    let mut world = World::new("test");
    world.spec.resources.memory_bytes = 4 << 30;
    let outcome = set.decide(&Settings::default(), &world.query(Action::ContainerCreate));
    let case = serde_json::json!({ "inputs": outcome.inputs, "reason": ["memory-cap-in-test"] }).to_string();
    assert_eq!(said("DENY/recorded", &case), "");
    assert!(said("ALLOW/recorded", &case).contains("deny instead of allow"));
}

#[test]
fn a_set_whose_cases_fail_is_refused_by_their_names() {
    let mut files = shipped();
    files.remove("test/memory.cedar");
    let message = examine(&files, Path::new("")).unwrap().passed().unwrap_err().to_string();
    assert!(message.contains("case `memory/DENY/"), "{message}");
}
