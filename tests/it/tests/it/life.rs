//! Restart, restart policies, pause, rename, prune.

use crate::world::{World, ask, until, until_running, within};
use bulkhead_engine::{EngineError, LogQuery, Update, WaitFor};
use bulkhead_machine::sim::Verb;
use bulkhead_model::container::Signal;
use bulkhead_model::lifecycle::Status;
use bulkhead_model::{Container, ContainerAsk, ContainerId, RestartPolicy, VchSettings};
use futures_util::TryStreamExt as _;

const ALWAYS: RestartPolicy = RestartPolicy::Always;

async fn with_policy(world: &World, script: &str, restart: RestartPolicy) -> ContainerId {
    let ask = ContainerAsk { restart, ..ask(script) };
    let id = world.create_as(None, ask).await.unwrap().id;
    world.start(&id).await.unwrap();
    id
}

async fn until_run(world: &World, id: &ContainerId, run: u32) {
    until("the next run", || async {
        matches!(world.container(id).await.status, Status::Running { run: now, .. } if now >= run)
    })
    .await;
}

/// No machine, and nothing more to do: it stays as it is.
async fn until_at_rest(world: &World, id: &ContainerId) {
    until("at rest", || async {
        let container = world.container(id).await;
        matches!(container.status, Status::Exited { .. })
            && !bulkhead_model::lifecycle::awaits_run(&container.desired, &container.status)
            && world.sim.running().is_empty()
    })
    .await;
}

async fn kill(world: &World, id: &ContainerId, signal: Signal) -> Result<(), EngineError> {
    within("kill", world.engine.kill(&world.session, id.as_str(), signal)).await
}

async fn restart(world: &World, id: &ContainerId) -> Result<(), EngineError> {
    within("restart", world.engine.restart(&world.session, id.as_str(), None, None)).await
}

async fn pause(world: &World, id: &ContainerId) -> Result<(), EngineError> {
    within("pause", world.engine.pause(&world.session, id.as_str())).await
}

async fn unpause(world: &World, id: &ContainerId) -> Result<(), EngineError> {
    within("unpause", world.engine.unpause(&world.session, id.as_str())).await
}

async fn updated(world: &World, id: &ContainerId, update: Update) -> Result<Vec<String>, EngineError> {
    let change = |_: &Container| Ok::<_, EngineError>(update.clone());
    within("update", world.engine.update(&world.session, id.as_str(), change)).await
}

#[tokio::test]
async fn a_restart_is_a_stop_and_a_start() {
    let world = World::new().await;
    let id = world.run("print on ; sleep").await;
    restart(&world, &id).await.unwrap();
    assert!(matches!(world.container(&id).await.status, Status::Running { run: 2, .. }));
    let story = ["create", "start", "kill", "die", "stop", "start", "restart"];
    assert_eq!(world.story(&id).await, story);
    world.stop(&id, None).await.unwrap();
    restart(&world, &id).await.unwrap();
    assert_eq!(world.story(&id).await[7..], ["kill", "die", "stop", "start", "restart"]);
    assert_eq!(world.container(&id).await.desired.restarts.count, 0, "not counted: a user asked for it");
}

#[tokio::test]
async fn a_restart_kills_at_its_deadline_and_keeps_what_is_to_be_removed_at_its_end() {
    let world = World::new().await;
    let ask = ContainerAsk { auto_remove: true, ..ask("ignore-term ; sleep") };
    let id = world.create_as(None, ask).await.unwrap().id;
    world.start(&id).await.unwrap();
    within("restart", world.engine.restart(&world.session, id.as_str(), None, Some(0))).await.unwrap();
    assert!(matches!(world.container(&id).await.status, Status::Running { run: 2, .. }));
    world.stop(&id, Some(0)).await.unwrap();
    until("removed", || world.is_gone(&id)).await;
}

