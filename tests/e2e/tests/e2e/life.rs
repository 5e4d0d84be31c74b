//! Restart, restart policies, pause and update, on machines that really stop and boot.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::wait_for;

use crate::harness::Case;
use crate::world::{World, has, same};

pub const CASES: &[Case] = &[
    ("life::restart_keeps_the_disk", restart),
    ("life::a_restart_policy_starts_it_again", restart_policy),
    ("life::a_paused_one_stands_still_and_knows_the_time_after", pause),
    ("life::an_update_changes_the_quota_of_what_runs", update),
    ("life::memory_comes_to_what_runs_and_goes", update_memory),
];

/// For a boot under emulation on a busy machine.
const BOOT: Duration = Duration::from_secs(60);

fn restart(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let script = "echo boot >> /boots; cat /boots; trap '' TERM; while true; do sleep 0.1; done";
    docker.ok(&["run", "--detach", "--name", "again", &world.busybox(), "sh", "-c", script])?;
    wait_for("the first run writes", BOOT, || {
        docker.ok(&["logs", "again"]).ok().filter(|logs| !logs.is_empty())
    })?;
    // Killed at the deadline, and nothing that it wrote is lost.
    docker.ok(&["restart", "--time", "0", "again"])?;
    same(
        docker.ok(&["inspect", "--format", "{{.State.Status}} {{.RestartCount}}", "again"])?,
        "running 0".to_owned(),
    )?;
    wait_for("the second run writes", BOOT, || {
        docker.ok(&["logs", "again"]).ok().filter(|logs| logs.lines().count() == 3)
    })?;
    docker.ok(&["rm", "--force", "again"]).map(drop)
}

fn restart_policy(world: &mut World) -> Result<()> {
    let script = "echo run; if [ -e /once ]; then exit 0; fi; touch /once; exit 3";
    world.dev.ok(&[
        "run",
        "--detach",
        "--name",
        "tries",
        "--restart",
        "on-failure:3",
        &world.busybox(),
        "sh",
        "-c",
        script,
    ])?;
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";
    wait_for("the second run is over", BOOT, || {
        world.dev.ok(&["inspect", "--format", format, "tries"]).ok().filter(|state| state == "exited 0 1")
    })?;
    same(world.dev.ok(&["logs", "tries"])?, "run\nrun".to_owned())?;
    world.dev.ok(&["rm", "tries"]).map(drop)
}

fn pause(world: &mut World) -> Result<()> {
    let script = "n=0; while true; do n=$((n+1)); echo $n $(date +%s); sleep 0.2; done";
    world.dev.ok(&["run", "--detach", "--name", "still", &world.busybox(), "sh", "-c", script])?;
    let last = |world: &World| -> Result<(u64, i64)> {
        let line = world.dev.ok(&["logs", "--tail", "1", "still"])?;
        let (count, seconds) = line.split_once(' ').context("no line yet")?;
        Ok((count.parse()?, seconds.parse()?))
    };
    wait_for("it counts", BOOT, || last(world).ok().filter(|(count, _)| *count > 2))?;
    world.dev.ok(&["pause", "still"])?;
    let paused = last(world)?;
    has(&world.dev.ok(&["ps", "--format", "{{.Names}} {{.Status}}"])?, "(Paused)")?;
    has(&world.dev.fails(&["exec", "still", "true"])?, "is paused, unpause the container before exec")?;
    // The next server finds it as it was left.
    world.server.kill_9()?;
    world.server.restart()?;
    same(world.dev.ok(&["inspect", "--format", "{{.State.Status}}", "still"])?, "paused".to_owned())?;
    same(last(world)?, paused)?;
    // Its machine goes on for its files and processes, and nothing in it does.
    has(&world.dev.ok(&["top", "still"])?, script)?;
    let folder = tempfile::TempDir::new()?;
    let copy = folder.path().join("copy").display().to_string();
    world.dev.ok(&["cp", "still:/etc/passwd", &copy])?;
    world.dev.ok(&["cp", &copy, "still:/copied"])?;
    same(last(world)?, paused)?;
    same(world.dev.ok(&["inspect", "--format", "{{.State.Status}}", "still"])?, "paused".to_owned())?;
    world.dev.ok(&["unpause", "still"])?;
    same(
        world.dev.ok(&["exec", "still", "cat", "/copied"])?,
        world.dev.ok(&["exec", "still", "cat", "/etc/passwd"])?,
    )?;
    let after = wait_for("it goes on counting", BOOT, || {
        last(world).ok().filter(|(count, _)| *count > paused.0 + 10)
    })?;
    let behind = unix_now() - after.1;
    ensure!((-2..=3).contains(&behind), "the guest's clock is {behind} s behind");
    world.dev.ok(&["pause", "still"])?;
    world.dev.ok(&["kill", "still"])?;
    same(world.dev.ok(&["wait", "still"])?, "137".to_owned())?;
    world.dev.ok(&["rm", "still"]).map(drop)
}

fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The counter in a loop runs slower by far after the update.
fn update(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    docker.ok(&["run", "--detach", "--name", "slower", &world.busybox(), "sleep", "600"])?;
    let burn = || -> Result<f64> {
        let script = "s=$(cut -d' ' -f1 /proc/uptime); i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; \
                      e=$(cut -d' ' -f1 /proc/uptime); echo $s $e";
        let said = docker.ok(&["exec", "slower", "sh", "-c", script])?;
        let (start, end) = said.split_once(' ').context("two times")?;
        Ok(end.parse::<f64>()? - start.parse::<f64>()?)
    };
    let before = burn()?;
    docker.ok(&["update", "--cpus", "0.1", "slower"])?;
    let after = burn()?;
    ensure!(after > 3.0 * before, "it took {before} s before and {after} s after");
    docker.ok(&["update", "--pids-limit", "4", "slower"])?;
    let forks =
        docker.fails(&["exec", "slower", "sh", "-c", "sleep 9 & sleep 9 & sleep 9 & sleep 9 & wait"])?;
    has(&forks, "can't fork")?;
    docker.ok(&["rm", "--force", "slower"]).map(drop)
}

/// More than its machine was started with, then less, and not less than what is in use.
fn update_memory(world: &mut World) -> Result<()> {
    let run = ["run", "--detach", "--name", "larger", "--memory", "256m", "--tmpfs", "/big:size=900m"];
    world.dev.ok(&[&run[..], &[&world.busybox(), "sleep", "600"]].concat())?;
    world.dev.ok(&["update", "--memory", "900m", "larger"])?;
    let limit = |world: &World| -> Result<String> {
        let drawn = world.dev.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "larger"])?;
        Ok(drawn.split_once(" / ").context("a limit")?.1.to_owned())
    };
    let mib: f64 = limit(world)?.trim_end_matches("MiB").parse()?;
    ensure!((800.0..=900.0).contains(&mib), "it may have {mib} MiB");
    world.dev.ok(&[
        "exec",
        "larger",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/big/file",
        "bs=1M",
        "count=500",
    ])?;
    world.server.kill_9()?;
    world.server.restart()?;
    has(
        &world.dev.fails(&["update", "-m", "300m", "larger"])?,
        "unable to set memory limit to 314572800 (current",
    )?;
    same(
        world.dev.ok(&["inspect", "--format", "{{.HostConfig.Memory}}", "larger"])?,
        "943718400".to_owned(),
    )?;
    world.dev.ok(&["exec", "larger", "busybox", "rm", "/big/file"])?;
    world.dev.ok(&["update", "--memory", "300m", "larger"])?;
    same(limit(world)?, "300MiB".to_owned())?;
    // What the machine has already comes back at once.
    world.dev.ok(&["update", "--memory", "600m", "larger"])?;
    same(limit(world)?, "600MiB".to_owned())?;
    world.dev.ok(&["rm", "--force", "larger"]).map(drop)
}
