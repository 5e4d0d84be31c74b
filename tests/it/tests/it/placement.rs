//! Where containers are put: by the engine alone, by plugins, and nowhere.

use crate::world::{World, ask, operator, within};
use bulkhead_engine::{Created, EngineError, NewBinding, NewScope};
use bulkhead_machine::places::{HostFacts, Places};
use bulkhead_model::placement::{Placement, PlacementReport};
use bulkhead_model::plugin::{Failure, Mode, OnFailure, Said};
use bulkhead_model::{Container, ContainerAsk, Decision, VchSettings, Verdict};
use bulkhead_test_support::plugins::component;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;

fn binding(plugin: &str, settings: Value) -> NewBinding {
    NewBinding {
        plugin: plugin.into(),
        scope: NewScope::Everywhere,
        position: 0,
        mode: Mode::Enforce,
        on_failure: OnFailure::Refuse,
        settings,
    }
}

fn hostile(does: &str) -> NewBinding {
    binding("hostile-placement", json!({ "does": does, "what": "host-00001" }))
}

/// With that many places, and plugins that nothing binds yet.
async fn world(hosts: usize, datastores: usize) -> World {
    let world = World::with("dev", VchSettings::default()).await;
    world.sim.set_places(Places::simulated(hosts, datastores));
    for name in ["spread", "datastore-tiers", "hostile-placement"] {
        within("install", world.engine.plugin_install(&operator(), component(name).unwrap())).await.unwrap();
    }
    world
}

async fn bind(world: &World, name: &str, new: NewBinding) {
    within("bind", world.engine.binding_put(&operator(), name.parse().unwrap(), new, None)).await.unwrap();
}

fn asking(labels: &[(&str, &str)]) -> ContainerAsk {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ContainerAsk { labels, memory_bytes: Some(512 * MIB), ..ask("sleep") }
}

async fn create(world: &World, ask: ContainerAsk) -> Result<Created, EngineError> {
    world.create_as(None, ask).await
}

async fn placed(world: &World, ask: ContainerAsk) -> Container {
    world.container(&create(world, ask).await.unwrap().id).await
}

async fn host(world: &World, labels: &[(&str, &str)]) -> String {
    placed(world, asking(labels)).await.placement.host.to_string()
}

async fn last_decision(world: &World) -> Decision {
    world.store.decisions(world.vch.id, 1).await.unwrap().remove(0)
}

async fn last_report(world: &World) -> PlacementReport {
    last_decision(world).await.placement.unwrap()
}

#[tokio::test]
async fn where_nothing_is_named_nothing_is_chosen() {
    let world = world(0, 0).await;
    let container = placed(&world, asking(&[])).await;
    assert!(container.placement.is_default());
    assert_eq!(last_decision(&world).await.placement, None);
}

#[tokio::test]
async fn without_a_plugin_free_memory_decides_and_then_who_has_fewer() {
    let world = world(3, 1).await;
    let first = placed(&world, asking(&[])).await;
    assert_eq!(first.placement.to_string(), "host-00000/datastore-00");
    // Nothing of it runs, so memory is equal everywhere.
    assert_eq!(host(&world, &[]).await, "host-00001");
    assert_eq!(host(&world, &[]).await, "host-00002");
    assert_eq!(host(&world, &[]).await, "host-00000");
    world.start(&first.id).await.unwrap();
    // Two on the first host, one of which has memory: even the others' second comes first.
    assert_eq!(host(&world, &[]).await, "host-00001");
    let report = last_report(&world).await;
    assert_eq!((report.candidates, report.eligible, report.best.len()), (3, 3, 3));
    assert!(report.scored_by.is_empty() && report.refusals.is_empty());
    assert_eq!(report.best[2].place.host.as_str(), "host-00000");
}