#[tokio::test]
async fn a_restart_is_carried_through_by_the_next_server() {
    let mut world = World::new().await;
    let id = world.run("ignore-term ; sleep").await;
    let (engine, session, text) = (world.engine.clone(), world.session.clone(), id.to_string());
    let asked = tokio::spawn(async move { engine.restart(&session, &text, None, Some(1)).await });
    until("signalled", || async {
        matches!(world.container(&id).await.status, Status::Running { stop_signalled: true, .. })
    })
    .await;
    world.restart().await;
    within("the one who asked", asked).await.unwrap().unwrap_err();
    until_run(&world, &id, 2).await;
    let story = ["create", "start", "kill", "kill", "die", "stop", "start", "restart"];
    assert_eq!(world.story(&id).await, story);
}

#[tokio::test]
async fn a_stop_calls_a_restart_off() {
    let world = World::new().await;
    let id = world.run("ignore-term ; sleep").await;
    let (engine, session, text) = (world.engine.clone(), world.session.clone(), id.to_string());
    let asked = tokio::spawn(async move { engine.restart(&session, &text, None, Some(-1)).await });
    until("signalled", || async {
        matches!(world.container(&id).await.status, Status::Running { stop_signalled: true, .. })
    })
    .await;
    world.stop(&id, Some(0)).await.unwrap();
    let error = within("the restart", asked).await.unwrap().unwrap_err();
    assert!(matches!(error, EngineError::StartFailed { .. }), "{error:?}");
    until_at_rest(&world, &id).await;
}

#[tokio::test]
async fn on_failure_restarts_so_often_and_counts() {
    let world = World::new().await;
    let id = with_policy(&world, "exit 3", RestartPolicy::OnFailure { retries_max: 2 }).await;
    until_at_rest(&world, &id).await;
    let container = world.container(&id).await;
    assert!(matches!(container.status, Status::Exited { run: 3, .. }), "{container:?}");
    assert_eq!(container.desired.restarts.count, 2);
    // No `restart`, no `stop`.
    assert_eq!(world.story(&id).await, ["create", "start", "die", "start", "die", "start", "die"]);
    let fine = with_policy(&world, "exit 0", RestartPolicy::OnFailure { retries_max: 2 }).await;
    until_at_rest(&world, &fine).await;
    assert!(matches!(world.container(&fine).await.status, Status::Exited { run: 1, .. }));
    // A start by a user counts anew.
    world.start(&id).await.unwrap();
    until_at_rest(&world, &id).await;
    assert!(matches!(world.container(&id).await.status, Status::Exited { run: 6, .. }));
}

#[tokio::test]
async fn waits_follows_and_attachments_end_with_the_run() {
    let world = World::new().await;
    let id = with_policy(&world, "print one ; sleep", ALWAYS).await;
    let waiting = world.engine.wait(&world.session, id.as_str(), WaitFor::NotRunning).await.unwrap();
    let query = LogQuery { stdout: true, stderr: true, follow: true, ..LogQuery::default() };
    let log = world.engine.logs(&world.session, id.as_str(), query).await.unwrap().lines;
    world.sim.crash_machine(&id);
    assert_eq!(within("wait", waiting.done()).await.unwrap().code, 137);
    let lines = within("follow", log.try_concat()).await.unwrap();
    assert_eq!(lines.len(), 1);
    until_run(&world, &id, 2).await;
    assert_eq!(world.story(&id).await, ["create", "start", "die", "start"]);
}

#[tokio::test]
async fn a_failed_start_is_not_tried_again() {
    let world = World::new().await;
    let ask = ContainerAsk { restart: ALWAYS, cmd: Some(vec!["nosuch".into()]), ..ask("") };
    let id = world.create_as(None, ask).await.unwrap().id;
    world.start(&id).await.unwrap_err();
    until_at_rest(&world, &id).await;
    assert_eq!(world.story(&id).await, ["create"]);
}

