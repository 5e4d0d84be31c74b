//! Plugins that do as they should, and plugins that do not, through the real engine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use bulkhead_model::plugin::{Change, Failure, Said};
use bulkhead_model::vch::VchName;
use bulkhead_model::{
    Caller, ContainerAsk, ContainerId, ContainerSpec, DecisionId, Digest, ImageConfig, RestartPolicy, Vch,
    VchId, VchSettings,
};
use bulkhead_plugin::{
    Asked, Circumstances, Compiler, Container, Host, HostError, Limits, Plugin, Question, Subject, UsageAfter,
};
use bulkhead_test_support::plugins::{compiler, component};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

fn host(folder: &Path) -> Host {
    let (program, arguments) = compiler().unwrap();
    Host::new(folder, Compiler::new(program, arguments), unhurried()).unwrap()
}

async fn load(host: &Host, component: Vec<u8>) -> Result<Plugin, HostError> {
    host.load(&Digest::of(&component), async move || Ok(component)).await
}

async fn plugin(host: &Host, name: &str) -> Plugin {
    load(host, component(name).unwrap()).await.unwrap()
}

/// A container of 512 MiB that runs as `user`.
fn spec(user: &str) -> ContainerSpec {
    let image = ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() };
    let ask = ContainerAsk { user: Some(user.into()), ..ContainerAsk::default() };
    bulkhead_model::container::resolve(
        &ContainerId::from_random([1; 32]),
        &ask,
        &image,
        &VchSettings::default(),
    )
    .unwrap()
}

fn asked(spec: &ContainerSpec) -> Asked {
    let vch = Vch {
        id: VchId(uuid::Uuid::nil()),
        name: "one".parse::<VchName>().unwrap(),
        tenant: "acme".into(),
        class: "test".parse().unwrap(),
        parent: None,
        settings: VchSettings::default(),
        created_at: chrono::DateTime::UNIX_EPOCH,
        deleting: false,
    };
    let container =
        Container { name: "web", spec, asked: "nginx", image: None, restart: RestartPolicy::default() };
    Question {
        circumstances: Circumstances {
            decision: &DecisionId::new(1, 2),
            vch: &vch,
            caller: &Caller::unix(1000),
            now: chrono::DateTime::UNIX_EPOCH,
            seed: 42,
        },
        subject: Subject::ContainerCreate(container),
        usage_after: UsageAfter::default(),
    }
    .prepare()
}

/// All limits as they are, but one: how long a machine that does much else takes is not for these tests to say.
fn unhurried() -> Limits {
    Limits { deadline: Duration::from_secs(10), ..Limits::default() }
}

async fn said(plugin: &Plugin, settings: Value) -> Result<Said, (Failure, String)> {
    let called = plugin.review(&settings, &asked(&spec("www")), &unhurried()).await;
    called.result.map(|review| review.said).map_err(|error| (error.why, error.text))
}

#[tokio::test]
async fn it_says_what_it_is_and_checks_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let caps = plugin(&host(folder.path()), "resource-caps").await;
    let manifest = caps.describe().await.unwrap();
    assert_eq!((manifest.name.as_str(), manifest.version.as_str()), ("resource-caps", "1.0.0"));
    assert_eq!(manifest.settings_schema["type"], "object");
    let problems = async |settings| caps.check_settings(&settings).await.unwrap();
    assert_eq!(problems(json!({ "memory-mib-max": 64 })).await, []);
    assert_eq!(problems(json!({ "memory-mib-max": 2 })).await[0].0, "/memory-mib-max");
    assert!(problems(json!({ "memory": 2 })).await[0].1.contains("unknown field `memory`"));
    assert!(problems(json!([])).await[0].1.contains("JSON object"));
    assert!(problems(json!({ "x": "y".repeat(70_000) })).await[0].1.contains("bytes at most"));
}

