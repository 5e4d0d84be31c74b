//! Plugins and policies together: who is asked, what becomes of what they say, and what is written down.

use crate::world::{World, ask, no_view, operator, within};
use bulkhead_engine::{Created, EngineError, ExecAsk, NewBinding, NewNetwork, NewScope, Update};
use bulkhead_model::plugin::{Binding, Failure, Mode, OnFailure, Said};
use bulkhead_model::reason::Rule;
use bulkhead_model::{Caller, ContainerAsk, Decision, VchSettings, Verdict};
use bulkhead_test_support::plugins::component;
use serde_json::{Value, json};

fn caps(settings: Value) -> NewBinding {
    NewBinding {
        plugin: "resource-caps".into(),
        scope: NewScope::Everywhere,
        position: 0,
        mode: Mode::Enforce,
        on_failure: OnFailure::Refuse,
        settings,
    }
}

fn hostile(does: &str) -> NewBinding {
    NewBinding { plugin: "hostile".into(), ..caps(json!({ "does": does })) }
}

async fn with_plugins(class: &str) -> World {
    let world = World::with(class, VchSettings::default()).await;
    for name in ["resource-caps", "hostile-plugin"] {
        within("install", world.engine.plugin_install(&operator(), component(name).unwrap())).await.unwrap();
    }
    world
}

async fn bind(world: &World, name: &str, new: NewBinding) -> Binding {
    within("bind", world.engine.binding_put(&operator(), name.parse().unwrap(), new, None)).await.unwrap()
}

async fn create(world: &World, ask: ContainerAsk) -> Result<Created, EngineError> {
    world.create_as(None, ask).await
}

async fn last_decision(world: &World) -> Decision {
    world.store.decisions(world.vch.id, 1).await.unwrap().remove(0)
}

/// The decision's reasons, as they are told to whoever was refused.
fn refusal(error: &EngineError) -> (Vec<Rule>, String) {
    let EngineError::Denied { reasons, .. } = error else { panic!("{error:?}") };
    (reasons.iter().map(|reason| reason.rule.clone()).collect(), error.to_string())
}

fn asking(memory_mib: u64) -> ContainerAsk {
    ContainerAsk { memory_bytes: Some(memory_mib << 20), ..ask("sleep") }
}

#[tokio::test]
async fn a_container_is_made_as_plugins_change_it_and_the_user_is_told() {
    let world = with_plugins("dev").await;
    bind(&world, "caps", caps(json!({ "memory-mib-max": 64, "pids-max": 50, "cpu-milli-max": 500 }))).await;
    let created = create(&world, asking(256)).await.unwrap();
    assert!(
        created.warnings.contains(&"caps: memory is lowered from 256 to 64 MiB, the cap".to_owned()),
        "{created:?}"
    );
    let container = world.container(&created.id).await;
    let resources = container.spec.resources;
    assert_eq!((resources.memory_bytes, resources.cpu_milli), (64 << 20, 500));
    assert_eq!(container.spec.process.pids_max, Some(50));
    let decision = last_decision(&world).await;
    assert_eq!((decision.verdict, decision.plugins.len()), (Verdict::Allow, 1));
    let Said::Change { changes } = &decision.plugins[0].said else { panic!("{decision:?}") };
    assert_eq!(changes.len(), 3);
    // What policies judged is what was made.
    assert!(decision.inputs.to_string().contains("\"memoryMib\":64"), "{}", decision.inputs);
    // What asks for less is left alone.
    let small = create(&world, asking(32)).await.unwrap();
    assert_eq!(world.container(&small.id).await.spec.resources.memory_bytes, 32 << 20);
}

#[tokio::test]
async fn a_denial_tells_why_and_what_would_pass() {
    let world = with_plugins("dev").await;
    bind(&world, "caps", caps(json!({ "memory-mib-max": 64, "over": "refuse" }))).await;
    bind(&world, "hostile", hostile("deny")).await;
    let error = create(&world, asking(256)).await.unwrap_err();
    let (rules, text) = refusal(&error);
    // All of them speak, in their order.
    assert_eq!(rules, [Rule::Plugin("caps".into()), Rule::Plugin("hostile".into())]);
    let expected = "denied by plugin \"caps\": it asks for 256 MiB of memory, the cap is 64 (--memory 64m at most), and 1 more";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(last_decision(&world).await.verdict, Verdict::Deny);
    assert_eq!(world.engine.containers(&world.session).await.unwrap().len(), 0);
}

#[tokio::test]
async fn policies_judge_what_plugins_made_of_it() {
    // `test` takes up to a certain memory; the plugin makes a yes of what would be a no, and a no of what would be a yes.
    let world = with_plugins("test").await;
    let most = (1..=64).map(|gib| gib << 10);
    let mut over = None;
    for mib in most {
        let spoken = create(&world, asking(mib)).await;
        if let Err(error) = spoken {
            let (rules, _) = refusal(&error);
            assert!(rules.iter().all(|rule| matches!(rule, Rule::Policy(_))), "{rules:?}");
            over = Some(mib);
            break;
        }
    }
    let over = over.unwrap();
    bind(&world, "caps", caps(json!({ "memory-mib-max": 64 }))).await;
    let created = create(&world, asking(over)).await.unwrap();
    assert_eq!(world.container(&created.id).await.spec.resources.memory_bytes, 64 << 20);
}

