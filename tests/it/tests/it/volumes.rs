//! Volumes: made, held by one machine at a time, kept or removed with a container, and nothing of them lost or left.

use crate::world::{World, ask, until, until_running, within};
use bulkhead_engine::EngineError;
use bulkhead_machine::Disks as _;
use bulkhead_machine::sim::Verb;
use bulkhead_model::reason::Rule;
use bulkhead_model::volume::{MountAsk, MountsFrom, VolumeAsk, VolumePlace};
use bulkhead_model::{ContainerAsk, ContainerId, VchSettings, VolumeId};

fn named(name: &str) -> VolumeAsk {
    VolumeAsk { name: Some(name.parse().unwrap()), ..VolumeAsk::default() }
}

fn mount(target: &str, name: &str, read_only: bool) -> MountAsk {
    MountAsk { target: target.into(), volume: named(name), read_only, ..MountAsk::default() }
}

async fn create(world: &World, mounts: &[MountAsk], paths: &[&str]) -> ContainerId {
    let ask = ContainerAsk {
        mounts: mounts.to_vec(),
        volume_paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..ask("sleep")
    };
    world.create_as(None, ask).await.unwrap().id
}

async fn names(world: &World) -> Vec<String> {
    let volumes = world.engine.volumes(&world.session).await.unwrap();
    volumes.into_iter().map(|facts| facts.volume.name.to_string()).collect()
}

#[tokio::test]
async fn a_named_volume_stays_and_an_anonymous_one_goes_with_its_last_container() {
    let world = World::new().await;
    let one = create(&world, &[mount("/d", "data", false)], &["/own"]).await;
    let from = ContainerAsk {
        mounts_from: vec![MountsFrom { container: one.to_string(), read_only: true }],
        ..ask("sleep")
    };
    let two = world.create_as(None, from).await.unwrap().id;
    assert_eq!(world.sim.volume_sizes(), [16 << 30, 16 << 30]);
    let targets: Vec<_> = world
        .container(&two)
        .await
        .spec
        .mounts
        .into_iter()
        .map(|mount| (mount.target, mount.read_only))
        .collect();
    assert_eq!(targets, [("/d".into(), true), ("/own".into(), true)]);

    let used = world.engine.remove_volume(&world.session, "data", true).await;
    assert!(
        matches!(&used, Err(EngineError::VolumeInUse { containers, .. }) if containers.len() == 2),
        "{used:?}"
    );
    within("remove", world.engine.remove(&world.session, one.as_str(), false, true)).await.unwrap();
    assert_eq!(names(&world).await.len(), 2, "the other container still has it");
    within("remove", world.engine.remove(&world.session, two.as_str(), false, true)).await.unwrap();
    assert_eq!(names(&world).await, ["data"]);
    assert_eq!(world.sim.volume_sizes().len(), 1);
    world.engine.remove_volume(&world.session, "data", false).await.unwrap();
    let missing = world.engine.remove_volume(&world.session, "data", false).await;
    assert!(matches!(missing, Err(EngineError::NoSuchVolume(_))), "{missing:?}");
    world.engine.remove_volume(&world.session, "data", true).await.unwrap();
    assert!(world.sim.volume_sizes().is_empty() && world.nothing_left());
}

#[tokio::test]
async fn a_volume_is_in_one_running_machine() {
    let mut world = World::new().await;
    let one = create(&world, &[mount("/d", "data", false)], &[]).await;
    let two = create(&world, &[mount("/e", "data", false)], &[]).await;
    world.start(&one).await.unwrap();
    until_running(&world, &one).await;
    let held = world.start(&two).await.unwrap_err();
    let EngineError::VolumeHeld { name, by } = &held else { panic!("{held}") };
    assert_eq!((name.as_str(), by), ("data", &one));
    assert!(held.to_string().contains(one.short()), "{held}");
    // Also by the next server.
    world.restart().await;
    assert!(matches!(world.start(&two).await, Err(EngineError::VolumeHeld { .. })));
    world.stop(&one, Some(0)).await.unwrap();
    // Its machine may still be on its way down.
    world.start(&two).await.unwrap();
    until_running(&world, &two).await;
    assert_eq!(world.sim.attached(&two), [false]);
    let story: Vec<_> = world.events().await.into_iter().map(|event| event.action).collect();
    let mounts = story.iter().filter(|action| *action == "mount").count();
    assert_eq!((mounts, story.iter().filter(|action| *action == "unmount").count()), (2, 1), "{story:?}");
}

