//! The server stops or dies at any point, and the next one goes on.

use crate::journey::{Life, User};
use crate::world::{World, ask, counted, operator, start_engine, until, until_running, within};
use bulkhead_engine::{EngineError, WaitFor};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::{ContainerAsk, VchSettings};
use bulkhead_test_support::postgres::Postgres;
use chrono::Utc;
use futures_util::{FutureExt as _, StreamExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Where in a call of the back end the server is cut off.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Nothing of the call has happened, and its caller goes no further.
    Before,
    /// The call is done, and its caller goes no further than the next time it waits.
    After,
}

/// Stops the engine at the `nth` call of the back end from now on; the first answer tells when.
fn cut(world: &World, nth: u64, how: Cut) -> Arc<Notify> {
    let (engine, calls) = (world.engine.clone(), AtomicU64::new(0));
    let done = Arc::new(Notify::new());
    let told = done.clone();
    world.sim.on_call(move |_, _| {
        if calls.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            // The first poll of it cancels; the rest of it is done at the restart.
            let _ = engine.shutdown().now_or_never();
            told.notify_one();
            if let Cut::Before = how {
                std::panic::resume_unwind(Box::new("cut off"));
            }
        }
    });
    done
}

/// The server is cut off at every call of the back end in turn, until a whole life passes without.
async fn cut_everywhere(life: Life, how: Cut) {
    let mut world = World::new().await;
    for nth in 1.. {
        let user = User::new(&world, life).await;
        let cut = cut(&world, nth, how);
        let mut lives = tokio::spawn({
            let user = user.clone();
            async move { user.carry_on().await }
        });
        let whole = tokio::select! {
            biased;
            () = cut.notified() => false,
            lived = &mut lives => {
                lived.unwrap().unwrap();
                true
            }
        };
        lives.abort();
        world.sim.clear_hook();
        if whole {
            user.check_the_end(&world).await;
            assert!(nth > 20, "only {nth} calls were cut");
            return;
        }
        world.restart().await;
        user.at(&world).carry_on().await.unwrap_or_else(|error| panic!("{how:?} call {nth}: {error}"));
        user.check_the_end(&world).await;
    }
}

#[tokio::test]
async fn a_container_is_stopped_and_removed_though_the_server_dies_before_any_call() {
    cut_everywhere(Life::Stopped, Cut::Before).await;
}

#[tokio::test]
async fn a_container_is_stopped_and_removed_though_the_server_dies_after_any_call() {
    cut_everywhere(Life::Stopped, Cut::After).await;
}

#[tokio::test]
async fn a_container_runs_twice_though_the_server_dies_before_any_call() {
    cut_everywhere(Life::Twice, Cut::Before).await;
}

#[tokio::test]
async fn a_container_runs_twice_though_the_server_dies_after_any_call() {
    cut_everywhere(Life::Twice, Cut::After).await;
}

#[tokio::test]
async fn a_container_that_ran_on_without_a_server_is_found_again() {
    let mut world = World::new().await;
    let id = world.run("count 3 ; sleep").await;
    let before = world.container(&id).await.status;
    within("shutdown", world.engine.shutdown()).await;
    assert_eq!(world.sim.running(), std::slice::from_ref(&id));
    world.next_engine().await;
    assert_eq!(world.container(&id).await.status, before);
    assert_eq!(world.log(&id).await, counted(3));
    world.stop(&id, None).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 143);
    assert_eq!(world.story(&id).await, ["create", "start", "kill", "die", "stop"]);
}

#[tokio::test]
async fn an_exit_that_no_server_saw_is_recorded_by_the_next() {
    let mut world = World::new().await;
    world.sim.hold_boot(true);
    let id = world
        .create_as(None, ContainerAsk { auto_remove: false, ..ask("print a ; exit 9") })
        .await
        .unwrap()
        .id;
    let (engine, session, text) = (world.engine.clone(), world.session.clone(), id.to_string());
    let start = tokio::spawn(async move { engine.start_container(&session, &text).await });
    until("a machine", || async { !world.sim.running().is_empty() }).await;
    world.restart().await;
    assert!(within("start", start).await.unwrap().is_err());
    world.sim.hold_boot(false);
    let next = world.engine.wait(&world.session, id.as_str(), WaitFor::NotRunning).await.unwrap();
    assert_eq!(within("exit", next.done()).await.unwrap().code, 9);
    assert_eq!(world.log(&id).await, ["a"]);
    assert_eq!(world.story(&id).await, ["create", "start", "die"]);
}

