use crate::things::{World, at, record, vch};
use bulkhead_model::{ServerId, Vch, VchId, VchSettings};
use bulkhead_store::{Record, StoreError};
use uuid::Uuid;

#[tokio::test]
async fn a_vch_comes_back_as_it_was_written() {
    let world = World::new().await;
    let store = &world.store;
    let settings =
        VchSettings { memory_bytes_max: Some(1 << 40), socket_uids: vec![1000], ..Default::default() };
    let other = Vch { settings, ..vch("another") };
    let events = store.create_vch(&other, &record("create")).await.unwrap();
    assert_eq!((events[0].vch, events[0].seq, events[0].at), (other.id, 1, at(1)));
    assert_eq!(store.vch(other.id).await.unwrap(), other);
    assert_eq!(store.vch_by_name(&other.name).await.unwrap(), other);
    assert_eq!(store.vchs().await.unwrap(), [other.clone(), world.vch.clone()]);
    let nobody = VchId(Uuid::new_v4());
    assert!(matches!(store.vch(nobody).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.vch_by_name(&"no".parse().unwrap()).await, Err(StoreError::NotFound { .. })));

    let settings = VchSettings { containers_max: 7, ..other.settings.clone() };
    store.update_settings(other.id, &other.settings, &settings, &record("update")).await.unwrap();
    assert_eq!(store.vch(other.id).await.unwrap().settings, settings);
    let late = store.update_settings(other.id, &other.settings, &settings, &record("update")).await;
    assert!(matches!(late, Err(StoreError::Conflict { kind: "VCH", .. })), "{late:?}");
    let missing = store.update_settings(nobody, &settings, &settings, &record("update")).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn vch_names_are_unique_also_in_a_race() {
    let world = World::new().await;
    let clash = |error| match error {
        StoreError::NameTaken { name, holder, .. } => (name, holder),
        error => panic!("{error:?}"),
    };
    let error = world.store.create_vch(&vch("dev"), &record("create")).await.unwrap_err();
    assert_eq!(clash(error), ("dev".to_owned(), world.vch.id.to_string()));
    let racers: Vec<Vch> = (0..8).map(|_| vch("race")).collect();
    let record = record("create");
    let outcomes =
        futures_util::future::join_all(racers.iter().map(|racer| world.store.create_vch(racer, &record)))
            .await;
    let winner = world.store.vch_by_name(&"race".parse().unwrap()).await.unwrap();
    let mut won = 0;
    for outcome in outcomes {
        match outcome {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(clash(error).1, winner.id.to_string()),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn children_hang_below_their_parent() {
    let world = World::new().await;
    let store = &world.store;
    let child = Vch { parent: Some(world.vch.id), ..vch("child") };
    let grandchild = Vch { parent: Some(child.id), ..vch("grandchild") };
    store.create_vch(&vch("apart"), &record("create")).await.unwrap();
    store.create_vch(&child, &record("create")).await.unwrap();
    store.create_vch(&grandchild, &record("create")).await.unwrap();
    let tree = store.vch_subtree(world.vch.id).await.unwrap();
    assert_eq!(tree, [world.vch.clone(), child.clone(), grandchild.clone()]);
    assert_eq!(store.vch_subtree(grandchild.id).await.unwrap(), std::slice::from_ref(&grandchild));

    let orphan = Vch { parent: Some(VchId(Uuid::new_v4())), ..vch("orphan") };
    assert!(matches!(store.create_vch(&orphan, &record("create")).await, Err(StoreError::NotFound { .. })));
    let busy = store.mark_vch_deleting(child.id, &record("delete")).await;
    assert!(matches!(busy, Err(StoreError::VchNotEmpty { children: 1, .. })), "{busy:?}");
    store.mark_vch_deleting(grandchild.id, &record("delete")).await.unwrap();
    store.delete_vch(grandchild.id, &record("delete")).await.unwrap();
    store.mark_vch_deleting(child.id, &record("delete")).await.unwrap();
    let late = Vch { parent: Some(child.id), ..vch("late") };
    assert!(matches!(store.create_vch(&late, &record("create")).await, Err(StoreError::VchDeleting { .. })));
}

#[tokio::test]
async fn a_vch_goes_once_it_is_empty() {
    let world = World::new().await;
    let (store, id) = (&world.store, world.vch.id);
    let held = world.create("held").await;
    store.mark_vch_deleting(id, &record("delete")).await.unwrap();
    store.mark_vch_deleting(id, &record("delete")).await.unwrap();
    assert!(store.vch(id).await.unwrap().deleting);
    let refused = store.create_container(&world.container("new"), &[], world.fence, &record("create")).await;
    assert!(matches!(refused, Err(StoreError::VchDeleting { .. })), "{refused:?}");

    let full = store.delete_vch(id, &record("delete")).await;
    assert!(matches!(full, Err(StoreError::VchNotEmpty { containers: 1, layers: 2, .. })), "{full:?}");
    store.forget_container(world.fence, id, &held.id, &record("destroy")).await.unwrap();
    let removed = store.delete_image(id, &world.image.id, &record("delete")).await.unwrap();
    assert!(matches!(store.delete_vch(id, &record("delete")).await, Err(StoreError::VchNotEmpty { .. })));
    store.forget_layers(id, &removed.condemned).await.unwrap();
    store.delete_vch(id, &record("vch.delete")).await.unwrap();
    assert!(matches!(store.vch(id).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.delete_vch(id, &record("delete")).await, Err(StoreError::NotFound { .. })));
    let trail = store.audit(Some(id), 1).await.unwrap();
    assert_eq!(trail[0].entry.action, "vch.delete", "the trail outlives the VCH");
}

#[tokio::test]
async fn each_start_of_a_server_is_an_epoch() {
    let world = World::new().await;
    let server = ServerId(Uuid::new_v4());
    for epoch in 1..=3 {
        let fence = world.store.claim_server(server, "two", at(epoch)).await.unwrap();
        assert_eq!((fence.server, fence.epoch), (server, epoch));
    }
}

#[tokio::test]
async fn migrating_again_or_together_changes_nothing() {
    let world = World::new().await;
    let (one, two) = tokio::join!(world.store.migrate(), world.store.migrate());
    one.unwrap();
    two.unwrap();
    assert_eq!(world.store.vchs().await.unwrap().len(), 1);
    let settings = &world.vch.settings;
    world.store.update_settings(world.vch.id, settings, settings, &Record::at(at(3))).await.unwrap();
}