#[tokio::test]
async fn what_is_only_read_is_settled_first_and_shared() {
    let mut world = World::new().await;
    let one = create(&world, &[mount("/d", "data", true)], &[]).await;
    let two = create(&world, &[mount("/d", "data", true)], &[]).await;
    let writer = create(&world, &[mount("/d", "data", false)], &[]).await;
    world.start(&one).await.unwrap();
    assert_eq!(world.sim.attached(&one), [true]);
    assert_eq!(world.sim.calls(Verb::Start), 2, "once to settle it, once to run");
    world.start(&two).await.unwrap();
    assert_eq!(world.sim.attached(&two), [true]);
    assert_eq!(world.sim.calls(Verb::Start), 3, "it was settled already");
    assert!(matches!(world.start(&writer).await, Err(EngineError::VolumeHeld { .. })));
    for reader in [&one, &two] {
        world.stop(reader, Some(0)).await.unwrap();
    }
    world.start(&writer).await.unwrap();
    assert_eq!(world.sim.attached(&writer), [false]);
    world.stop(&writer, Some(0)).await.unwrap();
    // Who knows what the writer left; a server that dies in between settles it anew.
    world.sim.hold_boot(true);
    let (engine, session, text) = (world.engine.clone(), world.session.clone(), one.to_string());
    let start = tokio::spawn(async move { engine.start_container(&session, &text).await });
    until("settling", || async { world.sim.attached(&one) == [false] }).await;
    world.restart().await;
    assert!(within("start", start).await.unwrap().is_err());
    world.sim.hold_boot(false);
    until_running(&world, &one).await;
    assert_eq!(world.sim.attached(&one), [true]);
}

#[tokio::test]
async fn a_stop_and_a_removal_are_heard_while_a_volume_is_filled() {
    // What is only read is filled in a machine of its own.
    for read_only in [false, true] {
        let world = World::new().await;
        let id = create(&world, &[mount("/d", "data", read_only)], &[]).await;
        for remove in [false, true] {
            world.sim.hold_start(true);
            let (engine, session, text) = (world.engine.clone(), world.session.clone(), id.to_string());
            let start = tokio::spawn(async move { engine.start_container(&session, &text).await });
            until("it is filled", || async { world.sim.is_held(&id) && !world.sim.running().is_empty() })
                .await;
            match remove {
                false => drop(world.stop(&id, Some(0)).await.unwrap()),
                true => world.remove(&id, true).await.unwrap(),
            }
            assert!(within("start", start).await.unwrap().is_err());
            until("its machine is gone", || async { world.sim.running().is_empty() }).await;
            world.sim.hold_start(false);
            if !remove {
                world.start(&id).await.unwrap();
                world.stop(&id, Some(0)).await.unwrap();
                // Somebody wrote it, so that what only reads it has it settled again.
                let writer = create(&world, &[mount("/d", "data", false)], &[]).await;
                world.start(&writer).await.unwrap();
                world.remove(&writer, true).await.unwrap();
            }
        }
        assert!(world.nothing_left());
    }
}

#[tokio::test]
async fn what_stands_still_writes_its_volumes_before_it_is_removed() {
    for (mounts, resumed) in [(&[mount("/d", "data", false)][..], 1), (&[], 0)] {
        for restarts in [false, true] {
            let mut world = World::new().await;
            let id = create(&world, mounts, &[]).await;
            world.start(&id).await.unwrap();
            within("pause", world.engine.pause(&world.session, id.as_str())).await.unwrap();
            if restarts {
                world.restart().await;
            }
            let before = world.sim.calls(Verb::Resume);
            world.remove(&id, true).await.unwrap();
            assert_eq!(world.sim.calls(Verb::Resume) - before, resumed, "{mounts:?} {restarts}");
            assert!(world.nothing_left());
        }
    }
}

#[tokio::test]
async fn a_silent_agent_holds_no_removal_up_whatever_it_has_in_volumes() {
    for restarts in [false, true] {
        let mut world = World::new().await;
        let id = create(&world, &[mount("/d", "data", false)], &[]).await;
        world.start(&id).await.unwrap();
        world.sim.silence_agent(&id);
        if restarts {
            world.restart().await;
        }
        world.remove(&id, true).await.unwrap();
        assert!(world.nothing_left());
    }
}