#[tokio::test]
async fn what_a_user_ends_stays_ended() {
    let world = World::new().await;
    for policy in [ALWAYS, RestartPolicy::UnlessStopped] {
        let stopped = with_policy(&world, "sleep", policy).await;
        world.stop(&stopped, None).await.unwrap();
        let killed = with_policy(&world, "sleep", policy).await;
        kill(&world, &killed, Signal::KILL).await.unwrap();
        let signalled = with_policy(&world, "sleep", policy).await;
        kill(&world, &signalled, Signal::parse("USR1").unwrap()).await.unwrap();
        for id in [&stopped, &killed, &signalled] {
            until_at_rest(&world, id).await;
            assert!(matches!(world.container(id).await.status, Status::Exited { run: 1, .. }), "{policy:?}");
        }
    }
}

#[tokio::test]
async fn with_a_stop_signal_of_its_own_another_signal_ends_only_the_run() {
    let world = World::new().await;
    let ask = |restart| ContainerAsk { restart, stop_signal: Some("QUIT".into()), ..ask("sleep") };
    let usr1 = Signal::parse("USR1").unwrap();
    let always = world.create_as(None, ask(ALWAYS)).await.unwrap().id;
    world.start(&always).await.unwrap();
    kill(&world, &always, usr1).await.unwrap();
    until_run(&world, &always, 2).await;
    kill(&world, &always, Signal::parse("QUIT").unwrap()).await.unwrap();
    until_at_rest(&world, &always).await;
    // It was signalled by a user: as good as stopped, for a policy that looks at that.
    let unless = world.create_as(None, ask(RestartPolicy::UnlessStopped)).await.unwrap().id;
    world.start(&unless).await.unwrap();
    kill(&world, &unless, usr1).await.unwrap();
    until_at_rest(&world, &unless).await;
}

#[tokio::test]
async fn between_two_runs() {
    let world = World::new().await;
    let id = with_policy(&world, "exit 1", ALWAYS).await;
    // The pauses grow: there is time enough in the fourth.
    until("a long pause", || async {
        let container = world.container(&id).await;
        let pausing = bulkhead_model::restart::due(&container.desired, &container.status).is_some();
        container.desired.restarts.quick >= 4 && pausing
    })
    .await;
    assert_eq!(world.start(&id).await.unwrap(), bulkhead_engine::Changed::AlreadySo);
    assert!(matches!(pause(&world, &id).await, Err(EngineError::IsRestarting(_))));
    assert!(matches!(kill(&world, &id, Signal::KILL).await, Err(EngineError::NotRunning(_))));
    assert!(matches!(world.remove(&id, false).await, Err(EngineError::IsRunning(_))));
    let attached = world.engine.attach(&world.session, id.as_str(), true, true, false, true).await;
    assert!(matches!(attached.map(drop), Err(EngineError::IsRestarting(_))));
    world.stop(&id, None).await.unwrap();
    assert_eq!(world.story(&id).await.last().unwrap(), "stop");
    until_at_rest(&world, &id).await;
    world.remove(&id, false).await.unwrap();
}

#[tokio::test]
async fn a_server_that_starts_goes_on_where_the_last_one_was() {
    let mut world = World::new().await;
    let looping = with_policy(&world, "sleep", ALWAYS).await;
    let stopped = with_policy(&world, "sleep", ALWAYS).await;
    let unless = with_policy(&world, "sleep", RestartPolicy::UnlessStopped).await;
    let never = world.create_as(None, ContainerAsk { restart: ALWAYS, ..ask("sleep") }).await.unwrap().id;
    world.stop(&stopped, None).await.unwrap();
    world.stop(&unless, None).await.unwrap();
    within("shutdown", world.engine.shutdown()).await;
    world.sim.crash_machine(&looping);
    world.next_engine().await;
    until_run(&world, &looping, 2).await;
    until_run(&world, &stopped, 2).await;
    for id in [&unless, &never] {
        assert!(
            matches!(world.container(id).await.status, Status::Created | Status::Exited { run: 1, .. }),
            "not started with the server"
        );
    }
}

