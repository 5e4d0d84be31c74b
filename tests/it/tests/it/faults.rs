//! What the back end or a guest does wrong.

use crate::journey::{Life, User};
use crate::world::{World, until, until_running, within};
use bulkhead_engine::EngineError;
use bulkhead_machine::sim::Verb;
use bulkhead_model::container::Signal;
use bulkhead_model::lifecycle::Status;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The call of `verb` fails at each point of a life in turn: the user is told or it is tried again; in the end all is
/// as it should be.
async fn fails_everywhere(verb: Verb, life: Life) {
    let world = World::new().await;
    for nth in 1.. {
        let user = User::new(&world, life).await;
        let calls = Arc::new(AtomicU64::new(0));
        if nth == 1 {
            world.sim.fail_next(verb, "broken");
        }
        let (sim, counted) = (world.sim.clone(), calls.clone());
        world.sim.on_call(move |called, _| {
            if called == verb && counted.fetch_add(1, Ordering::Relaxed) + 2 == nth {
                sim.fail_next(verb, "broken");
            }
        });
        let mut told = 0;
        while let Err(error) = user.carry_on().await {
            told += 1;
            assert!(error.to_string().contains("broken") && told == 1, "{verb:?} call {nth}: {error}");
        }
        world.sim.clear_hook();
        user.check_the_end(&world).await;
        if calls.load(Ordering::Relaxed) < nth {
            assert!(nth > 1, "{verb:?} is never called");
            return;
        }
    }
}

macro_rules! fails {
    ($($test:ident: $verb:ident, $life:ident;)+) => {
        $(#[tokio::test]
        async fn $test() {
            fails_everywhere(Verb::$verb, Life::$life).await;
        })+
    };
}

fails! {
    a_start_of_a_machine_fails_once: Start, Stopped;
    a_look_at_a_machine_fails_once: Observe, Stopped;
    a_kill_fails_once: Kill, Forced;
    a_removal_of_a_machine_fails_once: Delete, Twice;
    a_connection_to_an_agent_fails_once: Channel, Twice;
    a_read_of_a_journal_fails_once: ReadJournal, Stopped;
    a_removal_of_a_journal_fails_once: DeleteJournal, Stopped;
    the_making_of_a_disk_fails_once: CreateDisk, Stopped;
    a_look_at_a_disk_fails_once: HasDisk, Twice;
    a_removal_of_a_disk_fails_once: DeleteDisk, Stopped;
}

#[tokio::test]
async fn a_crash_of_the_machine_is_told_with_its_reason() {
    let world = World::new().await;
    let id = world.run("print a ; sleep").await;
    until("a line", || async { !world.log(&id).await.is_empty() }).await;
    world.sim.crash_machine(&id);
    let exit = world.exit(&id).await;
    assert_eq!(exit.code, 137);
    let error = exit.error.unwrap();
    assert!(error.contains("the simulated hypervisor crashed"), "{error}");
    assert_eq!(world.log(&id).await, ["a"]);
    world.start(&id).await.unwrap();
    until_running(&world, &id).await;
}

#[tokio::test]
async fn a_crash_during_boot_fails_the_start_with_its_reason() {
    let world = World::new().await;
    world.sim.hold_boot(true);
    let id = world.create("sleep").await;
    let (engine, session, text) = (world.engine.clone(), world.session.clone(), id.to_string());
    let start = tokio::spawn(async move { engine.start_container(&session, &text).await });
    until("a machine", || async { !world.sim.running().is_empty() }).await;
    world.sim.crash_machine(&id);
    let error = within("start", start).await.unwrap().unwrap_err();
    let EngineError::StartFailed { code: 128, message } = error else { panic!("{error:?}") };
    assert!(message.contains("the simulated hypervisor crashed"), "{message}");
}

#[tokio::test]
async fn what_a_start_cannot_get_past_is_told_with_its_cause() {
    let world = World::new().await;
    let id = world.create("sleep").await;
    for verb in [Verb::CreateDisk, Verb::Start] {
        world.sim.fail_next(verb, "no space for it");
        let error = world.start(&id).await.unwrap_err();
        let EngineError::StartFailed { code: 128, message } = &error else { panic!("{error:?}") };
        assert!(message.contains("no space for it"), "{message}");
        let Status::Exited { exit, .. } = world.container(&id).await.status else { panic!("not exited") };
        assert_eq!(exit.error.as_ref(), Some(message));
    }
    world.start(&id).await.unwrap();
}

async fn silent() -> (World, bulkhead_model::ContainerId) {
    let world = World::new().await;
    let id = world.run("sleep").await;
    world.sim.silence_agent(&id);
    (world, id)
}

#[tokio::test]
async fn a_clone_that_says_nothing_is_replaced_by_a_machine_that_boots() {
    let world = World::new().await;
    let id = world.create("sleep").await;
    // As long as there is this machine.
    world.sim.silence_agent(&id);
    world.start(&id).await.unwrap();
    let machine = world.sim.back_end().machines.observe(&id).await.unwrap().unwrap();
    assert_eq!(machine.boot, bulkhead_model::Boot::Cold);
    assert!(matches!(world.container(&id).await.status, Status::Running { .. }));
}

#[tokio::test]
async fn a_silent_agent_does_not_outlive_the_deadline_of_a_stop() {
    for timeout in [0, 1] {
        let (world, id) = silent().await;
        let begun = Instant::now();
        world.stop(&id, Some(timeout)).await.unwrap();
        let (took, deadline) = (begun.elapsed(), Duration::from_secs(timeout.unsigned_abs()));
        assert!(
            took + Duration::from_millis(10) > deadline && took < deadline + Duration::from_secs(2),
            "{took:?}"
        );
        assert_eq!(world.exit(&id).await.code, 137);
    }
}

#[tokio::test]
async fn a_silent_agent_cannot_hold_a_kill_up() {
    let (world, id) = silent().await;
    within("kill", world.engine.kill(&world.session, id.as_str(), Signal::KILL)).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 137);
}

#[tokio::test]
async fn a_silent_agent_cannot_hold_a_kill_up_after_a_restart_either() {
    let (mut world, id) = silent().await;
    world.restart().await;
    within("kill", world.engine.kill(&world.session, id.as_str(), Signal::KILL)).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 137);
}

#[tokio::test]
async fn a_silent_agent_cannot_hold_a_stop_up_after_a_restart_either() {
    let (mut world, id) = silent().await;
    world.restart().await;
    world.stop(&id, Some(1)).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 137);
}

#[tokio::test]
async fn a_silent_agent_cannot_hold_a_removal_up() {
    let (world, id) = silent().await;
    world.remove(&id, true).await.unwrap();
    assert!(world.nothing_left());
}

#[tokio::test]
async fn a_signal_that_a_silent_agent_does_not_take_is_told() {
    let (world, id) = silent().await;
    let error =
        within("kill", world.engine.kill(&world.session, id.as_str(), Signal::TERM)).await.unwrap_err();
    assert!(error.to_string().contains("did not answer"), "{error}");
    assert!(matches!(world.container(&id).await.status, Status::Running { .. }));
    // It is greeted again and again from here on; that must not hold up what needs no agent.
    within("kill", world.engine.kill(&world.session, id.as_str(), Signal::KILL)).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 137);
}