#[tokio::test]
async fn a_machine_that_crashed_without_a_server_is_told_by_the_next() {
    let mut world = World::new().await;
    let id = world.run("print a ; sleep").await;
    within("shutdown", world.engine.shutdown()).await;
    world.sim.crash_machine(&id);
    world.next_engine().await;
    let exit = world.exit(&id).await;
    assert_eq!(exit.code, 137);
    assert!(exit.error.unwrap().contains("the simulated hypervisor crashed"));
}

#[tokio::test]
async fn whoever_waits_is_told_that_the_server_stops() {
    let world = World::new().await;
    let id = world.run("sleep").await;
    let waiting = world.engine.wait(&world.session, id.as_str(), WaitFor::NotRunning).await.unwrap();
    let attached = world.engine.attach(&world.session, id.as_str(), true, true, false, true).await.unwrap();
    let (engine, session, text) = (world.engine.clone(), world.session.clone(), id.to_string());
    let stop = tokio::spawn(async move { engine.stop(&session, &text, None, Some(-1)).await });
    within("shutdown", world.engine.shutdown()).await;
    // The stop may have been faster.
    let told = |done: Result<(), EngineError>| {
        assert!(matches!(done, Ok(()) | Err(EngineError::Stopping)), "{done:?}")
    };
    told(within("wait", waiting.done()).await.map(drop));
    told(within("stop", stop).await.unwrap().map(drop));
    let pieces: Vec<_> = within("attach", attached.collect()).await;
    assert!(pieces.len() <= 1 && pieces.iter().all(Result::is_err), "{pieces:?}");
}

#[tokio::test]
async fn a_server_of_an_old_epoch_changes_nothing_any_more() {
    let mut world = World::new().await;
    let id = world.run("sleep").await;
    let old = world.next_engine().await;
    let error = old.create(&world.session, None, ask("sleep"), crate::world::no_view()).await.unwrap_err();
    assert!(matches!(error, EngineError::Fenced), "{error:?}");
    world.stop(&id, None).await.unwrap();
    assert_eq!(world.exit(&id).await.code, 143);
    // Both heard of the end; one recorded it.
    within("shutdown", old.shutdown()).await;
    assert_eq!(world.story(&id).await, ["create", "start", "kill", "die", "stop"]);
    world.remove(&id, false).await.unwrap();
    assert!(world.nothing_left());
}

#[tokio::test]
async fn machines_that_belong_to_no_container_are_cleared_away_with_their_disks() {
    let mut world = World::new().await;
    world.run("sleep").await;
    let ended = world.run("exit 0").await;
    world.exit(&ended).await;
    until("its machine is cleared away", || async { world.sim.leftovers().0 == 1 }).await;
    within("shutdown", world.engine.shutdown()).await;
    // The database was lost.
    let empty = Postgres::start().await.unwrap();
    let store = empty.store().await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let engine = start_engine(&store, &world.sim, world.server, work.path()).await.unwrap();
    assert!(world.sim.running().is_empty());
    let (machines, _, disks, _) = world.sim.leftovers();
    assert_eq!((machines, disks), (0, 1), "but for the one whose machine was gone already");
    world.engine = engine;
}

#[tokio::test]
async fn the_machine_of_another_server_is_left_alone() {
    let world = World::new().await;
    let id = world.run("sleep").await;
    let store = world.store.clone();
    let other = bulkhead_model::ServerId(uuid::Uuid::new_v4());
    let work = tempfile::tempdir().unwrap();
    let engine = start_engine(&store, &world.sim, other, work.path()).await.unwrap();
    assert_eq!(world.sim.running(), std::slice::from_ref(&id));
    within("shutdown", engine.shutdown()).await;
    until_running(&world, &id).await;
}

