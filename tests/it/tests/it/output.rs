//! Logs and attached output.

use crate::world::{World, ask, counted, text, until, until_running, whole_log, within};
use bulkhead_engine::{EngineError, Log, LogLine, LogQuery, Output, OutputStream, WaitFor};
use bulkhead_machine::Journals as _;
use bulkhead_model::{ContainerId, VchSettings};
use chrono::TimeDelta;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};

const MIB: u64 = 1 << 20;
const FLOOD: u64 = 5_000_000;

type Attached = BoxStream<'static, Result<Output, EngineError>>;

async fn small_log() -> World {
    World::with("dev", VchSettings { log_bytes: MIB, ..VchSettings::default() }).await
}

async fn attach(world: &World, id: &ContainerId, replay: bool, stream: bool) -> Attached {
    world.engine.attach(&world.session, id.as_str(), true, true, replay, stream).await.unwrap()
}

async fn everything(attached: Attached) -> Vec<u8> {
    let pieces = attached.map(|piece| piece.unwrap().data.to_vec());
    within("attached output", pieces.concat()).await
}

/// Until the guest may write no more.
async fn until_full(world: &World, id: &ContainerId) {
    until("the log is full", || async {
        let size = world.sim.extent(id).await.unwrap();
        size.end - size.start > 2 * MIB - 16 * 1024
    })
    .await;
}

#[tokio::test]
async fn both_streams_are_kept_and_told_apart() {
    let world = World::new().await;
    let id = world.run("print one ; eprint two ; print three").await;
    world.exit(&id).await;
    assert_eq!(world.log(&id).await, ["one", "two", "three"]);
    let only = |stdout| LogQuery { stdout, stderr: !stdout, ..LogQuery::default() };
    let out = world.log_lines(&id, only(true)).await;
    assert_eq!(out.iter().map(text).collect::<Vec<_>>(), ["one", "three"]);
    let err = world.log_lines(&id, only(false)).await;
    assert_eq!(err.iter().map(text).collect::<Vec<_>>(), ["two"]);
    assert!(err.iter().all(|line| line.stream == OutputStream::Stderr));
}

#[tokio::test]
async fn tail_gives_the_last_lines() {
    let world = World::new().await;
    let id = world.run("count 20").await;
    world.exit(&id).await;
    let tail = |count| LogQuery { tail: Some(count), ..whole_log() };
    let last: Vec<_> = world.log_lines(&id, tail(3)).await.iter().map(text).collect();
    assert_eq!(last, ["line 18", "line 19", "line 20"]);
    assert!(world.log_lines(&id, tail(0)).await.is_empty());
    assert_eq!(world.log_lines(&id, tail(1000)).await.len(), 20);
}

#[tokio::test]
async fn since_and_until_cut_the_log_at_both_ends() {
    let world = World::new().await;
    let id = world.run("count 5").await;
    world.exit(&id).await;
    let all = world.log_lines(&id, whole_log()).await;
    let (second, fourth) = (all[1].at, all[3].at);
    let between = LogQuery { since: Some(second), until: Some(fourth), ..whole_log() };
    let expect: Vec<_> = all.iter().filter(|line| line.at >= second && line.at <= fourth).map(text).collect();
    let got: Vec<_> = world.log_lines(&id, between).await.iter().map(text).collect();
    assert_eq!(got, expect);
    assert!(got.len() >= 3);
    let tail = LogQuery { until: Some(fourth), tail: Some(1), ..whole_log() };
    assert_eq!(world.log_lines(&id, tail).await.len(), 1);
    let later = LogQuery { since: Some(all[4].at + TimeDelta::seconds(1)), ..whole_log() };
    assert!(world.log_lines(&id, later).await.is_empty());
}

/// The lines of a log one by one.
fn each(log: Log) -> BoxStream<'static, Result<LogLine, EngineError>> {
    log.lines.map_ok(|lines| stream::iter(lines.into_iter().map(Ok))).try_flatten().boxed()
}

#[tokio::test]
async fn following_ends_when_the_container_does() {
    let world = World::new().await;
    let id = world.run("count 5 ; sleep").await;
    let all = LogQuery { follow: true, ..whole_log() };
    let mut log = each(world.engine.logs(&world.session, id.as_str(), all).await.unwrap());
    for line in counted(5) {
        assert_eq!(text(&within("a line", log.next()).await.unwrap().unwrap()), line);
    }
    let tail = LogQuery { follow: true, tail: Some(2), ..whole_log() };
    let mut last = each(world.engine.logs(&world.session, id.as_str(), tail).await.unwrap());
    assert_eq!(text(&within("a line", last.next()).await.unwrap().unwrap()), "line 4");
    assert_eq!(text(&within("a line", last.next()).await.unwrap().unwrap()), "line 5");
    world.stop(&id, None).await.unwrap();
    assert!(within("the end", log.next()).await.is_none());
    assert!(within("the end", last.next()).await.is_none());
}

#[tokio::test]
async fn following_by_tail_loses_and_doubles_nothing() {
    let world = World::new().await;
    let id = world.run("count 3000 ; exit 0").await;
    let tail = LogQuery { follow: true, tail: Some(100_000), ..whole_log() };
    let lines: Vec<_> = world.log_lines(&id, tail).await.iter().map(text).collect();
    assert_eq!(lines, counted(3000));
}

