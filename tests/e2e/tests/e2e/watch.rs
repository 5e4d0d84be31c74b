//! What is told about a container that runs, by the kernel of its own machine; and its log, as it was asked for.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::wait_for;

use crate::harness::Case;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("watch::processes_and_what_they_take", processes_and_what_they_take),
    ("watch::a_small_log_with_details", a_small_log_with_details),
    ("watch::health_is_asked_inside", health_is_asked_inside),
];

fn processes_and_what_they_take(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let script = "head -c 3000000 /dev/urandom > /data; sync; while :; do :; done & exec sleep 4321";
    docker.ok(&["run", "--detach", "--name", "busy", &world.busybox(), "sh", "-c", script])?;

    // Numbers are gathered before each is asked for its name, as by ps(1): the first may have its new name already
    // while the second is not in the list yet.
    let named = |line: &str| !line.contains("-c") && line.contains("sleep 4321");
    let both = |listed: &String| listed.lines().count() == 3 && listed.lines().any(named);
    let listed = wait_for("both processes", Duration::from_secs(60), || {
        docker.ok(&["top", "busy"]).ok().filter(both)
    })?;
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let rows: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
    let [titles, first, second] = rows.as_slice() else { anyhow::bail!("expected two processes:\n{listed}") };
    same(*titles, &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"][..])?;
    // Numbers as they are in the container, and nothing of the agent.
    ensure!(first.starts_with(&["root", "1", "0"]) && first.ends_with(&["sleep", "4321"]), "{listed}");
    ensure!(second.get(2) == Some(&"1") && second.contains(&"-c"), "{listed}");
    // Busybox executes itself, and gives itself the name a moment later.
    let chosen = wait_for("its name", Duration::from_secs(60), || {
        docker.ok(&["top", "busy", "-o", "pid,rss,nlwp,comm"]).ok().filter(|chosen| chosen.contains("sleep"))
    })?;
    let line: Vec<&str> = chosen.lines().nth(1).context("no process")?.split_whitespace().collect();
    let [pid, rss, threads, name] = line.as_slice() else { anyhow::bail!("{chosen}") };
    same((*pid, *threads, *name), ("1", "1", "sleep"))?;
    ensure!(rss.parse::<u64>()? > 0, "{chosen}");

    let form = "{{.Name}} {{.CPUPerc}} {{.MemPerc}} {{.PIDs}} {{.MemUsage}} {{.BlockIO}} {{.NetIO}}";
    let drawn = docker.ok(&["stats", "--no-stream", "--format", form, "busy"])?;
    let cells: Vec<&str> = drawn.split(' ').collect();
    let percent = |at: usize| -> Result<f64> {
        Ok(cells.get(at).context("a cell is missing")?.trim_end_matches('%').parse()?)
    };
    // One process that never rests, in a machine that has one CPU: whatever the host's other work leaves of it.
    ensure!((80.0..=110.0).contains(&percent(1)?), "{drawn}");
    ensure!((0.01..60.0).contains(&percent(2)?), "{drawn}");
    same(cells.get(3), Some(&"2"))?;
    ensure!(!drawn.contains("/ 0B"), "a limit, what was written and what was sent are known: {drawn}");
    docker.ok(&["rm", "--force", "busy"]).map(drop)
}

fn a_small_log_with_details(world: &mut World) -> Result<()> {
    let options = ["--log-opt", "max-size=300k", "--log-opt", "env=ZONE", "--env", "ZONE=a b"];
    let output =
        world.busybox_run(&[&["--name", "small"], &options[..]].concat(), &["seq", "1", "200000"])?;
    code(&output, 0)?;
    same(output.stdout.lines().count(), 200_000_usize)?;
    let logs = world.dev.run(&["logs", "small"])?.stdout;
    ensure!((200_000..600_000).contains(&logs.len()), "{} bytes are kept", logs.len());
    ensure!(logs.ends_with("199999\n200000\n"), "the newest is kept");
    same(world.dev.ok(&["logs", "--details", "--tail", "1", "small"])?, "ZONE=a+b 200000".to_owned())?;
    let config = world.dev.ok(&["inspect", "--format", "{{json .HostConfig.LogConfig}}", "small"])?;
    has(&config, "\"max-size\":\"300k\"")?;
    world.dev.ok(&["rm", "small"]).map(drop)
}

fn health_is_asked_inside(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let check = "echo asked as $(id -u); test -e /tmp/well || sleep 600";
    let options = [
        "--user=9",
        "--health-cmd",
        check,
        "--health-interval=200ms",
        "--health-timeout=3s",
        "--health-retries=1",
        "--health-start-period=1s",
        "--health-start-interval=200ms",
    ];
    let image = world.busybox();
    docker.ok(
        &[&["run", "--detach", "--name", "well"], &options[..], &[&image, "sleep", "1000"][..]].concat()
    )?;
    let status = || docker.ok(&["inspect", "--format", "{{.State.Health.Status}}", "well"]).ok();
    let becomes = |wanted: &str| {
        wait_for(wanted, Duration::from_secs(90), || status().filter(|status| status == wanted)).map(drop)
    };
    becomes("unhealthy")?;
    let log = docker.ok(&["inspect", "--format", "{{json .State.Health.Log}}", "well"])?;
    has(&log, "Health check exceeded timeout (3s): asked as 9")?;
    has(&log, "\"ExitCode\":-1")?;
    docker.ok(&["exec", "--user=0", "well", "touch", "/tmp/well"])?;
    becomes("healthy")?;
    has(
        &docker.ok(&["ps", "--filter", "health=healthy", "--format", "{{.Names}} {{.Status}}"])?,
        "(healthy)",
    )?;
    // Who took too long was ended.
    let listed = docker.ok(&["top", "well", "-o", "pid,args"])?;
    ensure!(!listed.contains("asked as"), "{listed}");
    docker.ok(&["rm", "--force", "well"]).map(drop)
}