#[tokio::test]
async fn plugins_add_their_scores_and_what_one_refuses_is_out() {
    let world = world(2, 4).await;
    bind(&world, "spread", binding("spread", json!({ "apart": ["app"], "strict": true }))).await;
    bind(&world, "tiers", binding("datastore-tiers", json!({ "default": "bulk" }))).await;
    let web: &[(&str, &str)] = &[("app", "web"), ("tier", "fast")];
    let first = placed(&world, asking(web)).await;
    assert_eq!(first.placement.to_string(), "host-00000/datastore-00", "a tie is for the first by name");
    let second = placed(&world, asking(web)).await;
    assert_eq!(second.placement.to_string(), "host-00001/datastore-00");
    let decision = last_decision(&world).await;
    let report = decision.placement.clone().unwrap();
    assert_eq!((report.candidates, report.eligible), (8, 2));
    assert_eq!(report.scored_by, ["spread", "tiers"]);
    let sum: i64 = report.best[0].scores.iter().map(|score| i64::from(*score)).sum();
    assert_eq!(report.best[0].score, sum);
    let told: Vec<_> = report.refusals.iter().map(|one| (one.by.as_deref(), one.count)).collect();
    assert_eq!(told, [(Some("spread"), 4), (Some("tiers"), 2)]);
    let columns: Vec<_> = decision.plugins.iter().map(|plugin| plugin.columns.as_slice()).collect();
    assert_eq!(columns[0], ["containers-with:app=web", "memory-free-mib", "memory-mib"]);
    assert_eq!(columns[1], ["datastore-free-mib", "datastore-label:tier"]);
    assert_eq!(decision.plugins[1].said, Said::Rate { refused: 4, rated: 4 });
    // Another tier by default, and another label is nobody's neighbour.
    let other = placed(&world, asking(&[("app", "db")])).await;
    assert_eq!(other.placement.datastore.as_str(), "datastore-01");

    let error = create(&world, asking(web)).await.unwrap_err().to_string();
    assert!(
        error.contains("0 of 8 candidates: 8 refused by spread: a container with app=web is on the host"),
        "{error}"
    );
    let refused = last_decision(&world).await;
    assert_eq!((refused.verdict, refused.placement.unwrap().chosen), (Verdict::Deny, None));
    let tape = create(&world, asking(&[("tier", "tape")])).await.unwrap_err().to_string();
    assert!(tape.contains("8 refused by tiers: no datastore with tier=tape"), "{tape}");
}

#[tokio::test]
async fn containers_that_are_made_at_once_are_apart() {
    let world = world(4, 1).await;
    bind(&world, "spread", binding("spread", json!({ "apart": ["app"], "strict": true }))).await;
    let four = (0..4).map(|_| placed(&world, asking(&[("app", "web")])));
    let four = futures_util::future::join_all(four).await;
    let hosts: BTreeSet<_> = four.iter().map(|container| container.placement.host.clone()).collect();
    assert_eq!(hosts.len(), 4);
    // Those of another VCH are none of its neighbours.
    let session = world.add_vch("other", "dev", VchSettings::default()).await;
    let made = within(
        "create",
        world.engine.create(&session, None, asking(&[("app", "web")]), crate::world::no_view()),
    );
    made.await.unwrap();
}

#[tokio::test]
async fn who_has_no_room_is_no_candidate() {
    let world = world(0, 0).await;
    let mut places = Places::simulated(2, 2);
    places.hosts[0].memory_bytes = 600 * MIB;
    places.hosts[0].is_limit = true;
    places.hosts[1].cpus = 1;
    world.sim.set_places(places.clone());
    let small = placed(&world, asking(&[])).await;
    assert_eq!(small.placement.host.as_str(), "host-00001", "it has more memory");
    let wide = || ContainerAsk { cpu_milli: Some(2000), ..asking(&[]) };
    let first = placed(&world, wide()).await;
    assert_eq!(first.placement.host.as_str(), "host-00000");
    world.start(&first.id).await.unwrap();
    places.datastores[1].space = None;
    world.sim.set_places(places);
    let error = create(&world, wide()).await.unwrap_err().to_string();
    assert!(
        error.contains("0 of 4 candidates: 2 have fewer than 2 CPUs, 2 have no room for 512 MiB"),
        "{error}"
    );
    assert_eq!(placed(&world, asking(&[])).await.placement.datastore.as_str(), "datastore-00");
    let report = last_report(&world).await;
    assert!(report.refusals.iter().any(|one| one.why == "have a datastore that is not there"), "{report:?}");
}

