//! Create, start, stop, kill, remove, wait.

use crate::world::{World, ask, until, until_running, within};
use bulkhead_engine::{Changed, EngineError, WaitFor};
use bulkhead_model::ContainerAsk;
use bulkhead_model::container::Signal;
use bulkhead_model::lifecycle::Status;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_container_runs_and_its_exit_code_is_kept() {
    let world = World::new().await;
    let id = world.create("print hello ; exit 7").await;
    assert_eq!(world.container(&id).await.status, Status::Created);
    assert!(world.nothing_left(), "create makes a row and nothing else");
    assert_eq!(world.start(&id).await.unwrap(), Changed::Done);
    let exit = world.exit(&id).await;
    assert_eq!((exit.code, exit.error.as_deref(), exit.oom_killed), (7, None, false));
    assert!(exit.started_at.unwrap() <= exit.finished_at);
    assert_eq!(world.log(&id).await, ["hello"]);
}

#[tokio::test]
async fn a_command_that_is_not_there_says_so() {
    let world = World::new().await;
    let nothing = ContainerAsk { cmd: Some(vec!["nosuch".into()]), ..ask("") };
    let id = world.create_as(None, nothing).await.unwrap().id;
    let error = world.start(&id).await.unwrap_err();
    let EngineError::StartFailed { code: 127, message } = &error else { panic!("{error:?}") };
    assert_eq!(message, "exec: \"nosuch\": executable file not found in $PATH");
    let Status::Exited { run: 1, exit } = world.container(&id).await.status else { panic!("not exited") };
    assert_eq!((exit.code, exit.started_at, exit.error.as_deref()), (127, None, Some(message.as_str())));
    // What never ran did not die.
    assert_eq!(world.story(&id).await, ["create"]);
    world.remove(&id, false).await.unwrap();
    assert!(world.nothing_left());
}

#[tokio::test]
async fn a_container_can_run_again_and_its_log_has_both_runs() {
    let world = World::new().await;
    let id = world.run("count 2 ; exit 3").await;
    assert_eq!(world.exit(&id).await.code, 3);
    assert_eq!(world.start(&id).await.unwrap(), Changed::Done);
    let next = world.engine.wait(&world.session, id.as_str(), WaitFor::NotRunning).await.unwrap();
    assert_eq!(within("second exit", next.done()).await.unwrap().code, 3);
    assert!(matches!(world.container(&id).await.status, Status::Exited { run: 2, .. }));
    assert_eq!(world.log(&id).await, ["line 1", "line 2", "line 1", "line 2"]);
    assert_eq!(world.story(&id).await, ["create", "start", "die", "start", "die"]);
}

#[tokio::test]
async fn starting_what_runs_changes_nothing() {
    let world = World::new().await;
    let id = world.run("sleep").await;
    assert_eq!(world.start(&id).await.unwrap(), Changed::AlreadySo);
    assert_eq!(world.sim.running().len(), 1);
}

#[tokio::test]
async fn stop_signals_and_returns_when_it_has_stopped() {
    let world = World::new().await;
    let id = world.run("sleep").await;
    assert_eq!(world.stop(&id, None).await.unwrap(), Changed::Done);
    let Status::Exited { exit, .. } = world.container(&id).await.status else { panic!("not exited") };
    assert_eq!(exit.code, 143);
    assert_eq!(world.stop(&id, None).await.unwrap(), Changed::AlreadySo);
    assert_eq!(world.story(&id).await, ["create", "start", "kill", "die", "stop"]);
}

#[tokio::test]
async fn a_process_that_ignores_the_signal_is_killed_at_the_deadline() {
    let world = World::new().await;
    let id = world.run("ignore-term ; sleep").await;
    let begun = Instant::now();
    world.stop(&id, Some(1)).await.unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(990) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(world.exit(&id).await.code, 137);
}

#[tokio::test]
async fn timeout_zero_kills_at_once() {
    let world = World::new().await;
    let id = world.run("ignore-term ; sleep").await;
    let begun = Instant::now();
    world.stop(&id, Some(0)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(world.exit(&id).await.code, 137);
}

#[tokio::test]
async fn a_stop_without_end_waits_and_a_second_stop_may_cut_it_short() {
    let world = World::new().await;
    let id = world.run("ignore-term ; sleep").await;
    let (engine, session) = (world.engine.clone(), world.session.clone());
    let text = id.to_string();
    let forever = tokio::spawn(async move { engine.stop(&session, &text, None, Some(-1)).await });
    until("signalled", || async {
        matches!(world.container(&id).await.status, Status::Running { stop_signalled: true, .. })
    })
    .await;
    assert!(!forever.is_finished());
    world.stop(&id, Some(0)).await.unwrap();
    within("the first stop", forever).await.unwrap().unwrap();
    assert_eq!(world.exit(&id).await.code, 137);
}

#[tokio::test]
async fn stop_sends_the_signal_that_was_asked_for() {
    let world = World::new().await;
    let asked = ContainerAsk { stop_signal: Some("SIGUSR1".into()), ..ask("sleep") };
    let id = world.create_as(None, asked).await.unwrap().id;
    world.start(&id).await.unwrap();
    world.stop(&id, None).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 128 + 10);
    world.start(&id).await.unwrap();
    let interrupt = Signal::parse("INT").unwrap();
    within("stop", world.engine.stop(&world.session, id.as_str(), Some(interrupt), None)).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 128 + 2);
}

