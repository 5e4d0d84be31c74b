//! Real images run, each container in a machine of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::Docker;
use bulkhead_test_support::wait_for;

use crate::harness::Case;
use crate::images::PYTHON_LAYERS;
use crate::world::{World, code, guest_dir, has, same};

pub const CASES: &[Case] = &[
    ("run::pulls_what_is_not_there", pulls_what_is_not_there),
    ("run::needs_the_password", needs_the_password),
    ("run::the_kernel_is_the_guests", the_kernel_is_the_guests),
    ("run::one_machine_per_container", one_machine_per_container),
    ("run::debian", debian),
    ("run::nginx", nginx),
    ("run::python_in_many_layers", python_in_many_layers),
    ("run::exit_codes", exit_codes),
    ("run::what_cannot_be_started", what_cannot_be_started),
    ("run::environment_user_and_folder", environment_user_and_folder),
    ("run::cpus_and_memory_as_asked", cpus_and_memory_as_asked),
];

fn pulls_what_is_not_there(world: &mut World) -> Result<()> {
    let docker = world.vch("fresh", "dev", "acme")?;
    let output = docker.run(&["run", "--rm", &world.busybox(), "echo", "pulled"])?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "pulled\n")?;
    has(&output.stderr, "Unable to find image")?;
    has(&output.stderr, "Pull complete")?;
    world.remove_vch("fresh")
}

fn needs_the_password(world: &mut World) -> Result<()> {
    world.vch("nologin", "dev", "acme")?;
    let stranger = world.server.dir().join("docker-stranger");
    std::fs::create_dir_all(&stranger)?;
    let docker = Docker::new(world.server.docker("nologin").host(), &stranger);
    let refused = docker.fails(&["pull", &world.busybox()])?;
    ensure!(refused.contains("denied") || refused.contains("unauthorized"), "{refused}");
    let wrong =
        docker.fails(&["login", "--username", "tester", "--password", "wrong", &world.registry.address()])?;
    ensure!(!wrong.is_empty(), "no reason for the refused login");
    world.remove_vch("nologin")
}

fn the_kernel_is_the_guests(world: &mut World) -> Result<()> {
    let description = std::fs::read_to_string(guest_dir()?.join("guest.json"))?;
    let description: serde_json::Value = serde_json::from_str(&description)?;
    let expected =
        description.get("kernel").and_then(|value| value.as_str()).context("guest.json names no kernel")?;
    let output = world.busybox_run(&["--rm"], &["uname", "-r"])?;
    code(&output, 0)?;
    same(output.stdout.trim(), expected)?;
    let boot = world.busybox_run(&["--rm"], &["cat", "/proc/sys/kernel/random/boot_id"])?;
    let host = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    ensure!(boot.stdout.trim() != host.trim(), "the container runs on the host's kernel");
    Ok(())
}

fn one_machine_per_container(world: &mut World) -> Result<()> {
    let before = world.machine_processes()?.len();
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(world.dev.ok(&["run", "--detach", &world.busybox(), "sleep", "600"])?);
    }
    same(world.machine_processes()?.len(), before + 2)?;
    for id in &ids {
        world.dev.ok(&["rm", "--force", id])?;
    }
    wait_for("the machines are gone", Duration::from_secs(20), || {
        (world.machine_processes().ok()?.len() == before).then_some(())
    })
}

fn debian(world: &mut World) -> Result<()> {
    let image = world.image("debian:12");
    let output = world.dev.run(&[
        "run",
        "--rm",
        &image,
        "bash",
        "-c",
        ". /etc/os-release; echo $ID $VERSION_ID; id -un",
    ])?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "debian 12\nroot\n")?;
    // What the package manager keeps survived the way through the layer.
    let output = world.dev.run(&["run", "--rm", &image, "dpkg", "--verify", "bash", "coreutils"])?;
    code(&output, 0)?;
    Ok(())
}

fn nginx(world: &mut World) -> Result<()> {
    let id = world.dev.ok(&["run", "--detach", "--name", "web", &world.image("nginx:1")])?;
    let docker = &world.dev;
    wait_for("nginx says that it started", Duration::from_secs(60), || {
        docker.run(&["logs", "web"]).ok().filter(|output| output.stderr.contains("start worker process"))
    })?;
    has(&docker.ok(&["ps", "--format", "{{.Names}} {{.Status}}"])?, "web Up")?;
    same(docker.ok(&["stop", "web"])?, "web".to_owned())?;
    same(
        docker.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "web"])?,
        "exited 0".to_owned(),
    )?;
    let output = docker.run(&["logs", "web"])?;
    has(&output.stderr, "gracefully shutting down")?;
    docker.ok(&["rm", &id]).map(drop)
}

fn python_in_many_layers(world: &mut World) -> Result<()> {
    let image = world.image("python:3");
    let output = world.dev.run(&["run", "--rm", &image, "layers"])?;
    code(&output, 0)?;
    let sum: usize = (1..PYTHON_LAYERS).sum();
    let expected = format!(
        "hello layers: {} parts, sum {sum}, latest {}, uid 65534, cwd /app, app layers\n",
        PYTHON_LAYERS - 1,
        PYTHON_LAYERS - 1
    );
    same(output.stdout, expected)?;
    has(&output.stderr, "this goes to stderr")?;
    let layers = world.dev.ok(&["inspect", "--format", "{{len .RootFS.Layers}}", &image])?;
    same(layers, (PYTHON_LAYERS + 1).to_string())
}

fn exit_codes(world: &mut World) -> Result<()> {
    code(&world.busybox_run(&["--rm"], &["sh", "-c", "exit 7"])?, 7)?;
    code(&world.busybox_run(&["--rm"], &["true"])?, 0)?;
    // The first process of a container is deaf to its own SIGKILL, as in Docker; under an init it is not the first.
    code(&world.busybox_run(&["--rm", "--init"], &["sh", "-c", "kill -9 $$"])?, 137)
}

fn what_cannot_be_started(world: &mut World) -> Result<()> {
    let missing = world.busybox_run(&["--name", "missing"], &["no-such-program"])?;
    code(&missing, 127)?;
    has(&missing.stderr, "no-such-program")?;
    has(&missing.stderr, "executable file not found in $PATH")?;
    same(world.dev.ok(&["inspect", "--format", "{{.State.ExitCode}}", "missing"])?, "127".to_owned())?;
    world.dev.ok(&["rm", "missing"])?;
    let not_a_program = world.busybox_run(&["--rm"], &["/etc/passwd"])?;
    code(&not_a_program, 126)?;
    has(&not_a_program.stderr, "ermission denied")
}

fn environment_user_and_folder(world: &mut World) -> Result<()> {
    let output = world.busybox_run(
        &["--rm", "--env", "GREETING=hello there", "--user", "app", "--workdir", "/tmp", "--hostname", "box"],
        &["sh", "-c", "echo $GREETING; id -u; pwd; hostname"],
    )?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "hello there\n1000\n/tmp\nbox\n")
}

fn cpus_and_memory_as_asked(world: &mut World) -> Result<()> {
    let output = world.busybox_run(
        &["--rm", "--cpus", "2", "--memory", "384m"],
        &["sh", "-c", "nproc; cat /sys/fs/cgroup/memory.max"],
    )?;
    code(&output, 0)?;
    same(output.stdout.as_str(), format!("2\n{}\n", 384 << 20).as_str())?;
    // The most that goes into machines of the smallest size.
    let output = world.busybox_run(&["--rm", "--memory", "156m"], &["cat", "/sys/fs/cgroup/memory.max"])?;
    same(output.stdout.as_str(), format!("{}\n", 156 << 20).as_str())
}