#[tokio::test]
async fn a_refused_restart_says_why_and_is_not_repeated() {
    let settings = VchSettings { memory_bytes_max: Some(600 << 20), ..VchSettings::default() };
    let world = World::with("dev", settings).await;
    let big = |script: &str| ContainerAsk { memory_bytes: Some(512 << 20), restart: ALWAYS, ..ask(script) };
    let id = world.create_as(None, big("exit 1")).await.unwrap().id;
    world.start(&id).await.unwrap();
    // Its memory is taken while it is between two runs.
    let other = world.create_as(None, ContainerAsk { restart: RestartPolicy::No, ..big("sleep") }).await;
    let other = other.unwrap().id;
    until("a place", || async { world.start(&other).await.is_ok() }).await;
    until("given up", || async {
        matches!(&world.container(&id).await.status, Status::Exited { exit, .. } if exit.error.is_some())
    })
    .await;
    let Status::Exited { exit, .. } = world.container(&id).await.status else { panic!("not exited") };
    let why = exit.error.unwrap();
    assert!(why.starts_with("not started again: ") && why.contains("memory_bytes_max"), "{why}");
    until("called off", || async { world.container(&id).await.desired.restarts.cancelled }).await;
}

#[tokio::test]
async fn a_restart_policy_and_removal_at_the_end_exclude_each_other() {
    let world = World::new().await;
    let both = ContainerAsk { restart: ALWAYS, auto_remove: true, ..ask("sleep") };
    let error = world.create_as(None, both).await.unwrap_err();
    assert_eq!(error.to_string(), "can't create 'AutoRemove' container with restart policy");
}

#[tokio::test]
async fn a_paused_container_stands_still() {
    let mut world = World::new().await;
    let id = world.run("count 2 ; sleep").await;
    pause(&world, &id).await.unwrap();
    assert!(matches!(world.container(&id).await.status, Status::Running { paused: true, .. }));
    assert!(matches!(pause(&world, &id).await, Err(EngineError::IsPaused(_))));
    assert!(matches!(world.start(&id).await, Err(EngineError::IsPaused(_))));
    let attached = world.engine.attach(&world.session, id.as_str(), true, true, false, true).await;
    assert!(matches!(attached.map(drop), Err(EngineError::IsPaused(_))));
    assert!(matches!(world.remove(&id, false).await, Err(EngineError::IsRunning(_))));
    assert_eq!(world.log(&id).await.len(), 2, "its log can be read");
    // The next server leaves it as it is.
    world.restart().await;
    assert!(matches!(world.container(&id).await.status, Status::Running { paused: true, .. }));
    unpause(&world, &id).await.unwrap();
    assert!(matches!(unpause(&world, &id).await, Err(EngineError::NotPaused(_))));
    assert_eq!(world.story(&id).await, ["create", "start", "pause", "unpause"]);
    world.stop(&id, None).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 143);
    assert!(matches!(pause(&world, &id).await, Err(EngineError::NotRunning(_))));
}

#[tokio::test]
async fn what_ends_a_paused_container_wakes_it() {
    let world = World::new().await;
    let stopped = world.run("sleep").await;
    pause(&world, &stopped).await.unwrap();
    world.stop(&stopped, None).await.unwrap();
    assert_eq!(world.exit(&stopped).await.code, 143);
    let story = ["create", "start", "pause", "kill", "unpause", "die", "stop"];
    assert_eq!(world.story(&stopped).await, story);

    let told = world.run("sleep").await;
    pause(&world, &told).await.unwrap();
    kill(&world, &told, Signal::TERM).await.unwrap();
    assert_eq!(world.exit(&told).await.code, 143);
    assert_eq!(world.story(&told).await, ["create", "start", "pause", "kill", "unpause", "die"]);

    let killed = world.run("sleep").await;
    pause(&world, &killed).await.unwrap();
    kill(&world, &killed, Signal::KILL).await.unwrap();
    assert_eq!(world.exit(&killed).await.code, 137);

    let restarted = world.run("sleep").await;
    pause(&world, &restarted).await.unwrap();
    restart(&world, &restarted).await.unwrap();
    assert!(matches!(
        world.container(&restarted).await.status,
        Status::Running { run: 2, paused: false, .. }
    ));

    let removed = world.run("sleep").await;
    pause(&world, &removed).await.unwrap();
    world.remove(&removed, true).await.unwrap();
}