#[tokio::test]
async fn the_same_question_has_the_same_answer_at_the_same_cost() {
    let folder = tempfile::tempdir().unwrap();
    let caps = plugin(&host(folder.path()), "resource-caps").await;
    let settings = json!({ "memory-mib-max": 64, "pids-max": 9 });
    let question = asked(&spec("www"));
    let first = caps.review(&settings, &question, &unhurried()).await;
    let review = first.result.unwrap();
    let Said::Change { changes } = &review.said else { panic!("{review:?}") };
    let changes: Vec<_> = changes.iter().map(|(change, _)| change.clone()).collect();
    assert_eq!(changes, [Change::SetMemoryMib { mib: 64 }, Change::SetPidsMax { pids: 9 }]);
    assert_eq!(review.warnings, ["memory is lowered from 512 to 64 MiB, the cap"]);
    assert!(first.fuel > 0);
    for _ in 0..20 {
        let again = caps.review(&settings, &question, &unhurried()).await;
        assert_eq!((again.result.unwrap(), again.fuel), (review.clone(), first.fuel));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_it_does_wrong_the_next_call_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = plugin(&host(folder.path()), "hostile-plugin").await;
    for (does, why, text) in [
        ("loop", Failure::Fuel, "units of fuel"),
        ("panic", Failure::Trap, "unreachable"),
        ("memory", Failure::Memory, "more than 32 MiB"),
        ("recursion", Failure::Trap, "stack"),
        ("huge", Failure::Size, ""),
        ("chatter", Failure::Fuel, ""),
        ("many-changes", Failure::Answer, "more than 64 changes"),
    ] {
        let begun = Instant::now();
        let (found, words) = said(&hostile, json!({ "does": does })).await.unwrap_err();
        assert!(found == why && words.contains(text), "{does}: {found:?} {words}");
        // Of minutes, if nothing stopped it.
        assert!(begun.elapsed() < Duration::from_secs(5), "{does}: {:?}", begun.elapsed());
        assert_eq!(said(&hostile, json!({})).await, Ok(Said::Allow), "after {does}");
    }
}

#[tokio::test]
async fn a_loop_ends_at_its_deadline_however_much_fuel_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = plugin(&host(folder.path()), "hostile-plugin").await;
    let limits = Limits { fuel: u64::MAX / 2, ..Limits::default() };
    let called = hostile.review(&json!({ "does": "loop" }), &asked(&spec("")), &limits).await;
    assert_eq!(called.result.unwrap_err().why, Failure::Deadline);
    // A tick may be nearly over when the call begins.
    assert!(called.took >= limits.deadline * 9 / 10, "{:?}", called.took);
}

#[tokio::test]
async fn a_log_is_cut_to_size() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = plugin(&host(folder.path()), "hostile-plugin").await;
    let called = hostile.review(&json!({ "does": "chatter" }), &asked(&spec("")), &unhurried()).await;
    assert_eq!((called.lines.len(), called.lines[0].text.as_str()), (100, "la"));
}

#[tokio::test]
async fn many_calls_at_once_each_have_their_answer() {
    let folder = tempfile::tempdir().unwrap();
    let caps = plugin(&host(folder.path()), "resource-caps").await;
    let calls = (0..200u32).map(|n| {
        let (caps, cap) = (caps.clone(), 64 + n);
        tokio::spawn(async move {
            let settings = json!({ "memory-mib-max": cap });
            let said = said(&caps, settings).await.unwrap();
            let Said::Change { changes } = said else { panic!("{said:?}") };
            assert_eq!(changes[0].0, Change::SetMemoryMib { mib: cap });
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_plugin_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let host = host(folder.path());
    let whole = component("resource-caps").unwrap();
    let cut = whole[..whole.len() / 2].to_vec();
    // A module, which a component is not; and a component that exports nothing.
    let module = b"\0asm\x01\0\0\0".to_vec();
    let empty = b"\0asm\x0d\0\x01\0".to_vec();
    for (bytes, why) in [
        (Vec::new(), "unexpected end"),
        (b"#!/bin/sh".to_vec(), "WebAssembly"),
        (cut, "out of bounds"),
        (module, "component"),
        (empty, "cannot be loaded"),
        (vec![0; 5 << 20], "are the most"),
    ] {
        let error = load(&host, bytes).await.unwrap_err();
        let HostError::Refused(text) = &error else { panic!("{error:?}") };
        assert!(text.contains(why), "{why}: {text}");
    }
    let wrong = host.load(&Digest::of(b"another"), async || Ok(component("resource-caps").unwrap())).await;
    assert!(matches!(&wrong, Err(HostError::Refused(text)) if text.contains("is not the one")), "{wrong:?}");
}

#[tokio::test]
async fn code_is_kept_and_made_anew_where_it_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let component = component("hostile-plugin").unwrap();
    let digest = Digest::of(&component);
    load(&host(folder.path()), component.clone()).await.unwrap();
    let never = async || panic!("it was compiled before");
    host(folder.path()).load(&digest, never).await.unwrap();
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let code = std::fs::read(&file).unwrap();
    let mut flipped = code.clone();
    flipped[code.len() / 2] ^= 1;
    for damaged in [&b""[..], &code[..code.len() / 3], &flipped] {
        std::fs::write(&file, damaged).unwrap();
        let again = host(folder.path());
        let plugin = load(&again, component.clone()).await.unwrap();
        assert_eq!(said(&plugin, json!({})).await, Ok(Said::Allow));
        assert_eq!(std::fs::read(&file).unwrap().len(), code.len());
        again.forget(&digest);
        assert!(!file.exists());
        load(&again, component.clone()).await.unwrap();
    }
}
