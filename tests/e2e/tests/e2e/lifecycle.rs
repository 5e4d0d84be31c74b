//! From create to removal, as docker's users know it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::wait_for;

use crate::harness::Case;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("lifecycle::create_start_wait_remove", create_start_wait_remove),
    ("lifecycle::stop_and_kill_tell_the_signal", stop_and_kill),
    ("lifecycle::a_stubborn_one_is_killed_after_the_grace", a_stubborn_one),
    ("lifecycle::started_again_it_keeps_its_disk", started_again),
    ("lifecycle::removed_by_itself", removed_by_itself),
    ("lifecycle::a_running_one_is_not_removed_without_force", not_removed_without_force),
    ("lifecycle::names_are_unique", names_are_unique),
    ("lifecycle::ps_filters", ps_filters),
    ("lifecycle::events_tell_the_story", events),
    ("lifecycle::inspect_tells_the_truth", inspect),
];

fn state(world: &World, name: &str) -> Result<String> {
    world.dev.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name])
}

fn create_start_wait_remove(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let id = docker.ok(&["create", "--name", "steps", &world.busybox(), "sh", "-c", "sleep 1; exit 5"])?;
    same(id.len(), 64)?;
    same(state(world, "steps")?, "created 0".to_owned())?;
    docker.ok(&["start", "steps"])?;
    same(docker.ok(&["wait", "steps"])?, "5".to_owned())?;
    same(state(world, "steps")?, "exited 5".to_owned())?;
    // It has ended, so the answer is there at once.
    same(docker.ok(&["wait", "steps"])?, "5".to_owned())?;
    docker.ok(&["rm", "steps"])?;
    has(&docker.fails(&["inspect", "steps"])?, "No such object")
}

fn stop_and_kill(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let wait = "trap 'exit 143' TERM; echo ready; while true; do sleep 0.1; done";
    docker.ok(&["run", "--detach", "--name", "stopped", &world.busybox(), "sh", "-c", wait])?;
    // A first process has no default for signals: before the trap is set it would not hear this one.
    wait_for("the trap is set", Duration::from_secs(30), || {
        docker.ok(&["logs", "stopped"]).ok().filter(|logs| logs.contains("ready"))
    })?;
    docker.ok(&["stop", "stopped"])?;
    same(state(world, "stopped")?, "exited 143".to_owned())?;
    docker.ok(&["run", "--detach", "--name", "killed", &world.busybox(), "sleep", "600"])?;
    docker.ok(&["kill", "killed"])?;
    same(docker.ok(&["wait", "killed"])?, "137".to_owned())?;
    has(&docker.fails(&["kill", "killed"])?, "is not running")?;
    docker.ok(&["rm", "stopped", "killed"]).map(drop)
}

fn a_stubborn_one(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let deaf = "trap '' TERM; while true; do sleep 0.1; done";
    docker.ok(&["run", "--detach", "--name", "stubborn", &world.busybox(), "sh", "-c", deaf])?;
    let started = Instant::now();
    docker.ok(&["stop", "--time", "2", "stubborn"])?;
    let took = started.elapsed();
    ensure!(took >= Duration::from_secs(2) && took < Duration::from_secs(12), "stop took {took:?}");
    same(state(world, "stubborn")?, "exited 137".to_owned())?;
    docker.ok(&["rm", "stubborn"]).map(drop)
}

fn started_again(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let script = "echo x >> /root/starts; wc -l < /root/starts";
    docker.ok(&["create", "--name", "again", &world.busybox(), "sh", "-c", script])?;
    same(docker.ok(&["start", "--attach", "again"])?, "1".to_owned())?;
    same(docker.ok(&["start", "--attach", "again"])?, "2".to_owned())?;
    same(docker.ok(&["logs", "again"])?, "1\n2".to_owned())?;
    docker.ok(&["rm", "again"]).map(drop)
}

