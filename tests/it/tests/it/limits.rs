//! What a VCH and its class allow, and how a refusal is told.

use crate::world::{World, ask, operator, within};
use bulkhead_engine::{DecisionFilter, EngineError};
use bulkhead_model::reason::{Number, Rule};
use bulkhead_model::{ContainerAsk, Decision, Reason, VchSettings, Verdict};
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;

fn numbers(reason: &Reason) -> BTreeMap<&str, i64> {
    reason.numbers.iter().map(|Number { name, value, .. }| (name.as_str(), *value)).collect()
}

fn limit(error: EngineError) -> Reason {
    match error {
        EngineError::Limit(reason) => *reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn so_many_containers_and_no_more() {
    let world = World::with("dev", VchSettings { containers_max: 2, ..VchSettings::default() }).await;
    let first = world.create("sleep").await;
    world.create("sleep").await;
    let reason = limit(world.create_as(None, ask("sleep")).await.unwrap_err());
    assert_eq!(reason.rule, Rule::Limit("containers_max".into()));
    assert_eq!(numbers(&reason), BTreeMap::from([("limit", 2), ("used", 2), ("requested", 1)]));
    assert_eq!(world.engine.containers(&world.session).await.unwrap().len(), 2);
    world.remove(&first, false).await.unwrap();
    world.create("sleep").await;
}

#[tokio::test]
async fn so_much_memory_of_what_runs_and_no_more() {
    let settings = VchSettings { memory_bytes_max: Some(700 * MIB), ..VchSettings::default() };
    let world = World::with("dev", settings).await;
    let of = |mib: u64| ContainerAsk { memory_bytes: Some(mib * MIB), ..ask("sleep") };
    let large = world.create_as(None, of(512)).await.unwrap().id;
    let second = world.create_as(None, of(256)).await.unwrap().id;
    let small = world.create_as(None, of(128)).await.unwrap().id;
    world.start(&large).await.unwrap();
    let reason = limit(world.start(&second).await.unwrap_err());
    assert_eq!(reason.rule, Rule::Limit("memory_bytes_max".into()));
    let mib = |mib: u64| i64::try_from(mib * MIB).unwrap();
    let expect = [("limit", mib(700)), ("used", mib(512)), ("requested", mib(256))];
    assert_eq!(numbers(&reason), BTreeMap::from(expect));
    world.start(&small).await.unwrap();
    // What has ended takes none.
    world.stop(&large, None).await.unwrap();
    world.start(&second).await.unwrap();
}

#[tokio::test]
async fn sizes_that_no_machine_has_are_refused() {
    let world = World::new().await;
    let error =
        world.create_as(None, ContainerAsk { cpu_milli: Some(9000), ..ask("sleep") }).await.unwrap_err();
    assert!(error.to_string().contains("from 0.01 to 8.00"), "{error}");
    let memory_bytes = Some(1 << 40);
    let error = world.create_as(None, ContainerAsk { memory_bytes, ..ask("sleep") }).await.unwrap_err();
    assert!(matches!(error, EngineError::Invalid { what: "memory", .. }), "{error:?}");
    let little = ContainerAsk { memory_bytes: Some(16 * MIB), ..ask("exit 0") };
    let created = world.create_as(None, little).await.unwrap();
    world.start(&created.id).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_told_with_its_policy_and_kept_for_those_who_ask() {
    let world = World::with("prod", VchSettings::default()).await;
    let asked = ContainerAsk { privileged: true, env: vec!["PASSWORD=geheim".into()], ..ask("sleep") };
    let error = world.create_as(None, asked).await.unwrap_err();
    let text = error.to_string();
    let EngineError::Denied { decision, reasons, .. } = error else { panic!("{error:?}") };
    assert!(
        reasons.iter().any(|reason| reason.rule == Rule::Policy("no-privileged-in-prod".into())),
        "{reasons:?}"
    );
    assert!(text.contains(&format!("bulkhead decision show {decision}")), "{text}");
    let kept = world.engine.decision(&operator(), &decision.to_string()).await.unwrap();
    assert_eq!(kept.verdict, Verdict::Deny);
    assert_eq!(
        (kept.action.as_str(), kept.caller.as_str(), kept.vch),
        ("container.create", "uid:1000", world.vch.id)
    );
    assert_eq!(kept.reasons, reasons);
    assert!(!kept.inputs.to_string().contains("geheim"), "{}", kept.inputs);
    let listed = decisions(&world, "prod", 10).await.unwrap();
    assert_eq!(listed.iter().map(|one| &one.id).collect::<Vec<_>>(), [&decision]);
    assert!(world.engine.containers(&world.session).await.unwrap().is_empty());
    let audit = world.store.audit(Some(world.vch.id), 10).await.unwrap();
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!(audit[0].entry.decision.as_ref(), Some(&decision));
}

#[tokio::test]
async fn a_change_that_was_permitted_is_kept_too_and_a_look_is_not() {
    let world = World::new().await;
    let id = world.create("sleep").await;
    world.container(&id).await;
    world.engine.containers(&world.session).await.unwrap();
    let listed = decisions(&world, "dev", 10).await.unwrap();
    assert_eq!(listed.iter().map(|one| one.action.as_str()).collect::<Vec<_>>(), ["container.create"]);
    assert_eq!(listed[0].verdict, Verdict::Allow);
    assert!(!listed[0].reasons.is_empty());
}

#[tokio::test]
async fn decisions_are_for_those_who_may_read_them() {
    let world = World::new().await;
    for text in ["", "d-zzz", "nosuch", "d-00000000000000000000"] {
        let error = world.engine.decision(&operator(), text).await.unwrap_err();
        assert!(matches!(error, EngineError::NoSuchDecision(_)), "{text}: {error:?}");
    }
    world.create("sleep").await;
    let id = decisions(&world, "dev", 1).await.unwrap()[0].id.to_string();
    let stranger = bulkhead_model::Caller::unix(4711);
    let error = world.engine.decision(&stranger, &id).await.unwrap_err();
    assert!(matches!(error, EngineError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn memory_is_capped_in_test() {
    let world = World::with("test", VchSettings::default()).await;
    let of = |memory_bytes| ContainerAsk { memory_bytes: Some(memory_bytes), ..ask("sleep") };
    world.create_as(None, of(2048 * MIB)).await.unwrap();
    let error = world.create_as(None, of(2049 * MIB)).await.unwrap_err();
    assert!(error.to_string().contains("memory-cap-in-test"), "{error}");
}

#[tokio::test]
async fn a_vch_is_removed_by_force_with_all_that_is_in_it() {
    let world = World::new().await;
    let other = world.add_vch("other", "dev", VchSettings::default()).await;
    let running = world.run("ignore-term ; sleep").await;
    world.create("sleep").await;
    let ended = world.run("exit 0").await;
    world.exit(&ended).await;
    let kept = within("create", world.engine.create(&other, None, ask("sleep"), crate::world::no_view()))
        .await
        .unwrap();
    let error = world.engine.vch_remove(&operator(), "dev", false).await.unwrap_err();
    assert!(matches!(error, EngineError::VchNotEmpty { containers: 3, .. }), "{error:?}");
    assert_eq!(world.sim.running(), [running]);
    within("removal", world.engine.vch_remove(&operator(), "dev", true)).await.unwrap();
    let names: Vec<_> =
        world.engine.all_vchs().await.unwrap().iter().map(|vch| vch.name.to_string()).collect();
    assert_eq!(names, ["other"]);
    assert_eq!(world.sim.leftovers(), (0, 0, 0, 2), "the layers of the other VCH only");
    assert_eq!(world.engine.container(&other, kept.id.as_str()).await.unwrap().id, kept.id);
    let error = world.engine.containers(&world.session).await.unwrap_err();
    assert!(matches!(error, EngineError::NoSuchVch(_)), "{error:?}");
    let error = world.engine.vch_remove(&other.caller, "other", true).await.unwrap_err();
    assert!(matches!(error, EngineError::Denied { .. }), "{error:?}");
}

/// The newest of a VCH.
async fn decisions(world: &World, vch: &str, limit: u32) -> Result<Vec<Decision>, EngineError> {
    world.engine.decisions_matching(&operator(), Some(vch), DecisionFilter::default(), limit).await
}