#[tokio::test]
async fn one_that_is_only_watched_decides_nothing() {
    let world = world(3, 1).await;
    bind(&world, "watched", NewBinding { mode: Mode::Monitor, ..hostile("refuse") }).await;
    assert_eq!(host(&world, &[]).await, "host-00000");
    let decision = last_decision(&world).await;
    // It is asked at both points.
    let said: Vec<_> = decision.plugins.iter().map(|plugin| plugin.said.clone()).collect();
    assert_eq!(said, [Said::Allow, Said::Rate { refused: 3, rated: 0 }]);
    assert!(decision.placement.unwrap().scored_by.is_empty());
    bind(&world, "watched", hostile("prefer")).await;
    assert_eq!(host(&world, &[]).await, "host-00001");
}

#[tokio::test]
async fn one_that_fails_refuses_or_leaves_it_to_the_others() {
    let world = world(3, 1).await;
    bind(&world, "broken", hostile("short")).await;
    let error = create(&world, asking(&[])).await.unwrap_err().to_string();
    assert!(error.contains("it failed (answer), which denies: it has 2 scores for 3 candidates"), "{error}");
    assert_eq!(world.engine.containers(&world.session).await.unwrap().len(), 0);
    bind(&world, "broken", NewBinding { on_failure: OnFailure::Skip, ..hostile("panic") }).await;
    assert_eq!(host(&world, &[]).await, "host-00000", "the engine chooses by itself");
    let decision = last_decision(&world).await;
    assert!(matches!(&decision.plugins[1].said, Said::Failed { why: Failure::Trap, .. }), "{decision:?}");
    bind(&world, "good", hostile("prefer")).await;
    assert_eq!(host(&world, &[]).await, "host-00001", "or another plugin");
    // It failed twice in this VCH since it was bound; after three more it is not asked for a while.
    for _ in 0..3 {
        create(&world, asking(&[])).await.unwrap();
    }
    create(&world, asking(&[])).await.unwrap();
    let said = last_decision(&world).await.plugins;
    let broken = said.iter().filter(|plugin| plugin.binding.as_str() == "broken");
    assert_eq!(broken.filter(|plugin| plugin.said == Said::Quarantined).count(), 2, "{said:?}");
}

#[tokio::test]
async fn ten_thousand_hosts_are_looked_at() {
    let world = world(10_000, 1).await;
    bind(&world, "spread", binding("spread", json!({ "mode": "pack", "apart": ["app"], "strict": true })))
        .await;
    assert_eq!(host(&world, &[("app", "web")]).await, "host-00000");
    assert_eq!(host(&world, &[("app", "web")]).await, "host-00001");
    let report = last_report(&world).await;
    assert_eq!((report.candidates, report.eligible, report.best.len()), (10_000, 9_999, 20));
    assert_eq!((report.refusals[0].count, report.refusals[0].example.host.as_str()), (1, "host-00000"));
}

#[tokio::test]
async fn a_place_that_is_gone_is_told_at_start_and_found_by_fsck() {
    let mut world = world(2, 2).await;
    let container = placed(&world, asking(&[])).await;
    world.start(&container.id).await.unwrap();
    assert!(world.engine.fsck(&operator()).await.unwrap().is_empty());
    world.stop(&container.id, Some(0)).await.unwrap();
    let all = Places::simulated(2, 2);
    let without_host = Places {
        hosts: vec![HostFacts { name: "other".parse().unwrap(), ..all.hosts[0].clone() }],
        datastores: all.datastores.clone(),
    };
    world.sim.set_places(without_host);
    world.restart().await;
    let error = world.start(&container.id).await.unwrap_err().to_string();
    assert!(
        error.contains(
            "host slice `host-00000`, on which the container was placed, is not in the configuration"
        ),
        "{error}"
    );
    let mut away = all.clone();
    away.datastores[0].space = None;
    world.sim.set_places(away);
    let error = world.start(&container.id).await.unwrap_err().to_string();
    assert!(error.contains("datastore `datastore-00` is not there"), "{error}");
    let found = world.engine.fsck(&operator()).await.unwrap();
    assert!(found.iter().any(|one| one.kind == "placement" && one.of == container.id.as_str()), "{found:?}");
    world.sim.set_places(all);
    world.start(&container.id).await.unwrap();
    let machine = world.engine.machine(&operator(), container.id.as_str()).await.unwrap();
    let expected =
        Placement { host: "host-00000".parse().unwrap(), datastore: "datastore-00".parse().unwrap() };
    assert_eq!(machine.facts.placement, expected);
}