#[tokio::test]
async fn who_may_not_ask_has_no_plugin_s_attention() {
    let world = with_plugins("dev").await;
    bind(&world, "hostile", hostile("deny")).await;
    let stranger = bulkhead_engine::Session { caller: Caller::unix(4242), ..world.session.clone() };
    let error =
        within("create", world.engine.create(&stranger, None, ask("sleep"), no_view())).await.unwrap_err();
    let (rules, _) = refusal(&error);
    assert_eq!(rules, [Rule::Policy("tenant-isolation".into())]);
    assert_eq!(last_decision(&world).await.plugins, []);
}

#[tokio::test]
async fn a_monitored_plugin_is_asked_and_changes_nothing() {
    let world = with_plugins("dev").await;
    for (name, new) in [("caps", caps(json!({ "memory-mib-max": 64 }))), ("hostile", hostile("deny"))] {
        bind(&world, name, NewBinding { mode: Mode::Monitor, ..new }).await;
    }
    let created = create(&world, asking(256)).await.unwrap();
    assert_eq!(created.warnings, Vec::<String>::new());
    assert_eq!(world.container(&created.id).await.spec.resources.memory_bytes, 256 << 20);
    let said: Vec<_> =
        last_decision(&world).await.plugins.iter().map(|report| report.said.as_str()).collect();
    assert_eq!(said, ["change", "deny"]);
}

