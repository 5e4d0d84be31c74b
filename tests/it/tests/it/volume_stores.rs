//! Volume stores: chosen, full, changed while they are used, and away.

use crate::world::{World, ask, operator, until_running, within};
use bulkhead_engine::EngineError;
use bulkhead_machine::{Disks as _, MachineError};
use bulkhead_model::reason::Rule;
use bulkhead_model::volume::{MountAsk, VolumeAsk, VolumePlace};
use bulkhead_model::{ContainerAsk, Vch, VchSettings, Volume, VolumeId, VolumeStore};
use std::path::{Path, PathBuf};

const FAST: &str = "/mnt/fast";

fn store(folder: Option<&str>, bytes_max: Option<u64>) -> VolumeStore {
    VolumeStore { folder: folder.map(Into::into), bytes_max }
}

fn with(vch: &Vch, stores: &[(&str, VolumeStore)]) -> VchSettings {
    let stores = stores.iter().map(|(name, store)| (name.parse().unwrap(), store.clone()));
    VchSettings { volume_stores: stores.collect(), volume_bytes: 1 << 30, ..vch.settings.clone() }
}

/// With these volume stores, set by an operator.
async fn world(stores: &[(&str, VolumeStore)]) -> World {
    let mut world = World::new().await;
    set(&mut world, stores).await.unwrap();
    world
}

async fn set(world: &mut World, stores: &[(&str, VolumeStore)]) -> Result<(), EngineError> {
    world.vch = world.engine.vch_update(&operator(), &world.vch, with(&world.vch, stores)).await?;
    Ok(())
}

fn named(name: &str, store: Option<&str>) -> VolumeAsk {
    let store = store.map(|store| store.parse().unwrap());
    VolumeAsk { name: Some(name.parse().unwrap()), store, ..VolumeAsk::default() }
}

async fn make(world: &World, ask: VolumeAsk) -> Result<Volume, EngineError> {
    world.engine.create_volume(&world.session, &ask).await
}

#[tokio::test]
async fn a_volume_is_where_it_was_asked_for() {
    let stores = [("default", store(None, None)), ("fast", store(Some(FAST), None))];
    let world = world(&stores).await;
    let fast = make(&world, named("aa", Some("fast"))).await.unwrap();
    assert_eq!((fast.store.as_str(), fast.folder.as_deref()), ("fast", Some(Path::new(FAST))));
    assert_eq!(make(&world, named("bb", None)).await.unwrap().store.as_str(), "default");
    assert_eq!(world.sim.volume_folders(), [None, Some(PathBuf::from(FAST))]);
    // Found where it is; nothing moves.
    assert_eq!(make(&world, named("aa", None)).await.unwrap().id, fast.id);
    let moved = make(&world, named("aa", Some("default"))).await.unwrap_err();
    assert!(moved.to_string().contains("in the volume store fast: it cannot move to default"), "{moved}");
    let unknown = make(&world, named("cc", Some("slow"))).await.unwrap_err();
    assert!(
        unknown.to_string().contains("`slow`: this VCH has the volume stores default, fast"),
        "{unknown}"
    );
    // As a container brings it along, and without its own machine noticing.
    let mount = |name: &str, store| MountAsk {
        target: format!("/{name}"),
        volume: named(name, store),
        ..MountAsk::default()
    };
    let mounts = vec![mount("aa", None), mount("dd", Some("fast")), mount("ee", None)];
    let container = world.create_as(None, ContainerAsk { mounts, ..ask("sleep") }).await.unwrap().id;
    world.start(&container).await.unwrap();
    until_running(&world, &container).await;
    assert_eq!(world.engine.volume(&world.session, "dd").await.unwrap().store.as_str(), "fast");
    let mounts = vec![mount("aa", Some("default"))];
    let wrong = world.create_as(None, ContainerAsk { mounts, ..ask("sleep") }).await.unwrap_err();
    assert!(wrong.to_string().contains("cannot move"), "{wrong}");

    let facts = world.engine.system(&world.session).await.unwrap().volume_stores;
    let told: Vec<_> =
        facts.iter().map(|store| (store.name.as_str(), store.volumes, store.volumes_bytes)).collect();
    assert_eq!(told, [("default", 2, 2 << 30), ("fast", 2, 2 << 30)]);
    within("vch rm", world.engine.vch_remove(&operator(), "dev", true)).await.unwrap();
    assert!(world.sim.volume_sizes().is_empty() && world.nothing_left());
    let left = VolumePlace { id: VolumeId(uuid::Uuid::new_v4()), folder: Some(FAST.into()) };
    let left = world.sim.create_volume(world.vch.id, &left, 1 << 30).await;
    assert!(matches!(left, Err(MachineError::NoFolder { .. })), "its folder was not left: {left:?}");
}

