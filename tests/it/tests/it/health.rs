//! What checks were answered, from one server to the next.

use crate::world::{World, ask, until};
use bulkhead_model::health::{self, Health, HealthAsk, HealthStatus};
use bulkhead_model::{ContainerAsk, ContainerId};

/// Runs, and is asked all the time.
async fn checked(world: &World) -> ContainerId {
    let health = HealthAsk {
        test: ["CMD", "sim", "probe"].map(str::to_owned).to_vec(),
        interval_ns: 20_000_000,
        retries: 1000,
        ..HealthAsk::default()
    };
    let id = world.create_as(None, ContainerAsk { health, ..ask("sleep") }).await.unwrap().id;
    world.start(&id).await.unwrap();
    id
}

async fn health(world: &World, id: &ContainerId) -> Health {
    health::of(&world.container(id).await).unwrap()
}

#[tokio::test]
async fn the_next_server_knows_how_a_container_does_and_goes_on_asking() {
    let mut world = World::new().await;
    let id = checked(&world).await;
    until("healthy", || async { health(&world, &id).await.status == HealthStatus::Healthy }).await;
    world.sim.set_probe_code(&id, 3);
    until("a row of failures", || async { health(&world, &id).await.failing_streak >= 3 }).await;
    world.restart().await;
    let found = health(&world, &id).await;
    assert_eq!((found.status, found.failing_streak >= 3), (HealthStatus::Healthy, true));
    let last = found.probes.back().unwrap();
    assert_eq!((last.code, last.output.as_str()), (3, "probe says 3\n"));
    // It counts on from there.
    let more = found.failing_streak + 2;
    until("more failures", || async { health(&world, &id).await.failing_streak >= more }).await;
    assert!(health(&world, &id).await.probes.contains(last));
    let told = world.story(&id).await;
    let told: Vec<&String> = told.iter().filter(|action| action.starts_with("health_status")).collect();
    assert_eq!(told, ["health_status: healthy"], "nothing changed with the server");
    // Another run begins anew.
    world.stop(&id, Some(0)).await.unwrap();
    assert_eq!(health(&world, &id).await.status, HealthStatus::Unhealthy);
    world.start(&id).await.unwrap();
    assert!(health(&world, &id).await.failing_streak < 3);
}