fn removed_by_itself(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    docker.ok(&["run", "--detach", "--rm", "--name", "fleeting", &world.busybox(), "true"])?;
    wait_for("it is gone", Duration::from_secs(60), || {
        docker.ok(&["ps", "--all", "--format", "{{.Names}}"]).ok().filter(|names| !names.contains("fleeting"))
    })
    .map(drop)
}

fn not_removed_without_force(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    docker.ok(&["run", "--detach", "--name", "busy", &world.busybox(), "sleep", "600"])?;
    has(&docker.fails(&["rm", "busy"])?, "container is running")?;
    docker.ok(&["rm", "--force", "busy"])?;
    has(&docker.fails(&["rm", "busy"])?, "No such container")
}

fn names_are_unique(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    docker.ok(&["create", "--name", "only", &world.busybox(), "true"])?;
    let second = docker.run(&["create", "--name", "only", &world.busybox(), "true"])?;
    code(&second, 1)?;
    has(&second.stderr, "is already in use by container")?;
    docker.ok(&["rm", "only"]).map(drop)
}

fn ps_filters(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    docker.ok(&["create", "--name", "listed", "--label", "color=green", &world.busybox(), "true"])?;
    let names = |options: &[&str]| docker.ok(&[&["ps", "--format", "{{.Names}}"], options].concat());
    ensure!(!names(&[])?.contains("listed"), "a created container is not a running one");
    same(names(&["--all", "--filter", "label=color=green"])?, "listed".to_owned())?;
    same(names(&["--all", "--filter", "name=listed", "--filter", "status=created"])?, "listed".to_owned())?;
    same(names(&["--all", "--filter", "status=running", "--filter", "name=listed"])?, "".to_owned())?;
    docker.ok(&["rm", "listed"]).map(drop)
}

fn events(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let format = "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}";
    let mut stream = docker
        .command(&["events", "--filter", "container=told", "--filter", "type=container", "--format", format])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(stream.stdout.take().context("no output")?).lines();
    // What happened before the stream was open is not in it, so the story is asked for again below.
    docker.ok(&["run", "--rm", "--name", "told", &world.busybox(), "sh", "-c", "exit 3"]).map_or_else(
        |error| has(&error.to_string(), "exit Some(3)"),
        |_| anyhow::bail!("exit code 3 is lost"),
    )?;
    let mut heard = Vec::new();
    for line in lines {
        let line = line?;
        let last = line.starts_with("destroy");
        heard.push(line);
        if last {
            break;
        }
    }
    stream.kill()?;
    stream.wait()?;
    let story = heard.join("\n");
    for part in ["start told", "die told 3", "destroy told"] {
        has(&story, part)?;
    }
    let order: Vec<usize> = ["start", "die", "destroy"].iter().filter_map(|word| story.find(word)).collect();
    ensure!(order.is_sorted(), "{story}");
    // Whole seconds: a bound of now would leave out the second that is on, and with it a quick start.
    let later = docker.ok(&[
        "events",
        "--since",
        "10m",
        "--until=-2s",
        "--filter",
        "container=told",
        "--format",
        "{{.Action}}",
    ])?;
    has(&later, "create")
}

fn inspect(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let created = docker.run(&[
        "create",
        "--name",
        "seen",
        "--memory",
        "256m",
        "--env",
        "A=b",
        &world.busybox(),
        "true",
    ])?;
    code(&created, 0)?;
    same(created.stderr.as_str(), "")?;
    let text = docker.ok(&["inspect", "seen"])?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let one = all.get(0).context("nothing")?;
    let at = |path: &str| one.pointer(path).cloned().unwrap_or_default();
    same(at("/Name"), "/seen")?;
    same(at("/HostConfig/Memory"), 256 * 1024 * 1024)?;
    same(at("/Config/Image"), world.busybox())?;
    same(at("/State/Running"), false)?;
    has(&at("/Config/Env").to_string(), "A=b")?;
    docker.ok(&["rm", "seen"]).map(drop)
}