#[tokio::test]
async fn an_update_holds_in_guest_and_machine_and_in_the_next_run() {
    let mut world = World::new().await;
    let ask = ContainerAsk { cpu_milli: Some(2000), memory_bytes: Some(256 << 20), ..ask("sleep") };
    let id = world.create_as(None, ask).await.unwrap().id;
    world.start(&id).await.unwrap();
    let update = async |world: &World, update: Update| {
        updated(world, &id, update).await.unwrap();
    };
    // Quota in the guest, share and vCPUs of the machine.
    let has = |world: &World| {
        let (cpu_milli, vcpus, memory) = world.sim.size(&id)?;
        Some((world.sim.limits(&id)?.cpu_quota_milli, cpu_milli, vcpus, memory >> 20))
    };
    assert_eq!(has(&world), Some((0, 2000, 2, 256)));
    update(&world, Update { cpu_milli: Some(500), ..Update::default() }).await;
    until("less", || async { has(&world) == Some((500, 500, 2, 256)) }).await;
    update(&world, Update { cpu_milli: Some(1500), ..Update::default() }).await;
    until("more", || async { has(&world) == Some((1500, 1500, 2, 256)) }).await;
    update(&world, Update { cpu_milli: Some(500), ..Update::default() }).await;
    world.restart().await;
    until("less again", || async { has(&world) == Some((500, 500, 2, 256)) }).await;
    restart(&world, &id).await.unwrap();
    assert_eq!(has(&world), Some((500, 500, 1, 256)));
    world.stop(&id, None).await.unwrap();
    update(&world, Update { memory_bytes: Some(512 << 20), ..Update::default() }).await;
    world.start(&id).await.unwrap();
    assert_eq!(has(&world), Some((500, 500, 1, 512)));
}

#[tokio::test]
async fn the_start_of_a_server_is_no_restart_that_counts() {
    let mut world = World::new().await;
    let id = with_policy(&world, "sleep", ALWAYS).await;
    world.stop(&id, None).await.unwrap();
    world.restart().await;
    until_run(&world, &id, 2).await;
    assert_eq!(world.container(&id).await.desired.restarts.count, 0);
    world.sim.crash_machine(&id);
    until_run(&world, &id, 3).await;
    assert_eq!(world.container(&id).await.desired.restarts.count, 1);
}

#[tokio::test]
async fn a_signal_that_ends_nothing_waits_for_the_unpause() {
    let world = World::new().await;
    let ask = ContainerAsk { stop_signal: Some("QUIT".into()), ..ask("sleep") };
    let id = world.create_as(None, ask).await.unwrap().id;
    world.start(&id).await.unwrap();
    pause(&world, &id).await.unwrap();
    kill(&world, &id, Signal::parse("USR1").unwrap()).await.unwrap();
    until("its machine stands still again", || async { world.sim.stillness(&id) == Some((true, true)) })
        .await;
    assert!(matches!(world.container(&id).await.status, Status::Running { paused: true, .. }));
    unpause(&world, &id).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 128 + 10);
    let story = world.story(&id).await;
    assert_eq!(story[..5], ["create", "start", "pause", "kill", "unpause"]);
}