#[tokio::test]
async fn the_last_line_needs_no_newline() {
    let world = small_log().await;
    // The last line of a flood of this size is cut.
    let id = world.run("flood 250").await;
    world.exit(&id).await;
    let lines = world.log_lines(&id, whole_log()).await;
    assert_eq!(lines.iter().map(|line| line.data.len()).collect::<Vec<_>>(), [100, 100, 50]);
}

#[tokio::test]
async fn output_attached_before_the_start_has_every_byte_though_the_log_is_small() {
    let world = small_log().await;
    let id = world.create(&format!("flood {FLOOD}")).await;
    let attached = attach(&world, &id, false, true).await;
    let reading = tokio::spawn(everything(attached));
    world.start(&id).await.unwrap();
    let output = within("the reader", reading).await.unwrap();
    assert_eq!(output.len() as u64, FLOOD);
    assert!(output.chunks(100).all(|line| line.starts_with(b"xxx") && line.ends_with(b"\n")));
    assert_eq!(world.exit(&id).await.code, 0);
}

#[tokio::test]
async fn a_slow_reader_holds_the_process_and_not_the_log() {
    let world = small_log().await;
    let id = world.create(&format!("flood {FLOOD}")).await;
    let mut attached = attach(&world, &id, false, true).await;
    world.start(&id).await.unwrap();
    // Nobody reads: the process is held where the log is full.
    until_full(&world, &id).await;
    let held = world.sim.extent(&id).await.unwrap();
    assert!(held.end - held.start <= 2 * MIB, "{held:?}");
    let mut bytes = 0;
    while let Some(piece) = within("a piece", attached.next()).await {
        bytes += piece.unwrap().data.len() as u64;
        let size = world.sim.extent(&id).await.unwrap();
        assert!(size.end - size.start <= 2 * MIB, "{size:?}");
    }
    assert_eq!(bytes, FLOOD);
}

#[tokio::test]
async fn the_log_stays_small_when_nobody_reads() {
    let world = small_log().await;
    let id = world.run(&format!("flood {FLOOD}")).await;
    world.exit(&id).await;
    let size = world.sim.extent(&id).await.unwrap();
    assert!(size.end > FLOOD);
    assert!(size.end - size.start <= MIB + MIB / 4, "{size:?}");
    let lines = world.log_lines(&id, whole_log()).await;
    assert!(lines.len() as u64 > MIB / 2 / 100, "{} lines", lines.len());
}

#[tokio::test]
async fn a_flood_goes_on_after_a_restart_of_the_server_that_met_it_at_its_limit() {
    let mut world = small_log().await;
    let id = world.create(&format!("flood {FLOOD}")).await;
    let attached = attach(&world, &id, false, true).await;
    world.start(&id).await.unwrap();
    until_full(&world, &id).await;
    world.restart().await;
    drop(attached);
    assert_eq!(world.exit(&id).await.code, 0);
    assert!(world.sim.extent(&id).await.unwrap().end > FLOOD);
}

#[tokio::test]
async fn attached_output_ends_at_the_exit_and_replay_begins_at_the_beginning() {
    let world = World::new().await;
    let id = world.run("count 3 ; sleep").await;
    until_running(&world, &id).await;
    until("three lines", || async { world.log(&id).await.len() == 3 }).await;
    let fresh = attach(&world, &id, false, true).await;
    let replayed = attach(&world, &id, true, true).await;
    let past = attach(&world, &id, true, false).await;
    assert_eq!(everything(past).await, b"line 1\nline 2\nline 3\n");
    world.stop(&id, None).await.unwrap();
    assert_eq!(everything(fresh).await, b"");
    assert_eq!(everything(replayed).await, b"line 1\nline 2\nline 3\n");
}

#[tokio::test]
async fn an_attached_reader_ends_when_the_container_is_removed_without_a_run() {
    let world = World::new().await;
    let id = world.create("print x").await;
    let attached = attach(&world, &id, false, true).await;
    world.remove(&id, false).await.unwrap();
    assert_eq!(everything(attached).await, b"");
}

#[tokio::test]
async fn an_attached_reader_sees_one_run_only() {
    let world = World::new().await;
    let id = world.create("print x").await;
    for _ in 0..2 {
        let attached = attach(&world, &id, false, true).await;
        let exit = world.engine.wait(&world.session, id.as_str(), WaitFor::NextExit).await.unwrap();
        world.start(&id).await.unwrap();
        within("exit", exit.done()).await.unwrap();
        assert_eq!(everything(attached).await, b"x\n");
    }
}

#[tokio::test]
async fn output_of_a_start_that_failed_is_empty_and_ends() {
    let world = World::new().await;
    let asked = bulkhead_model::ContainerAsk { cmd: Some(vec!["nosuch".into()]), ..ask("") };
    let id = world.create_as(None, asked).await.unwrap().id;
    let attached = attach(&world, &id, false, true).await;
    world.start(&id).await.unwrap_err();
    assert_eq!(everything(attached).await, b"");
}