#[tokio::test]
async fn changes_that_cannot_be_are_a_failure_and_change_nothing() {
    let world = with_plugins("dev").await;
    let mut user = ask("sleep");
    user.user = Some("1000".into());
    for (does, why) in [
        ("become-root", "does not become root"),
        ("own-label", "the engine's own"),
        ("greed", "the host has"),
        ("many-changes", "more than 64 changes"),
    ] {
        bind(&world, "hostile", hostile(does)).await;
        let error = create(&world, user.clone()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{does}: {error}");
        bind(&world, "hostile", NewBinding { on_failure: OnFailure::Skip, ..hostile(does) }).await;
        let created = create(&world, user.clone()).await.unwrap();
        assert_eq!(world.container(&created.id).await.spec.user, "1000");
        let report = last_decision(&world).await.plugins.remove(0);
        assert!(matches!(report.said, Said::Failed { why: Failure::Answer, .. }), "{report:?}");
    }
}

#[tokio::test]
async fn what_fails_too_often_is_not_asked_for_a_while() {
    let world = with_plugins("dev").await;
    bind(&world, "hostile", hostile("panic")).await;
    for _ in 0..5 {
        let error = create(&world, ask("sleep")).await.unwrap_err();
        assert!(error.to_string().contains("it failed (trap), which denies"), "{error}");
    }
    // Its failure policy stays in force.
    let error = create(&world, ask("sleep")).await.unwrap_err();
    assert!(error.to_string().contains("failed too often"), "{error}");
    let report = last_decision(&world).await.plugins.remove(0);
    assert_eq!((report.said, report.fuel), (Said::Quarantined, 0));
    // Who changes the binding has seen to it.
    bind(&world, "hostile", hostile("allow")).await;
    create(&world, ask("sleep")).await.unwrap();
}

#[tokio::test]
async fn one_that_fails_does_not_keep_others_from_deciding() {
    let world = with_plugins("dev").await;
    bind(&world, "hostile", NewBinding { on_failure: OnFailure::Skip, position: -1, ..hostile("loop") })
        .await;
    bind(&world, "caps", caps(json!({ "memory-mib-max": 64 }))).await;
    let created = create(&world, asking(256)).await.unwrap();
    assert_eq!(world.container(&created.id).await.spec.resources.memory_bytes, 64 << 20);
    let said: Vec<_> =
        last_decision(&world).await.plugins.iter().map(|report| report.said.as_str()).collect();
    assert_eq!(said, ["failed", "change"]);
}

#[tokio::test]
async fn a_binding_holds_where_it_is_bound() {
    let world = with_plugins("dev").await;
    let other = world.add_vch("other", "test", VchSettings::default()).await;
    let in_other =
        async || within("create", world.engine.create(&other, None, ask("sleep"), no_view())).await;
    bind(&world, "hostile", NewBinding { scope: NewScope::Class("test".into()), ..hostile("deny") }).await;
    create(&world, ask("sleep")).await.unwrap();
    refusal(&in_other().await.unwrap_err());
    let of_vch = NewScope::Vch(world.vch.name.to_string());
    bind(&world, "hostile", NewBinding { scope: of_vch, ..hostile("deny") }).await;
    refusal(&create(&world, ask("sleep")).await.unwrap_err());
    in_other().await.unwrap();
    for (scope, text) in [
        (NewScope::Class("nosuch".into()), "there are dev, prod, test"),
        (NewScope::Vch("nosuch".into()), "no VCH `nosuch`"),
    ] {
        let new = NewBinding { scope, ..hostile("deny") };
        let error = world.engine.binding_put(&operator(), "x".parse().unwrap(), new, None).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn every_kind_of_request_is_asked_about() {
    let world = with_plugins("dev").await;
    let id = world.run("sleep").await;
    bind(&world, "hostile", hostile("deny")).await;
    let exec = ExecAsk { cmd: vec!["id".into(), "-u".into()], ..ExecAsk::default() };
    let error = world.engine.exec_create(&world.session, id.as_str(), exec).await.unwrap_err();
    assert!(error.to_string().contains("no id -u here"), "{error}");
    let memory = |_: &_| Ok(Update { memory_bytes: Some(32 << 20), ..Update::default() });
    let error: EngineError = world.engine.update(&world.session, id.as_str(), memory).await.unwrap_err();
    assert!(error.to_string().contains("no update here"), "{error}");
    let new = NewNetwork { name: "inner".into(), ..NewNetwork::default() };
    let error = world.engine.network_create(&world.session, new).await.unwrap_err();
    assert!(error.to_string().contains("no inner here"), "{error}");
    let named =
        bulkhead_model::volume::VolumeAsk { name: Some("inner-data".parse().unwrap()), ..Default::default() };
    let error = world.engine.create_volume(&world.session, &named).await.unwrap_err();
    assert!(error.to_string().contains("no inner-data here"), "{error}");
    let reference = "registry.example/app:1".parse().unwrap();
    let error = world.engine.tags(&world.session, &reference, &Default::default()).await.unwrap_err();
    assert!(error.to_string().contains("no registry.example/app:1 here"), "{error}");
}

#[tokio::test]
async fn bindings_and_code_are_there_after_a_restart() {
    let mut world = with_plugins("dev").await;
    bind(&world, "caps", caps(json!({ "memory-mib-max": 64 }))).await;
    world.restart().await;
    let created = create(&world, asking(256)).await.unwrap();
    assert_eq!(world.container(&created.id).await.spec.resources.memory_bytes, 64 << 20);
    // Code that is gone is made anew from what the database has.
    std::fs::remove_dir_all(world.work.path().join("plugins")).unwrap();
    world.restart().await;
    let created = create(&world, asking(256)).await.unwrap();
    assert_eq!(world.container(&created.id).await.spec.resources.memory_bytes, 64 << 20);
}

#[tokio::test]
async fn plugins_and_bindings_come_and_go() {
    let world = with_plugins("dev").await;
    let engine = &world.engine;
    let names: Vec<_> =
        engine.plugins(&operator()).await.unwrap().iter().map(|it| it.manifest.name.to_string()).collect();
    assert_eq!(names, ["hostile", "resource-caps"]);
    // The same again is found.
    let again = engine.plugin_install(&operator(), component("resource-caps").unwrap()).await.unwrap();
    assert_eq!(engine.plugins(&operator()).await.unwrap().len(), 2);
    let binding = bind(&world, "caps", caps(json!({}))).await;
    assert_eq!((binding.revision, &binding.digest), (1, &again.digest));
    let put = async |before| {
        engine.binding_put(&operator(), "caps".parse().unwrap(), caps(json!({ "pids-max": 9 })), before).await
    };
    for stale in [0, 2] {
        let error = put(Some(stale)).await.unwrap_err();
        assert!(error.to_string().contains("was changed meanwhile"), "{error}");
    }
    assert_eq!(put(Some(1)).await.unwrap().revision, 2);
    let error = engine.plugin_remove(&operator(), "resource-caps").await.unwrap_err();
    assert!(error.to_string().contains("is bound by caps"), "{error}");
    let bad = NewBinding { settings: json!({ "memory-mib-max": 1 }), ..caps(json!({})) };
    let error = engine.binding_put(&operator(), "caps".parse().unwrap(), bad, None).await.unwrap_err();
    assert!(error.to_string().contains("/memory-mib-max: 6 is the least"), "{error}");
    engine.binding_remove(&operator(), "caps").await.unwrap();
    assert!(matches!(engine.binding_remove(&operator(), "caps").await, Err(EngineError::NoSuchBinding(_))));
    let beginning = &again.digest.hex()[..12];
    engine.plugin_remove(&operator(), beginning).await.unwrap();
    assert!(matches!(engine.plugin_remove(&operator(), beginning).await, Err(EngineError::NoSuchPlugin(_))));
    // Nobody but an operator.
    let user = Caller::unix(1000);
    assert!(matches!(engine.plugins(&user).await, Err(EngineError::Denied { .. })));
    assert!(matches!(engine.plugin_install(&user, Vec::new()).await, Err(EngineError::Denied { .. })));
    assert!(matches!(engine.bindings(&user).await, Err(EngineError::Denied { .. })));
}