#[tokio::test]
async fn a_pause_that_fails_once_is_done_all_the_same() {
    let world = World::new().await;
    let id = world.run("sleep").await;
    world.sim.fail_next(Verb::Pause, "the hypervisor is busy");
    pause(&world, &id).await.unwrap();
    world.sim.fail_next(Verb::Resume, "the hypervisor is busy");
    unpause(&world, &id).await.unwrap();
    until_running(&world, &id).await;
}

#[tokio::test]
async fn a_container_gets_another_name() {
    let world = World::new().await;
    let id = world.create_as(Some("old"), ask("sleep")).await.unwrap().id;
    world.create_as(Some("taken"), ask("sleep")).await.unwrap();
    let rename = |name: &'static str| world.engine.rename(&world.session, "old", name);
    let error = within("rename", rename("taken")).await.unwrap_err();
    assert!(matches!(error, EngineError::NameInUse { .. }), "{error:?}");
    assert!(matches!(within("rename", rename("-")).await, Err(EngineError::InvalidName(_))));
    assert!(matches!(within("rename", rename("old")).await, Err(EngineError::Invalid { .. })));
    within("rename", rename("new")).await.unwrap();
    assert_eq!(world.container(&id).await.name, "new");
    let event = world.events().await.into_iter().find(|event| event.action == "rename").unwrap();
    assert_eq!((event.attributes["name"].as_str(), event.attributes["oldName"].as_str()), ("new", "/old"));
    world.create_as(Some("old"), ask("sleep")).await.unwrap();
}

#[tokio::test]
async fn prune_removes_what_rests() {
    let world = World::new().await;
    let running = world.run("sleep").await;
    let paused = world.run("sleep").await;
    pause(&world, &paused).await.unwrap();
    let created = world.create("sleep").await;
    let exited = world.run("exit 0").await;
    world.exit(&exited).await;
    let looping = with_policy(&world, "exit 1", ALWAYS).await;
    let kept = world.create_as(Some("kept"), ask("sleep")).await.unwrap().id;
    let prune = world.engine.prune_containers(&world.session, |container| container.name != "kept");
    let pruned = within("prune", prune).await.unwrap();
    let mut gone = pruned.containers;
    gone.sort();
    let mut expect = vec![created, exited];
    expect.sort();
    assert_eq!(gone, expect);
    for id in [&running, &paused, &looping, &kept] {
        assert!(!world.is_gone(id).await);
    }
    let event = world.events().await.into_iter().rfind(|event| event.action == "prune").unwrap();
    assert_eq!(event.actor, "");
    assert_eq!(event.attributes["reclaimed"], pruned.reclaimed_bytes.to_string());
}

#[tokio::test]
async fn an_update_of_cpus_reaches_the_guest() {
    let mut world = World::new().await;
    let ask = ContainerAsk { cpu_milli: Some(1500), ..ask("sleep") };
    let id = world.create_as(None, ask).await.unwrap().id;
    world.start(&id).await.unwrap();
    let quota = |world: &World| world.sim.limits(&id).unwrap().cpu_quota_milli;
    assert_eq!(quota(&world), 1500);
    let update = |cpu_milli| Update { cpu_milli: Some(cpu_milli), ..Update::default() };
    for (milli, expect) in [(250, 250), (2000, 0), (1000, 1000)] {
        updated(&world, &id, update(milli)).await.unwrap();
        until("told", || async { quota(&world) == expect }).await;
    }
    let error = updated(&world, &id, update(2001)).await;
    assert!(matches!(error, Err(EngineError::Conflict(_))), "{error:?}");
    // What an update changed holds for the next server and for the next run.
    world.restart().await;
    restart(&world, &id).await.unwrap();
    assert_eq!(quota(&world), 0, "a machine of one vCPU needs none");
}