#[tokio::test]
async fn a_store_has_a_quota_of_its_own() {
    let stores = [("default", store(None, Some(2 << 30))), ("fast", store(Some(FAST), Some(3 << 30)))];
    let mut world = world(&stores).await;
    let full = |error: EngineError| match error {
        EngineError::Limit(reason) => match reason.rule {
            Rule::Limit(name) => name,
            other => panic!("{other:?}"),
        },
        other => panic!("{other}"),
    };
    for name in ["aa", "bb"] {
        make(&world, named(name, None)).await.unwrap();
    }
    let refused = make(&world, named("cc", None)).await.unwrap_err();
    assert!(refused.to_string().contains("volumes in store default have 2147483648 bytes"), "{refused}");
    assert_eq!(full(refused), "volume_stores.default.bytes_max");
    make(&world, named("cc", Some("fast"))).await.unwrap();
    let larger = |name: &str, bytes| VolumeAsk { size_bytes: Some(bytes), ..named(name, None) };
    assert_eq!(make(&world, larger("cc", 3 << 30)).await.unwrap().size_bytes, 3 << 30);
    assert_eq!(full(make(&world, larger("cc", 4 << 30)).await.unwrap_err()), "volume_stores.fast.bytes_max");
    let anonymous = ContainerAsk { volume_paths: vec!["/x".into()], ..ask("sleep") };
    let refused = world.create_as(None, anonymous.clone()).await.unwrap_err();
    assert_eq!(full(refused), "volume_stores.default.bytes_max");
    assert_eq!(world.sim.volume_sizes().len(), 3, "what was refused left a disk");
    // At once, for all that comes.
    set(&mut world, &[("default", store(None, None)), stores[1].clone()]).await.unwrap();
    world.create_as(None, anonymous).await.unwrap();
}

#[tokio::test]
async fn stores_come_and_go_but_for_those_with_volumes() {
    let mut world = world(&[("default", store(None, None))]).await;
    let both = [("default", store(None, None)), ("fast", store(Some(FAST), None))];
    let stale = world.vch.clone();
    set(&mut world, &both).await.unwrap();
    let late = world.engine.vch_update(&operator(), &stale, with(&stale, &[])).await.unwrap_err();
    assert!(late.to_string().contains("changed meanwhile"), "{late}");
    make(&world, named("aa", Some("fast"))).await.unwrap();
    for wrong in [vec![both[0].clone()], vec![both[0].clone(), ("fast", store(None, None))]] {
        let refused = set(&mut world, &wrong).await.unwrap_err();
        assert!(refused.to_string().contains("volume store fast has 1 volumes"), "{refused}");
    }
    // A refusal takes nothing away.
    make(&world, named("bb", Some("fast"))).await.unwrap();
    for name in ["aa", "bb"] {
        world.engine.remove_volume(&world.session, name, false).await.unwrap();
    }
    // One was made, and its server died before it was written down.
    let stray = VolumePlace { id: VolumeId(uuid::Uuid::new_v4()), folder: Some(FAST.into()) };
    world.sim.create_volume(world.vch.id, &stray, 1 << 30).await.unwrap();
    world.restart().await;
    assert!(world.sim.volume_sizes().is_empty());
    world.sim.create_volume(world.vch.id, &stray, 1 << 30).await.unwrap();
    set(&mut world, &[both[0].clone()]).await.unwrap();
    assert!(world.sim.volume_sizes().is_empty());
    // Without a default one, each volume names its store.
    set(&mut world, &[both[1].clone()]).await.unwrap();
    let nameless = make(&world, named("cc", None)).await.unwrap_err();
    assert!(nameless.to_string().contains("name one with the option VolumeStore"), "{nameless}");
    make(&world, named("cc", Some("fast"))).await.unwrap();
    // Nobody but operators.
    let user = world.session.caller.clone();
    let denied = world.engine.vch_update(&user, &world.vch, with(&world.vch, &both)).await;
    assert!(matches!(denied, Err(EngineError::Denied { .. })), "{denied:?}");
}

#[tokio::test]
async fn nothing_is_lost_while_a_store_is_away() {
    let stores = [("default", store(None, None)), ("fast", store(Some(FAST), None))];
    let mut world = world(&stores).await;
    let volume = make(&world, named("aa", Some("fast"))).await.unwrap();
    let gone = make(&world, named("gone", Some("fast"))).await.unwrap();
    let mount = MountAsk { target: "/a".into(), volume: named("aa", None), ..MountAsk::default() };
    let container =
        world.create_as(None, ContainerAsk { mounts: vec![mount], ..ask("sleep") }).await.unwrap().id;
    world.sim.fail_next(bulkhead_machine::sim::Verb::DeleteVolume, "cut");
    world.engine.remove_volume(&world.session, "gone", false).await.unwrap_err();

    world.sim.unmount(world.vch.id, Path::new(FAST));
    let away = |error: EngineError| {
        assert!(error.to_string().contains("the volume store has no place for this VCH"), "{error}");
    };
    away(make(&world, named("bb", Some("fast"))).await.unwrap_err());
    away(world.start(&container).await.unwrap_err());
    assert_eq!(world.engine.volume_used(&volume).await.unwrap(), None);
    world.remove(&container, false).await.unwrap();
    away(world.engine.remove_volume(&world.session, "aa", false).await.unwrap_err());
    let pruned = world.engine.prune_volumes(&world.session, |_| true).await.unwrap();
    assert!(pruned.names.is_empty(), "{pruned:?}");
    // The server starts all the same, and all else goes on.
    world.restart().await;
    make(&world, named("cc", None)).await.unwrap();
    world.engine.remove_volume(&world.session, "cc", false).await.unwrap();

    world.sim.open_folder(world.vch.id, Path::new(FAST)).await.unwrap();
    let mut there = world.sim.volumes(world.vch.id, Some(Path::new(FAST))).await.unwrap();
    there.sort_unstable();
    let mut both = [volume.id, gone.id];
    both.sort_unstable();
    assert_eq!(there, both);
    world.engine.remove_volume(&world.session, "aa", false).await.unwrap();
    assert!(world.sim.volume_sizes().is_empty(), "what was removed before is gone by now, too");

    // What is lost for good does not keep its VCH.
    make(&world, named("lost", Some("fast"))).await.unwrap();
    world.sim.unmount(world.vch.id, Path::new(FAST));
    within("vch rm", world.engine.vch_remove(&operator(), "dev", true)).await.unwrap();
}
