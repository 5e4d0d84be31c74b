use crate::things::{MIB, World, at, record};
use bulkhead_model::lifecycle::{Desired, Goal};
use bulkhead_model::{
    Container, Mount, ServerId, VchSettings, Volume, VolumeId, VolumeStore, VolumeStoreName,
};
use bulkhead_store::{Fence, StoreError};
use std::collections::BTreeMap;
use uuid::Uuid;

fn volume(world: &World, name: &str) -> Volume {
    Volume {
        vch: world.vch.id,
        id: VolumeId(Uuid::new_v4()),
        name: name.parse().unwrap(),
        labels: BTreeMap::from([("nul".into(), "\0".into())]),
        options: BTreeMap::new(),
        size_bytes: 64 * MIB,
        owner: "uid:1000".into(),
        anonymous: false,
        created_at: at(1),
        settled: false,
        store: VolumeStoreName::default(),
        folder: None,
    }
}

fn with(world: &World, name: &str, volume: &Volume, read_only: bool) -> Container {
    let mount = Mount {
        target: "/d".into(),
        volume: volume.id,
        name: volume.name.clone(),
        anonymous: false,
        read_only,
        fills: true,
        subpath: String::new(),
    };
    let mut container = world.container(name);
    container.spec.mounts = vec![mount];
    container
}

#[tokio::test]
async fn one_of_many_gets_a_volume_and_readers_share_it() {
    let world = World::with(Default::default()).await;
    let data = volume(&world, "data");
    let store = &world.store;
    for (n, read_only) in [(0, false), (1, false), (2, true), (3, false), (4, true)] {
        let container = with(&world, &format!("c{n}"), &data, read_only);
        // The first one brings it along.
        let new = if n == 0 { std::slice::from_ref(&data) } else { &[] };
        store.create_container(&container, new, world.fence, &record("create")).await.unwrap();
    }
    assert_eq!(store.volume(world.vch.id, "data").await.unwrap(), data);
    let containers = store.containers(world.vch.id).await.unwrap();
    let named = |name: &str| containers.iter().find(|container| container.name == name).unwrap();
    let run = Desired { goal: Goal::Run, run: 1, ..Desired::default() };
    let record = record("start");
    let want = async |name: &str| {
        store.set_desired(world.vch.id, &named(name).id, &named(name).desired, &run, &record).await.map(drop)
    };
    let (one, two, three) = tokio::join!(want("c0"), want("c1"), want("c3"));
    let lost: Vec<_> = [one, two, three].into_iter().filter_map(Result::err).collect();
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert!(lost.iter().all(|error| matches!(error, StoreError::VolumeHeld { name, .. } if name == "data")));
    assert!(matches!(want("c2").await, Err(StoreError::VolumeHeld { .. })), "a reader beside a writer");

    let used = store.remove_volume(world.vch.id, data.id, &record).await;
    assert!(matches!(used, Err(StoreError::VolumeInUse { containers }) if containers.len() == 5));
    for container in &containers {
        store.forget_container(world.fence, world.vch.id, &container.id, &record).await.unwrap();
    }
    for name in ["r1", "r2"] {
        let container = with(&world, name, &data, true);
        store.create_container(&container, &[], world.fence, &record).await.unwrap();
        let desired = &container.desired;
        store.set_desired(world.vch.id, &container.id, desired, &run, &record).await.unwrap();
    }
}

#[tokio::test]
async fn a_condemned_volume_is_nobodys_and_its_name_is_free() {
    let world = World::with(Default::default()).await;
    let (store, vch) = (&world.store, world.vch.id);
    let old = volume(&world, "data");
    store.create_volume(&old, world.fence, &record("create")).await.unwrap();
    let twice = store.create_volume(&volume(&world, "data"), world.fence, &record("create")).await;
    assert!(matches!(twice, Err(StoreError::NameTaken { kind: "volume", .. })), "{twice:?}");
    store.remove_volume(vch, old.id, &record("remove")).await.unwrap();
    assert_eq!(store.condemned_volumes(vch).await.unwrap(), [old.place()]);
    let late = with(&world, "late", &old, false);
    let refused = store.create_container(&late, &[], world.fence, &record("create")).await;
    assert!(matches!(refused, Err(StoreError::NotFound { kind: "volume", .. })), "{refused:?}");
    let new = volume(&world, "data");
    store.create_volume(&new, world.fence, &record("create")).await.unwrap();
    store.forget_volumes(vch, &[old.id, new.id]).await.unwrap();
    assert_eq!(store.kept_volumes(vch).await.unwrap(), [new.place()]);
    assert!(store.condemned_volumes(vch).await.unwrap().is_empty());
    // A server that was taken over makes none: its disk may be gone already.
    let stale = Fence { server: ServerId(Uuid::new_v4()), epoch: 1 };
    let refused = store.create_volume(&volume(&world, "stale"), stale, &record("create")).await;
    assert!(matches!(refused, Err(StoreError::Stale { .. })), "{refused:?}");
    assert!(matches!(
        store.delete_vch(vch, &record("delete")).await,
        Err(StoreError::VchNotEmpty { volumes: 1, .. })
    ));
}

