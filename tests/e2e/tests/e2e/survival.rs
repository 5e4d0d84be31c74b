//! `kill -9` of the server: machines go on, and nothing is lost or doubled.

use std::time::Duration;

use anyhow::{Result, ensure};
use bulkhead_test_support::wait_for;

use crate::harness::Case;
use crate::world::{World, same};

pub const CASES: &[Case] = &[
    ("survival::kill_9_while_a_container_writes", kill_9_while_a_container_writes),
    ("survival::an_exit_while_no_server_runs", an_exit_while_no_server_runs),
    ("survival::a_graceful_stop_leaves_machines", a_graceful_stop),
    ("survival::a_second_server_is_refused", a_second_server),
];

fn kill_9_while_a_container_writes(world: &mut World) -> Result<()> {
    let script = "n=0; while [ $n -lt 100 ]; do n=$((n+1)); echo line $n; usleep 200000; done; exit 9";
    world.dev.ok(&["run", "--detach", "--name", "writer", &world.busybox(), "sh", "-c", script])?;
    let last = |world: &World| -> Result<u32> {
        let logs = world.dev.ok(&["logs", "writer"])?;
        Ok(logs.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).max().unwrap_or(0))
    };
    wait_for("it writes", Duration::from_secs(30), || last(world).ok().filter(|&number| number >= 3))?;
    let machines = world.machine_processes()?;
    world.server.kill_9()?;
    ensure!(machines.iter().all(runs), "not all of {machines:?} go on");
    world.server.restart()?;
    let after = last(world)?;
    ensure!(after > 0 && after < 100, "the container ended too early or is not known: line {after}");
    same(world.dev.ok(&["inspect", "--format", "{{.State.Running}}", "writer"])?, "true".to_owned())?;
    same(world.machine_processes()?, machines)?;
    // A second time, in the middle of a wait.
    let mut waiting = world.dev.command(&["wait", "writer"]).stdout(std::process::Stdio::null()).spawn()?;
    world.server.kill_9()?;
    waiting.wait()?;
    world.server.restart()?;
    same(world.dev.ok(&["wait", "writer"])?, "9".to_owned())?;
    let expected: Vec<String> = (1..=100).map(|number| format!("line {number}")).collect();
    let logs = world.dev.ok(&["logs", "writer"])?;
    let found: Vec<&str> = logs.lines().collect();
    ensure!(found == expected, "lines are lost or doubled: {} lines: {logs}", found.len());
    same(
        world.dev.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "writer"])?,
        "exited 9".to_owned(),
    )?;
    world.dev.ok(&["rm", "writer"]).map(drop)
}

/// One that has ended and was not collected has no folder any more.
fn runs(pid: &u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}/cwd")).exists()
}

fn an_exit_while_no_server_runs(world: &mut World) -> Result<()> {
    world.dev.ok(&[
        "run",
        "--detach",
        "--name",
        "alone",
        &world.busybox(),
        "sh",
        "-c",
        "sleep 3; echo last words; exit 4",
    ])?;
    let pid = world.machine_process("alone")?;
    world.server.kill_9()?;
    wait_for("the machine ends by itself", Duration::from_secs(60), || (!runs(&pid)).then_some(()))?;
    world.server.restart()?;
    same(world.dev.ok(&["wait", "alone"])?, "4".to_owned())?;
    same(world.dev.ok(&["logs", "alone"])?, "last words".to_owned())?;
    world.dev.ok(&["rm", "alone"]).map(drop)
}

fn a_graceful_stop(world: &mut World) -> Result<()> {
    world.dev.ok(&["run", "--detach", "--name", "stays", &world.busybox(), "sleep", "600"])?;
    let machines = world.machine_processes()?;
    let status = world.server.terminate()?;
    ensure!(status.success(), "the server ended with {status}");
    ensure!(machines.iter().all(runs), "not all of {machines:?} go on");
    world.server.restart()?;
    same(world.machine_processes()?, machines)?;
    same(world.dev.ok(&["inspect", "--format", "{{.State.Running}}", "stays"])?, "true".to_owned())?;
    world.dev.ok(&["rm", "--force", "stays"]).map(drop)
}

fn a_second_server(world: &mut World) -> Result<()> {
    let config = world.server.config_file();
    let refused = world.server.bulkhead(&["serve", "--config", &config.to_string_lossy()])?;
    let words = refused.failed()?;
    ensure!(
        words.contains("already") || words.contains("another server") || words.contains("in use"),
        "{words}"
    );
    world.dev.ok(&["ps"]).map(drop)
}