#[tokio::test]
async fn the_removal_of_a_vch_is_finished_by_the_next_server() {
    for how in [Cut::Before, Cut::After] {
        let mut world = World::new().await;
        for nth in 1.. {
            let name = format!("v{nth}");
            let session = world.add_vch(&name, "dev", VchSettings::default()).await;
            for script in ["sleep", "exit 0"] {
                let created =
                    world.engine.create(&session, None, ask(script), crate::world::no_view()).await.unwrap();
                world.engine.start_container(&session, created.id.as_str()).await.unwrap();
            }
            let cut = cut(&world, nth, how);
            let engine = world.engine.clone();
            let mut removal = tokio::spawn(async move { engine.vch_remove(&operator(), &name, true).await });
            let whole = tokio::select! {
                biased;
                () = cut.notified() => false,
                removed = &mut removal => {
                    removed.unwrap().unwrap();
                    true
                }
            };
            removal.abort();
            world.sim.clear_hook();
            if !whole {
                world.restart().await;
                let marked = world
                    .engine
                    .all_vchs()
                    .await
                    .unwrap()
                    .iter()
                    .any(|vch| vch.id == session.vch && vch.deleting);
                // Cut before anything was asked for: the user asks again.
                if !marked && world.store.vch(session.vch).await.is_ok() {
                    let name = format!("v{nth}");
                    within("removal", world.engine.vch_remove(&operator(), &name, true)).await.unwrap();
                }
            }
            until("the VCH is gone", || async { world.store.vch(session.vch).await.is_err() }).await;
            assert_eq!(world.sim.leftovers(), (0, 0, 0, 2), "call {nth}");
            if whole {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_stop_goes_on_after_a_restart_and_keeps_its_deadline() {
    let mut world = World::new().await;
    let id = world.run("ignore-term ; sleep").await;
    let deadline = Utc::now() + chrono::TimeDelta::seconds(1);
    let (engine, session, text) = (world.engine.clone(), world.session.clone(), id.to_string());
    let stop = tokio::spawn(async move { engine.stop(&session, &text, None, Some(1)).await });
    until("signalled", || async {
        matches!(world.container(&id).await.status, Status::Running { stop_signalled: true, .. })
    })
    .await;
    world.restart().await;
    assert!(within("stop", stop).await.unwrap().is_err());
    let exit = world.exit(&id).await;
    assert_eq!(exit.code, 137);
    assert!(
        exit.finished_at >= deadline && exit.finished_at < deadline + chrono::TimeDelta::seconds(2),
        "{exit:?}"
    );
}

/// As after an upgrade: what runs goes on, says what it writes and how it ends, and can be ended and started anew.
#[tokio::test]
async fn an_agent_of_another_version_is_left_alone() {
    let mut world = World::new().await;
    let id = world.run("count 2 ; sleep").await;
    let other = world.run("sleep").await;
    until("its output", || async { world.log(&id).await.len() == 2 }).await;
    for one in [&id, &other] {
        world.sim.estrange_agent(one);
    }
    world.restart().await;
    let told = "of another version than the server: this agent speaks protocol 0, not";
    let asked = async || within("top", world.engine.processes(&world.session, id.as_str())).await;
    until("it is met", || async { asked().await.is_err_and(|error| error.to_string().contains(told)) }).await;
    assert!(asked().await.unwrap_err().to_string().contains("again after a restart"));
    assert!(matches!(world.container(&id).await.status, Status::Running { run: 1, .. }));
    assert_eq!(world.log(&id).await.len(), 2);
    let kill = world.engine.kill(&world.session, other.as_str(), bulkhead_model::container::Signal::KILL);
    within("kill", kill).await.unwrap();
    assert_eq!(world.exit(&other).await.code, 137);
    within("restart", world.engine.restart(&world.session, id.as_str(), None, Some(0))).await.unwrap();
    assert!(matches!(world.container(&id).await.status, Status::Running { run: 2, .. }));
    asked().await.unwrap();
}
