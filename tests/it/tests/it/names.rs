//! Which container is meant, and whose it is.

use crate::world::{World, ask, operator, session, within};
use bulkhead_engine::{EngineError, Session, WaitFor};
use bulkhead_model::container::Signal;
use bulkhead_model::{Caller, VchSettings};

#[tokio::test]
async fn a_name_is_taken_until_its_container_is_gone() {
    let world = World::new().await;
    let id = world.create_as(Some("web"), ask("sleep")).await.unwrap().id;
    let error = world.create_as(Some("web"), ask("sleep")).await.unwrap_err();
    let EngineError::NameInUse { name, holder } = error else { panic!("{error:?}") };
    assert_eq!((name.as_str(), holder), ("web", id.clone()));
    world.remove(&id, false).await.unwrap();
    world.create_as(Some("web"), ask("sleep")).await.unwrap();
}

#[tokio::test]
async fn a_container_is_found_by_name_id_and_the_beginning_of_its_id() {
    let world = World::new().await;
    let id = world.create_as(Some("web"), ask("sleep")).await.unwrap().id;
    let other = world.create("sleep").await;
    for text in ["web", "/web", id.as_str(), id.short()] {
        assert_eq!(world.engine.container(&world.session, text).await.unwrap().id, id, "{text}");
    }
    assert_ne!(id, other);
    for text in ["", "we", "webs", "nosuch", "/", "//web", &id.as_str()[1..]] {
        let error = world.engine.container(&world.session, text).await.unwrap_err();
        assert!(
            matches!(error, EngineError::NoSuchContainer(_) | EngineError::AmbiguousContainer(_)),
            "{text}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_beginning_that_fits_two_is_ambiguous() {
    let world = World::new().await;
    // Seventeen ids: two of them begin with the same digit.
    let mut firsts = std::collections::BTreeSet::new();
    let mut shared = None;
    for _ in 0..17 {
        let id = world.create("sleep").await;
        let first = id.as_str()[..1].to_owned();
        if !firsts.insert(first.clone()) {
            shared = Some(first);
        }
    }
    let error = world.engine.container(&world.session, &shared.unwrap()).await.unwrap_err();
    assert!(matches!(error, EngineError::AmbiguousContainer(_)), "{error:?}");
}

#[tokio::test]
async fn odd_names_and_images_that_are_not_there_are_refused() {
    let world = World::new().await;
    let error = world.create_as(Some("a b"), ask("sleep")).await.unwrap_err();
    assert!(matches!(error, EngineError::InvalidName(_)), "{error:?}");
    let missing = bulkhead_model::ContainerAsk { image: "nosuch:1".into(), ..ask("sleep") };
    let error = world.create_as(None, missing).await.unwrap_err();
    let EngineError::NoSuchImage(text) = error else { panic!("{error:?}") };
    assert_eq!(text, "nosuch:1");
}

#[tokio::test]
async fn a_container_of_another_vch_does_not_exist() {
    let world = World::new().await;
    let other = world.add_vch("other", "dev", VchSettings::default()).await;
    let id = world.run("sleep").await;
    world.create_as(Some("web"), ask("sleep")).await.unwrap();
    let text = id.as_str();
    let missing = |result: Result<(), EngineError>, what: &str| {
        assert!(matches!(result, Err(EngineError::NoSuchContainer(_))), "{what}: {result:?}");
    };
    let engine = &world.engine;
    let query = crate::world::whole_log();
    missing(engine.container(&other, text).await.map(drop), "inspect");
    missing(engine.container(&other, "web").await.map(drop), "inspect by name");
    missing(engine.container(&other, id.short()).await.map(drop), "inspect by prefix");
    missing(engine.start_container(&other, text).await.map(drop), "start");
    missing(engine.stop(&other, text, None, None).await.map(drop), "stop");
    missing(engine.kill(&other, text, Signal::KILL).await, "kill");
    missing(engine.remove(&other, text, true, false).await, "remove");
    missing(engine.logs(&other, text, query).await.map(drop), "logs");
    missing(engine.attach(&other, text, true, true, true, true).await.map(drop), "attach");
    missing(engine.wait(&other, text, WaitFor::NotRunning).await.map(drop), "wait");
    assert!(engine.containers(&other).await.unwrap().is_empty());
    assert_eq!(engine.containers(&world.session).await.unwrap().len(), 2);
    assert_eq!(world.sim.running().len(), 1);
    // A name is free in the other one.
    within("create", engine.create(&other, Some("web".into()), ask("sleep"), crate::world::no_view()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stranger_at_the_endpoint_is_refused_and_learns_nothing_but_that() {
    let world = World::new().await;
    let id = world.create("sleep").await;
    let stranger = Session { vch: world.vch.id, caller: Caller::unix(4711) };
    let denied = |result: Result<(), EngineError>| {
        assert!(matches!(result, Err(EngineError::Denied { .. })), "{result:?}");
    };
    denied(world.engine.start_container(&stranger, id.as_str()).await.map(drop));
    denied(world.engine.containers(&stranger).await.map(drop));
    denied(world.engine.container(&stranger, id.as_str()).await.map(drop));
    denied(world.engine.create(&stranger, None, ask("sleep"), crate::world::no_view()).await.map(drop));
    let root = Session { vch: world.vch.id, caller: operator() };
    assert_eq!(world.engine.containers(&root).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_vch_that_is_not_there_says_so() {
    let world = World::new().await;
    let nowhere = session(bulkhead_model::VchId(uuid::Uuid::nil()));
    let error = world.engine.containers(&nowhere).await.unwrap_err();
    assert!(matches!(error, EngineError::NoSuchVch(_)), "{error:?}");
}
