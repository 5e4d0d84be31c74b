use crate::things::{MIB, World, exited, record, rest, running};
use bulkhead_model::lifecycle::{Desired, Goal, Status};
use bulkhead_model::{Container, VchSettings};
use bulkhead_store::StoreError;

#[tokio::test]
async fn the_limit_of_containers_holds_in_a_race() {
    let settings = VchSettings { containers_max: 20, ..VchSettings::default() };
    let world = World::with(settings).await;
    let containers: Vec<Container> = (0..50).map(|n| world.container(&format!("c{n}"))).collect();
    let record = record("create");
    let creates =
        containers.iter().map(|container| world.store.create_container(container, &[], world.fence, &record));
    let outcomes = futures_util::future::join_all(creates).await;
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    for error in outcomes.into_iter().filter_map(Result::err) {
        let expected = matches!(
            error,
            StoreError::Limit { name: "containers_max", limit: 20, used: 20, requested: 1, .. }
        );
        assert!(expected, "{error:?}");
    }
    assert_eq!(made, 20);
    assert_eq!(world.store.containers(world.vch.id).await.unwrap().len(), 20);
}

#[tokio::test]
async fn memory_of_what_runs_is_limited_in_a_race() {
    let settings = VchSettings { memory_bytes_max: Some(5 * 512 * MIB), ..VchSettings::default() };
    let world = World::with(settings).await;
    let mut containers = Vec::new();
    for n in 0..10 {
        containers.push(world.create(&format!("c{n}")).await);
    }
    let run = Desired { goal: Goal::Run, run: 1, ..Desired::default() };
    let (wish, record) = (rest(), record("start"));
    let starts =
        containers.iter().map(|c| world.store.set_desired(world.vch.id, &c.id, &wish, &run, &record));
    let outcomes = futures_util::future::join_all(starts).await;
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        let StoreError::Limit { name: "memory_bytes_max", limit, used, requested, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!((*limit, *used, *requested), (5 * 512 * MIB, 5 * 512 * MIB, 512 * MIB));
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
}

#[tokio::test]
async fn memory_counts_from_the_wish_to_the_end() {
    let settings = VchSettings { memory_bytes_max: Some(512 * MIB), ..VchSettings::default() };
    let world = World::with(settings).await;
    let one = world.create("one").await;
    let two = world.create("two").await;
    let run = |run| Desired { goal: Goal::Run, run, ..Desired::default() };
    let start = async |container: &Container, expect: &Desired, new: &Desired| {
        let outcome =
            world.store.set_desired(world.vch.id, &container.id, expect, new, &record("start")).await;
        match outcome {
            Ok(_) => true,
            Err(StoreError::Limit { .. }) => false,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(start(&one, &rest(), &run(1)).await);
    assert!(!start(&two, &rest(), &run(1)).await, "wished for, not begun");
    for status in [Status::Starting { run: 1 }, running(1)] {
        world.status(&one, &status).await;
        assert!(!start(&two, &rest(), &run(1)).await, "{status:?}");
    }
    assert!(start(&one, &run(1), &run(1)).await, "its own memory is not counted twice");
    world.status(&one, &exited(1)).await;
    assert!(start(&two, &rest(), &run(1)).await, "the end frees it");
    assert!(!start(&one, &run(1), &run(2)).await, "the second run needs it again");
}
