//! Files of a container that does not run: its machine is there for a moment, and in the way of nothing.

use crate::world::{World, until, within};
use bulkhead_model::ContainerId;
use bulkhead_model::lifecycle::Status;

/// A simulated guest has no files, and says so once it is asked: by then its machine is up.
async fn look_into(world: &World, id: &ContainerId) {
    let error = within("stat", world.engine.file_stat(&world.session, id.as_str(), "/x")).await.unwrap_err();
    assert!(error.to_string().contains("has no files"), "{error}");
}

#[tokio::test]
async fn a_machine_for_a_moment_is_nothing_that_happened() {
    let world = World::new().await;
    let id = world.create("exit 0").await;
    look_into(&world, &id).await;
    assert_eq!(world.sim.running().len(), 1, "another task would find it");
    assert_eq!(world.container(&id).await.status, Status::Created);
    until("its machine is gone", || async { world.sim.running().is_empty() }).await;
    assert_eq!(world.container(&id).await.status, Status::Created);
    assert_eq!(world.story(&id).await, ["create"]);

    world.start(&id).await.unwrap();
    until("over", || async { matches!(world.container(&id).await.status, Status::Exited { .. }) }).await;
    look_into(&world, &id).await;
    assert!(matches!(world.container(&id).await.status, Status::Exited { run: 1, .. }));
    world.remove(&id, false).await.unwrap();
    until("removed", || world.is_gone(&id)).await;
    assert!(world.nothing_left());
}

#[tokio::test]
async fn a_start_does_not_wait_for_it() {
    let world = World::new().await;
    let id = world.create("sleep").await;
    look_into(&world, &id).await;
    world.start(&id).await.unwrap();
    assert!(matches!(world.container(&id).await.status, Status::Running { run: 1, .. }));
    // And now it is asked where it runs.
    look_into(&world, &id).await;
    assert_eq!(world.sim.running().len(), 1);
    assert_eq!(world.story(&id).await, ["create", "start"]);
}

#[tokio::test]
async fn a_paused_container_is_looked_into_and_stays_paused() {
    let mut world = World::new().await;
    let id = world.run("sleep").await;
    within("pause", world.engine.pause(&world.session, id.as_str())).await.unwrap();
    let still = || world.sim.stillness(&id);
    assert_eq!(still(), Some((true, true)), "processes and machine");
    look_into(&world, &id).await;
    assert_eq!(still(), Some((true, false)), "the machine goes on, and nothing in it");
    let listed = within("top", world.engine.processes(&world.session, id.as_str())).await.unwrap();
    assert_eq!(listed.list.len(), 1);
    assert!(matches!(world.container(&id).await.status, Status::Running { paused: true, .. }));
    until("it is put away", || async { still() == Some((true, true)) }).await;
    // A server that is gone meanwhile leaves it to the next.
    look_into(&world, &id).await;
    world.restart().await;
    until("the next server pauses it", || async { world.sim.stillness(&id) == Some((true, true)) }).await;
    look_into(&world, &id).await;
    within("unpause", world.engine.unpause(&world.session, id.as_str())).await.unwrap();
    assert_eq!(world.sim.stillness(&id), Some((false, false)));
    assert_eq!(world.story(&id).await, ["create", "start", "pause", "top", "unpause"]);
    world.stop(&id, None).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 143);
}

#[tokio::test]
async fn a_start_while_it_boots_comes_first() {
    let world = World::new().await;
    let id = world.create("sleep").await;
    world.sim.hold_boot(true);
    let (engine, session, text) = (world.engine.clone(), world.session.clone(), id.to_string());
    let asked = tokio::spawn(async move { engine.file_stat(&session, &text, "/x").await });
    until("it boots", || async { !world.sim.running().is_empty() }).await;
    let started = world.start(&id);
    tokio::pin!(started);
    let begun = until("the start has begun", || async {
        matches!(world.container(&id).await.status, Status::Starting { run: 1 })
    });
    tokio::select! {
        () = begun => world.sim.hold_boot(false),
        started = &mut started => panic!("started without a boot: {started:?}"),
    }
    within("start", started).await.unwrap();
    let error = within("stat", asked).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("has no files"), "{error}");
    let status = world.container(&id).await.status;
    assert!(matches!(status, Status::Running { run: 1, .. }), "{status:?}");
}

#[tokio::test]
async fn what_a_crash_leaves_is_cleared_away() {
    let mut world = World::new().await;
    let id = world.create("sleep").await;
    look_into(&world, &id).await;
    world.restart().await;
    until("its machine is gone", || async { world.sim.running().is_empty() }).await;
    assert_eq!(world.container(&id).await.status, Status::Created);
    look_into(&world, &id).await;
}
