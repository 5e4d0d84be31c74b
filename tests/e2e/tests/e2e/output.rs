//! What a container writes arrives whole, on the right stream, at every way of reading it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::wait_for;

use crate::harness::Case;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("output::streams_are_apart", streams_are_apart),
    ("output::a_lot_of_it", a_lot_of_it),
    ("output::logs_follow", logs_follow),
    ("output::logs_tail_and_times", logs_tail_and_times),
    ("output::attach_while_it_runs", attach_while_it_runs),
];

fn streams_are_apart(world: &mut World) -> Result<()> {
    let output = world.busybox_run(
        &["--name", "apart", "--network", "none"],
        &["sh", "-c", "echo out; echo err >&2; printf end"],
    )?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "out\nend")?;
    same(output.stderr.as_str(), "err\n")?;
    let logs = world.dev.run(&["logs", "apart"])?;
    same((logs.stdout.as_str(), logs.stderr.as_str()), ("out\nend", "err\n"))?;
    world.dev.ok(&["rm", "apart"]).map(drop)
}

fn a_lot_of_it(world: &mut World) -> Result<()> {
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    let output = world.busybox_run(&["--name", "lots"], &["seq", "20000"])?;
    code(&output, 0)?;
    ensure!(output.stdout == expected, "{} bytes instead of {}", output.stdout.len(), expected.len());
    let logs = world.dev.run(&["logs", "lots"])?;
    ensure!(logs.stdout == expected, "logs: {} bytes instead of {}", logs.stdout.len(), expected.len());
    world.dev.ok(&["rm", "lots"]).map(drop)
}

fn logs_follow(world: &mut World) -> Result<()> {
    let script = "for i in 1 2 3; do echo line $i; sleep 1; done";
    world.dev.ok(&["run", "--detach", "--name", "follow", &world.busybox(), "sh", "-c", script])?;
    // It ends by itself when the container does.
    let output = world.dev.run(&["logs", "--follow", "follow"])?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "line 1\nline 2\nline 3\n")?;
    world.dev.ok(&["rm", "--force", "follow"]).map(drop)
}

fn logs_tail_and_times(world: &mut World) -> Result<()> {
    code(&world.busybox_run(&["--name", "tail"], &["seq", "10"])?, 0)?;
    same(world.dev.ok(&["logs", "--tail", "2", "tail"])?, "9\n10".to_owned())?;
    let line = world.dev.ok(&["logs", "--tail", "1", "--timestamps", "tail"])?;
    let (time, text) = line.split_once(' ').context("no time")?;
    same(text, "10")?;
    ensure!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "`{time}` is no time");
    same(world.dev.ok(&["logs", "--since", "2100-01-01T00:00:00Z", "tail"])?, "".to_owned())?;
    world.dev.ok(&["rm", "tail"]).map(drop)
}

fn attach_while_it_runs(world: &mut World) -> Result<()> {
    let script =
        "n=0; while [ ! -e /tmp/stop ] && [ $n -lt 300 ]; do n=$((n+1)); echo beat $n; sleep 0.2; done";
    world.dev.ok(&["run", "--detach", "--name", "attach", &world.busybox(), "sh", "-c", script])?;
    let mut attach = world
        .dev
        .command(&["attach", "--no-stdin", "--sig-proxy=false", "attach"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(attach.stdout.take().context("no output")?).lines();
    let heard: Vec<String> = lines.take(3).collect::<std::io::Result<_>>()?;
    attach.kill()?;
    attach.wait()?;
    has(heard.first().context("nothing was heard")?, "beat ")?;
    let numbers: Vec<u32> =
        heard.iter().filter_map(|line| line.strip_prefix("beat ")?.parse().ok()).collect();
    ensure!(numbers.windows(2).all(|pair| matches!(pair, [one, next] if one + 1 == *next)), "{heard:?}");
    // Leaving the stream does not stop the container.
    let docker = &world.dev;
    wait_for("it goes on", Duration::from_secs(10), || {
        docker
            .ok(&["logs", "attach"])
            .ok()
            .filter(|logs| logs.contains(&format!("beat {}", numbers.last().map_or(0, |n| n + 2))))
    })?;
    docker.ok(&["rm", "--force", "attach"]).map(drop)
}