#[tokio::test]
async fn volumes_are_in_stores_that_stay_where_they_are() {
    let fast: VolumeStoreName = "fast".parse().unwrap();
    let place = VolumeStore { folder: Some("/mnt/fast".into()), bytes_max: Some(150 * MIB) };
    let mut settings = VchSettings::default();
    settings.volume_stores.insert(fast.clone(), place.clone());
    let world = World::with(settings.clone()).await;
    let (store, vch) = (&world.store, world.vch.id);
    let in_fast =
        |name: &str| Volume { store: fast.clone(), folder: place.folder.clone(), ..volume(&world, name) };
    let create = async |volume: &Volume| store.create_volume(volume, world.fence, &record("create")).await;
    let one = in_fast("one");
    create(&one).await.unwrap();
    assert_eq!(store.volume(vch, "one").await.unwrap(), one);
    // The quota is the store's, in one transaction with what it counts; others are not in it.
    let (two, three) = (in_fast("two"), in_fast("three"));
    let (two_made, three_made) = tokio::join!(create(&two), create(&three));
    let full: Vec<_> = [two_made, three_made].into_iter().filter_map(Result::err).collect();
    assert!(
        matches!(&full[..], [StoreError::VolumeStoreFull { used, limit, .. }]
            if (*used, *limit) == (128 * MIB, 150 * MIB)),
        "{full:?}"
    );
    create(&volume(&world, "elsewhere")).await.unwrap();
    let grown = store.grow_volume(&one, 100 * MIB, &record("grow")).await;
    assert!(matches!(grown, Err(StoreError::VolumeStoreFull { .. })), "{grown:?}");
    store.grow_volume(&one, 80 * MIB, &record("grow")).await.unwrap();
    // Its disk was made in a folder that is not the store's any more, or of a store that is gone.
    let moved = Volume { folder: None, ..in_fast("moved") };
    let gone = Volume { store: "gone".parse().unwrap(), ..volume(&world, "gone") };
    for late in [moved, gone] {
        let refused = create(&late).await;
        assert!(matches!(refused, Err(StoreError::Conflict { kind: "volume store", .. })), "{refused:?}");
    }

    // The quota may be anything; the store and its folder stay while there are volumes, or disks to be deleted.
    let with = |store: Option<VolumeStore>| {
        let mut settings = settings.clone();
        match store {
            Some(store) => settings.volume_stores.insert(fast.clone(), store),
            None => settings.volume_stores.remove(&fast),
        };
        settings
    };
    let update = async |from: &VchSettings, to: &VchSettings| {
        store.update_settings(vch, from, to, &record("update")).await.map(drop)
    };
    let small = with(Some(VolumeStore { bytes_max: Some(MIB), ..place.clone() }));
    update(&settings, &small).await.unwrap();
    for wrong in [None, Some(VolumeStore { folder: Some("/mnt/other".into()), ..place.clone() })] {
        let refused = update(&small, &with(wrong)).await;
        assert!(
            matches!(&refused, Err(StoreError::VolumeStoreInUse { store, volumes: 2 }) if store == "fast"),
            "{refused:?}"
        );
    }
    for volume in store.volumes(vch).await.unwrap().iter().filter(|volume| volume.store == fast) {
        store.remove_volume(vch, volume.id, &record("remove")).await.unwrap();
    }
    let refused = update(&small, &with(None)).await;
    assert!(matches!(refused, Err(StoreError::VolumeStoreInUse { .. })), "{refused:?}");
    let ids: Vec<_> =
        store.condemned_volumes(vch).await.unwrap().into_iter().map(|volume| volume.id).collect();
    store.forget_volumes(vch, &ids).await.unwrap();
    update(&small, &with(None)).await.unwrap();
}
