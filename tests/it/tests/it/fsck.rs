//! What belongs to nobody is found, and nothing else.

use crate::world::{World, until_running};
use bulkhead_machine::Disks as _;
use bulkhead_model::volume::VolumePlace;
use bulkhead_model::{Caller, ContainerId, Placement, VolumeId};

async fn found(world: &World) -> Vec<(String, String)> {
    let caller = Caller::unix(0);
    let found = world.engine.fsck(&caller).await.unwrap();
    found.into_iter().map(|one| (one.kind, one.of)).collect()
}

#[tokio::test]
async fn a_whole_life_leaves_nothing_behind() {
    let world = World::new().await;
    let id = world.run("sleep").await;
    until_running(&world, &id).await;
    assert_eq!(found(&world).await, []);
    world.remove(&id, true).await.unwrap();
    assert_eq!(found(&world).await, []);
}

#[tokio::test]
async fn disks_that_belong_to_nobody_are_found() {
    let world = World::new().await;
    let (vch, container) = (world.vch.id, ContainerId::from_random([7; 32]));
    let volume = VolumeId(uuid::Uuid::from_u128(7));
    world.sim.create_disk(vch, Placement::default().disk_of(&container), 1 << 20).await.unwrap();
    world.sim.create_volume(vch, &VolumePlace { id: volume, folder: None }, 1 << 20).await.unwrap();
    let expect = [("disk".to_owned(), container.to_string()), ("volume".to_owned(), volume.to_string())];
    assert_eq!(found(&world).await, expect);
}