#[tokio::test]
async fn kill_signals_what_runs_only() {
    let world = World::new().await;
    let id = world.create("sleep").await;
    let kill = |signal| world.engine.kill(&world.session, id.as_str(), signal);
    assert!(matches!(kill(Signal::KILL).await, Err(EngineError::NotRunning(_))));
    world.start(&id).await.unwrap();
    within("kill", kill(Signal::parse("HUP").unwrap())).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 129);
    world.start(&id).await.unwrap();
    within("kill", kill(Signal::KILL)).await.unwrap();
    // SIGKILL is waited for.
    assert!(matches!(world.container(&id).await.status, Status::Exited { run: 2, .. }));
    assert_eq!(world.exit(&id).await.code, 137);
}

#[tokio::test]
async fn what_runs_is_removed_by_force_only() {
    let world = World::new().await;
    let id = world.run("sleep").await;
    assert!(matches!(world.remove(&id, false).await, Err(EngineError::IsRunning(_))));
    assert_eq!(world.sim.running().len(), 1);
    world.remove(&id, true).await.unwrap();
    assert!(world.is_gone(&id).await);
    assert!(world.nothing_left());
    let story = world.story(&id).await;
    assert_eq!(story, ["create", "start", "kill", "die", "destroy"]);
}

#[tokio::test]
async fn a_container_that_was_never_started_can_be_removed() {
    let world = World::new().await;
    let id = world.create("sleep").await;
    world.remove(&id, false).await.unwrap();
    assert!(world.is_gone(&id).await);
    assert!(matches!(world.remove(&id, false).await, Err(EngineError::NoSuchContainer(_))));
}

#[tokio::test]
async fn removal_at_exit_leaves_nothing_and_wait_still_tells_the_code() {
    let world = World::new().await;
    let asked = ContainerAsk { auto_remove: true, ..ask("print x ; exit 5") };
    let id = world.create_as(Some("brief"), asked).await.unwrap().id;
    let removed = world.engine.wait(&world.session, id.as_str(), WaitFor::Removed).await.unwrap();
    let exited = world.engine.wait(&world.session, id.as_str(), WaitFor::NextExit).await.unwrap();
    world.start(&id).await.unwrap();
    assert_eq!(within("exit", exited.done()).await.unwrap().code, 5);
    assert_eq!(within("removal", removed.done()).await.unwrap().code, 5);
    assert!(world.is_gone(&id).await);
    assert!(world.nothing_left());
    assert_eq!(world.story(&id).await, ["create", "start", "die", "destroy"]);
    world.create_as(Some("brief"), ask("sleep")).await.unwrap();
}

#[tokio::test]
async fn removal_at_exit_also_follows_a_start_that_failed() {
    let world = World::new().await;
    let asked = ContainerAsk { auto_remove: true, cmd: Some(vec!["nosuch".into()]), ..ask("") };
    let id = world.create_as(None, asked).await.unwrap().id;
    let removed = world.engine.wait(&world.session, id.as_str(), WaitFor::Removed).await.unwrap();
    assert!(matches!(world.start(&id).await, Err(EngineError::StartFailed { code: 127, .. })));
    assert_eq!(within("removal", removed.done()).await.unwrap().code, 127);
    assert!(world.nothing_left());
}

#[tokio::test]
async fn waits_end_at_what_they_wait_for() {
    let world = World::new().await;
    let id = world.create("sleep").await;
    let wait = |what| world.engine.wait(&world.session, id.as_str(), what);
    // Not running: at once.
    assert_eq!(within("not running", wait(WaitFor::NotRunning).await.unwrap().done()).await.unwrap().code, 0);
    let next = wait(WaitFor::NextExit).await.unwrap();
    let removed = wait(WaitFor::Removed).await.unwrap();
    world.start(&id).await.unwrap();
    let running = wait(WaitFor::NotRunning).await.unwrap();
    world.stop(&id, None).await.unwrap();
    assert_eq!(within("next exit", next.done()).await.unwrap().code, 143);
    assert_eq!(within("not running", running.done()).await.unwrap().code, 143);
    assert_eq!(within("again", wait(WaitFor::NotRunning).await.unwrap().done()).await.unwrap().code, 143);
    // The next exit is of the next run.
    let second = wait(WaitFor::NextExit).await.unwrap();
    world.start(&id).await.unwrap();
    world.engine.kill(&world.session, id.as_str(), Signal::KILL).await.unwrap();
    assert_eq!(within("second", second.done()).await.unwrap().code, 137);
    world.remove(&id, false).await.unwrap();
    assert_eq!(within("removed", removed.done()).await.unwrap().code, 137);
}

#[tokio::test]
async fn a_stop_during_boot_breaks_the_start_off() {
    let world = World::new().await;
    world.sim.hold_boot(true);
    let id = world.create("sleep").await;
    let (engine, session, text) = (world.engine.clone(), world.session.clone(), id.to_string());
    let start = tokio::spawn(async move { engine.start_container(&session, &text).await });
    until("a machine", || async { !world.sim.running().is_empty() }).await;
    world.stop(&id, None).await.unwrap();
    let error = within("start", start).await.unwrap().unwrap_err();
    assert!(matches!(error, EngineError::StartFailed { code: 137, .. }), "{error:?}");
    world.sim.hold_boot(false);
    world.start(&id).await.unwrap();
    until_running(&world, &id).await;
}

#[tokio::test]
async fn out_of_memory_is_told() {
    let world = World::new().await;
    let id = world.run("oom").await;
    let exit = world.exit(&id).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}
