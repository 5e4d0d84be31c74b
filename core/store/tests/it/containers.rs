use crate::things::{World, at, container_id, digest, exited, image, record, rest, running};
use bulkhead_model::container::Signal;
use bulkhead_model::health::{Health, HealthAsk, Probe, RunHealth};
use bulkhead_model::lifecycle::{Desired, Goal, Status};
use bulkhead_model::{Container, ContainerId, ServerId};
use bulkhead_store::{CONTAINER_CHANNEL, StoreError};
use sqlx::postgres::PgListener;
use uuid::Uuid;

#[tokio::test]
async fn a_container_comes_back_as_it_was_written() {
    let world = World::new().await;
    let (store, vch) = (&world.store, world.vch.id);
    let one = world.create("one").await;
    let mut two = world.container("two");
    two.created_at = at(9);
    two.layers = vec![digest(2), digest(1), digest(2)];
    let events = store.create_container(&two, &[], world.fence, &record("create")).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(store.container(vch, &one.id).await.unwrap(), one);
    assert_eq!(store.containers(vch).await.unwrap(), [two.clone(), one.clone()]);
    assert_eq!(store.containers_of_server(world.fence.server).await.unwrap(), [one.clone(), two.clone()]);
    assert_eq!(store.container_usage(vch).await.unwrap(), (2, 0));
    store.set_status(world.fence, vch, &two.id, &running(1), None, &record("start")).await.unwrap();
    assert_eq!(store.container_usage(vch).await.unwrap(), (2, two.spec.resources.memory_bytes));
    assert_eq!(store.containers_of_server(ServerId(Uuid::new_v4())).await.unwrap(), []);
    assert_eq!(store.containers_using_image(vch, &world.image.id).await.unwrap(), [one.id, two.id]);
    assert!(matches!(store.container(vch, &container_id()).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn a_name_is_given_once_in_a_vch() {
    let world = World::new().await;
    let first = world.create("web").await;
    let error =
        world.store.create_container(&world.container("web"), &[], world.fence, &record("create")).await;
    match error {
        Err(StoreError::NameTaken { kind: "container", name, holder }) => {
            assert_eq!((name.as_str(), holder.as_str()), ("web", first.id.as_str()));
        }
        other => panic!("{other:?}"),
    }
    let other = crate::things::vch("other");
    world.store.create_vch(&other, &record("create")).await.unwrap();
    world.store.put_image(other.id, &world.image, &record("pull")).await.unwrap();
    let elsewhere = Container { vch: other.id, ..world.container("web") };
    world.store.create_container(&elsewhere, &[], world.fence, &record("create")).await.unwrap();
    // The name is free again with the container's row.
    world.store.forget_container(world.fence, world.vch.id, &first.id, &record("destroy")).await.unwrap();
    world.create("web").await;
}

#[tokio::test]
async fn image_and_layers_must_be_there() {
    let world = World::new().await;
    let create = async |container: &Container| {
        let outcome = world.store.create_container(container, &[], world.fence, &record("create")).await;
        match outcome.unwrap_err() {
            StoreError::NotFound { kind, .. } => kind,
            error => panic!("{error:?}"),
        }
    };
    assert_eq!(create(&Container { image: digest(9), ..world.container("a") }).await, "image");
    assert_eq!(create(&Container { layers: vec![digest(9)], ..world.container("b") }).await, "layer");
    assert_eq!(world.store.containers(world.vch.id).await.unwrap(), []);
    assert_eq!(world.store.last_event_seq(world.vch.id).await.unwrap(), 1, "no event of a failed change");
}

#[tokio::test]
async fn containers_are_found_by_id_name_and_prefix() {
    let world = World::new().await;
    let named = |hex: &str, name: &str| Container {
        id: format!("{hex}{}", "0".repeat(64 - hex.len())).parse::<ContainerId>().unwrap(),
        ..world.container(name)
    };
    let one = named("abc1", "one");
    let two = named("abc2", "two");
    // A name that looks like the beginning of another's id, and one that is another's whole id.
    let sly = named("dd", "abc1");
    let thief = named("ee", two.id.as_str());
    for container in [&one, &two, &sly, &thief] {
        world.store.create_container(container, &[], world.fence, &record("create")).await.unwrap();
    }
    for (text, expect) in [
        (one.id.as_str(), &one),
        (two.id.as_str(), &two),
        ("one", &one),
        ("abc1", &sly),
        ("abc10", &one),
        ("e", &thief),
    ] {
        let found = world.store.find_container(world.vch.id, text).await.unwrap();
        assert_eq!(found.id, expect.id, "{text}");
    }
    let find = async |text| world.store.find_container(world.vch.id, text).await;
    assert!(matches!(find("abc").await, Err(StoreError::Ambiguous { .. })));
    for text in ["", "f", "ABC1", "on", "a%", "abc_", "' or true --"] {
        assert!(matches!(find(text).await, Err(StoreError::NotFound { .. })), "{text}");
    }
}

#[tokio::test]
async fn what_a_check_was_answered_is_kept_by_whoever_drives_the_container() {
    let world = World::new().await;
    let container = world.create("c").await;
    assert_eq!(container.health, None);
    let mut health = Health::new(at(5));
    let check =
        HealthAsk { test: vec!["CMD".into(), "x".into()], ..HealthAsk::default() }.check(&[]).unwrap();
    let probe = Probe { started_at: at(6), ended_at: at(7), code: 1, output: "a\0\u{1F600}".into() };
    health.take(&check, probe);
    let health = RunHealth { run: 1, health };
    let set = async |fence| {
        world.store.set_health(fence, world.vch.id, &container.id, &health, &record("exec_die")).await
    };
    assert_eq!(set(world.fence).await.unwrap().len(), 1);
    let found = world.store.container(world.vch.id, &container.id).await.unwrap();
    assert_eq!(found.health, Some(health.clone()));
    let later = world.store.claim_server(world.fence.server, "one", at(0)).await.unwrap();
    assert!(matches!(set(world.fence).await, Err(StoreError::Stale { .. })));
    set(later).await.unwrap();
    world.store.forget_container(later, world.vch.id, &container.id, &record("destroy")).await.unwrap();
    assert!(matches!(set(later).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn the_desired_state_changes_only_as_it_was_read() {
    let world = World::new().await;
    let container = world.create("c").await;
    let (store, vch, id) = (&world.store, world.vch.id, &container.id);
    let run = Desired { goal: Goal::Run, run: 1, ..Desired::default() };
    let (after, events) = store.set_desired(vch, id, &rest(), &run, &record("start")).await.unwrap();
    assert_eq!((after.desired.clone(), events.len()), (run.clone(), 1));
    assert_eq!(store.container(vch, id).await.unwrap(), after);
    let stop = |deadline| Desired {
        goal: Goal::Stop { signal: Signal::TERM, deadline },
        run: 1,
        ..Desired::default()
    };
    let stale = store.set_desired(vch, id, &rest(), &stop(None), &record("stop")).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");

    // Of many that read the same, one wins.
    let wishes: Vec<Desired> = (0..10).map(|n| stop(Some(at(n)))).collect();
    let record = record("stop");
    let outcomes = futures_util::future::join_all(
        wishes.iter().map(|wish| store.set_desired(vch, id, &run, wish, &record)),
    )
    .await;
    let mut won = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok((container, _)) => won.push(container.desired),
            Err(error) => assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}"),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(store.container(vch, id).await.unwrap().desired, won[0]);
    let missing = store.set_desired(vch, &container_id(), &rest(), &run, &record).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })), "{missing:?}");
}

#[tokio::test]
async fn status_is_recorded_with_what_the_end_wishes() {
    let world = World::new().await;
    let container = world.create("c").await;
    let (store, vch, id) = (&world.store, world.vch.id, &container.id);
    for status in [Status::Starting { run: 1 }, running(1)] {
        store.set_status(world.fence, vch, id, &status, None, &record("s")).await.unwrap();
        assert_eq!(store.container(vch, id).await.unwrap().status, status);
    }
    let gone = Desired { goal: Goal::Gone, run: 1, ..Desired::default() };
    store.set_status(world.fence, vch, id, &exited(1), Some(&gone), &record("die")).await.unwrap();
    let after = store.container(vch, id).await.unwrap();
    assert_eq!((after.status, after.desired), (exited(1), gone));
    let events = store.forget_container(world.fence, vch, id, &record("destroy")).await.unwrap();
    assert_eq!(events[0].action, "destroy");
    let missing = store.forget_container(world.fence, vch, id, &record("destroy")).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    let missing = store.set_status(world.fence, vch, id, &Status::Created, None, &record("s")).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn an_earlier_start_of_the_server_may_write_nothing() {
    let world = World::new().await;
    let container = world.create("c").await;
    let (store, vch, id, old) = (&world.store, world.vch.id, &container.id, world.fence);
    let new = store.claim_server(old.server, "one", at(9)).await.unwrap();
    let before = store.last_event_seq(vch).await.unwrap();
    let refused = [
        store.set_status(old, vch, id, &running(1), None, &record("s")).await.map(drop),
        store.forget_container(old, vch, id, &record("destroy")).await.map(drop),
        store.create_container(&world.container("late"), &[], old, &record("create")).await.map(drop),
        store.check_fence(old).await,
    ];
    store.check_fence(new).await.unwrap();
    for outcome in refused {
        assert!(matches!(outcome, Err(StoreError::Stale { epoch: 1, .. })), "{outcome:?}");
    }
    assert_eq!(store.last_event_seq(vch).await.unwrap(), before);
    assert_eq!(store.container(vch, id).await.unwrap(), container);
    store.set_status(new, vch, id, &running(1), None, &record("s")).await.unwrap();
    // Another server's container is not this one's to write either.
    let other = store.claim_server(ServerId(Uuid::new_v4()), "other", at(9)).await.unwrap();
    let foreign = store.set_status(other, vch, id, &exited(1), None, &record("s")).await;
    assert!(matches!(foreign, Err(StoreError::Stale { .. })), "{foreign:?}");
}

#[tokio::test]
async fn a_changed_wish_is_told_to_listeners() {
    let world = World::new().await;
    let options = world.postgres.database().connect_options();
    let pool = sqlx::PgPool::connect_with(options).await.unwrap();
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen(CONTAINER_CHANNEL).await.unwrap();
    let container = world.create("c").await;
    world.want(&container, &rest(), Goal::Run, 1).await;
    for _ in ["create", "start"] {
        assert_eq!(listener.recv().await.unwrap().payload(), container.id.as_str());
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named() {
    let world = World::new().await;
    let container = world.create("c").await;
    let mut connection = world.postgres.connection().await.unwrap();
    sqlx::query("update containers set spec = '{}'").execute(&mut connection).await.unwrap();
    let error = world.store.container(world.vch.id, &container.id).await.unwrap_err();
    match error {
        StoreError::Corrupt { column: "spec", row, .. } => {
            assert!(row.contains(container.id.as_str()), "{row}")
        }
        error => panic!("{error:?}"),
    }
    let nul = Container { name: "a\0b".into(), ..world.container("x") };
    let refused = world.store.create_container(&nul, &[], world.fence, &record("create")).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    let image = image(7, &[1]);
    world.store.put_image(world.vch.id, &image, &record("pull")).await.unwrap();
}