#[tokio::test]
async fn limits_change_in_the_guest_of_what_runs() {
    let world = World::new().await;
    let ask = ContainerAsk { memory_bytes: Some(512 << 20), ..ask("sleep") };
    let id = world.create_as(None, ask).await.unwrap().id;
    world.start(&id).await.unwrap();
    let limits = || {
        let limits = world.sim.limits(&id).unwrap();
        (limits.memory_bytes >> 20, limits.pids_max)
    };
    assert_eq!(limits(), (512, 0));
    let memory = |mib: u64| Update { memory_bytes: Some(mib << 20), ..Update::default() };
    updated(&world, &id, Update { pids_max: Some(7), ..memory(256) }).await.unwrap();
    assert_eq!(limits(), (256, 7));
    // Of its machine's memory, what there is, and then more.
    updated(&world, &id, memory(400)).await.unwrap();
    assert_eq!((limits().0, world.sim.size(&id).unwrap().2), (400, 512 << 20));
    updated(&world, &id, memory(700)).await.unwrap();
    assert_eq!((limits().0, world.sim.size(&id).unwrap().2), (700, 700 << 20));
    // The container's driver may have tried by itself before.
    world.sim.fail_always(Verb::GrowMemory, Some("no more"));
    let error = updated(&world, &id, memory(900)).await.unwrap_err().to_string();
    world.sim.fail_always(Verb::GrowMemory, None);
    assert!(error.contains("no more"), "{error}");
    assert_eq!(world.container(&id).await.spec.resources.memory_bytes, 700 << 20);
    let error = updated(&world, &id, memory(3 << 10)).await.unwrap_err().to_string();
    assert!(error.contains("cannot have more than 2048 MiB of memory"), "{error}");
    updated(&world, &id, memory(256)).await.unwrap();
    // What is in use stays, and so does what is told of it.
    world.sim.hold_memory(&id, 200 << 20);
    let error = updated(&world, &id, memory(150)).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("Cannot update container {id}: unable to set memory limit to 157286400")),
        "{error}"
    );
    assert_eq!(world.container(&id).await.spec.resources.memory_bytes, 256 << 20);
    // Also while it stands still.
    pause(&world, &id).await.unwrap();
    updated(&world, &id, Update { pids_max: Some(0), ..memory(200) }).await.unwrap();
    updated(&world, &id, memory(150)).await.unwrap_err();
    unpause(&world, &id).await.unwrap();
    until("told when it goes on", || async { limits() == (200, 0) }).await;
    world.sim.hold_memory(&id, 1 << 20);
    updated(&world, &id, memory(128)).await.unwrap();
    assert_eq!(limits(), (128, 0));
    restart(&world, &id).await.unwrap();
    assert_eq!((limits(), world.sim.size(&id).unwrap().2), ((128, 0), 128 << 20));
}

#[tokio::test]
async fn a_guest_that_stood_still_is_told_the_time() {
    let mut world = World::new().await;
    let id = world.run("sleep").await;
    let sets = |world: &World| world.sim.clock_sets(&id).unwrap();
    assert_eq!(sets(&world), 0, "it got the time with its start");
    pause(&world, &id).await.unwrap();
    unpause(&world, &id).await.unwrap();
    until("told", || async { sets(&world) == 1 }).await;
    // The host may have slept while no server was there.
    world.restart().await;
    until("told again", || async { sets(&world) == 2 }).await;
}

#[tokio::test]
async fn a_kill_that_nobody_asked_for_by_name_is_told_too() {
    let world = World::new().await;
    let stopped = world.run("ignore-term ; sleep").await;
    world.stop(&stopped, Some(0)).await.unwrap();
    let exit = world.exit(&stopped).await;
    assert_eq!((exit.code, exit.error), (137, None));
    assert_eq!(world.story(&stopped).await, ["create", "start", "kill", "kill", "die", "stop"]);
    let removed = world.run("sleep").await;
    world.remove(&removed, true).await.unwrap();
    assert_eq!(world.story(&removed).await, ["create", "start", "kill", "die", "destroy"]);
}