#[tokio::test]
async fn disks_and_rows_agree_after_a_crash() {
    let mut world = World::new().await;
    let volume = world.engine.create_volume(&world.session, &named("data")).await.unwrap();
    // One was made, and its server died before it was written down.
    let orphan = VolumeId(uuid::Uuid::new_v4());
    let stray = VolumePlace { id: orphan, folder: None };
    world.sim.create_volume(world.vch.id, &stray, 1 << 30).await.unwrap();
    // One was removed, and its server died before its disk was.
    let gone = world.engine.create_volume(&world.session, &named("gone")).await.unwrap();
    world.sim.fail_next(Verb::DeleteVolume, "cut");
    assert!(world.engine.remove_volume(&world.session, "gone", false).await.is_err());
    assert_eq!(names(&world).await, ["data"]);
    assert_eq!(world.sim.volume_sizes().len(), 3);
    // Its name is free, and the new one has nothing of the old.
    let again = world.engine.create_volume(&world.session, &named("gone")).await.unwrap();
    assert_ne!(again.id, gone.id);
    world.restart().await;
    let mut left = world.sim.volumes(world.vch.id, None).await.unwrap();
    left.sort_unstable();
    let mut expect = [volume.id, again.id];
    expect.sort_unstable();
    assert_eq!(left, expect);
    // A container that could not be made leaves no volume.
    world.create_as(Some("web"), ask("sleep")).await.unwrap();
    let taken = ContainerAsk { volume_paths: vec!["/x".into()], ..ask("sleep") };
    assert!(matches!(world.create_as(Some("web"), taken).await, Err(EngineError::NameInUse { .. })));
    assert_eq!(world.sim.volume_sizes().len(), 2);
}

#[tokio::test]
async fn sizes_are_kept_within_limits_and_grow() {
    let settings = VchSettings {
        volumes_max: 2,
        volumes_bytes_max: Some(3 << 30),
        volume_bytes: 1 << 30,
        ..VchSettings::default()
    };
    let world = World::with("dev", settings).await;
    let sized = |name: &str, size_bytes| VolumeAsk { size_bytes: Some(size_bytes), ..named(name) };
    let limit = |error: EngineError| match error {
        EngineError::Limit(reason) => reason.rule,
        other => panic!("{other}"),
    };
    let (engine, session) = (&world.engine, &world.session);
    let make = |ask: VolumeAsk| async move { engine.create_volume(session, &ask).await.map_err(limit) };
    make(named("one")).await.unwrap();
    assert_eq!(make(sized("two", 3 << 30)).await.unwrap_err(), Rule::Limit("volumes_bytes_max".into()));
    make(sized("two", 1 << 30)).await.unwrap();
    assert_eq!(make(named("three")).await.unwrap_err(), Rule::Limit("volumes_max".into()));
    assert_eq!(world.sim.volume_sizes(), [1 << 30, 1 << 30]);

    // One that is there is found, and becomes as large as is asked for.
    assert_eq!(make(named("one")).await.unwrap().size_bytes, 1 << 30);
    assert_eq!(make(sized("one", 2 << 30)).await.unwrap().size_bytes, 2 << 30);
    assert_eq!(make(sized("two", 2 << 30)).await.unwrap_err(), Rule::Limit("volumes_bytes_max".into()));
    let smaller = world.engine.create_volume(&world.session, &sized("one", 1 << 30)).await.unwrap_err();
    assert!(smaller.to_string().contains("not smaller"), "{smaller}");
    let mut sizes = world.sim.volume_sizes();
    sizes.sort_unstable();
    assert_eq!(sizes, [1 << 30, 2 << 30]);
    for size_bytes in [0, 1 << 60] {
        let wrong = world.engine.create_volume(&world.session, &sized("one", size_bytes)).await;
        assert!(matches!(wrong, Err(EngineError::Invalid { .. } | EngineError::Conflict(_))), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_vch_with_volumes_is_removed_only_by_force() {
    let world = World::new().await;
    world.engine.create_volume(&world.session, &named("data")).await.unwrap();
    let refused = world.engine.vch_remove(&crate::world::operator(), "dev", false).await;
    assert!(matches!(refused, Err(EngineError::VchNotEmpty { volumes: 1, .. })), "{refused:?}");
    world.engine.vch_remove(&crate::world::operator(), "dev", true).await.unwrap();
    assert!(world.sim.volume_sizes().is_empty());
}
