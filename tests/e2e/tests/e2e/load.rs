//! Much of everything at once.

use anyhow::{Context as _, Result, anyhow, ensure};
use bulkhead_test_support::{Docker, run_with_input, wait_for};
use std::io::Read as _;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::Case;
use crate::world::{World, code, same};

pub const CASES: &[Case] = &[
    ("load::a_hundred_megabytes_of_output", a_hundred_megabytes_of_output),
    ("load::random_bytes_through_exec", random_bytes_through_exec),
    ("load::many_execs_and_readers_at_once", many_execs_and_readers_at_once),
    ("load::many_containers_at_once", many_containers_at_once),
];

const PATIENCE: Duration = Duration::from_secs(240);

/// A docker command that runs beside the test; its output is read at the end.
fn begin(docker: &Docker, args: &[&str]) -> Result<Child> {
    let mut command = docker.command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("{args:?}"))
}

/// Its output and code.
fn finish(mut child: Child) -> Result<(String, Option<i32>)> {
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text)?;
    }
    let status = wait_for("a docker command ends", PATIENCE, || child.try_wait().ok().flatten());
    if status.is_err() {
        child.kill().ok();
        child.wait().ok();
    }
    Ok((text, status?.code()))
}

fn a_hundred_megabytes_of_output(world: &mut World) -> Result<()> {
    const BYTES: usize = 100_000_000;
    let line = "0123456789abcdefghijklmnopqrstuvwxyz";
    let script = format!("yes {line} | head -c {BYTES}");
    let output = world.busybox_run(&["--rm", "--network", "none"], &["sh", "-c", &script])?;
    code(&output, 0)?;
    let expected = format!("{line}\n");
    let mut bytes = expected.bytes().cycle();
    ensure!(output.stdout.len() == BYTES, "{} bytes", output.stdout.len());
    ensure!(
        output.stdout.bytes().all(|byte| bytes.next() == Some(byte)),
        "some bytes are not those that were written"
    );
    Ok(())
}

fn random_bytes_through_exec(world: &mut World) -> Result<()> {
    let image = world.busybox();
    let dev = &world.dev;
    dev.ok(&["run", "-d", "--name", "bytes", &image, "sh", "-c", "while :; do sleep 1; done"])?;
    let mut bytes = vec![0; 3_000_000];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let sum = |bytes: &[u8]| -> Result<String> {
        let mut command = std::process::Command::new("sha256sum");
        run_with_input(&mut command, bytes, PATIENCE)?.ok()
    };
    // The sum is taken where they arrive, and once more where they come back, by the shell between two CLIs.
    let output = dev.run_with_input(&["exec", "-i", "bytes", "busybox", "sha256sum"], bytes.clone())?;
    same(output.stdout.trim(), sum(&bytes)?.trim())?;
    let script = "docker exec -i bytes cat | sha256sum";
    let mut command = dev.command(&[]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    command.env_clear();
    let output = run_with_input(&mut shell, bytes.clone(), PATIENCE)?;
    same(output.stdout.trim(), sum(&bytes)?.trim())?;
    dev.ok(&["rm", "-f", "bytes"]).map(drop)
}

fn many_execs_and_readers_at_once(world: &mut World) -> Result<()> {
    const EXECS: usize = 50;
    const READERS: usize = 20;
    // More than what pipes and sockets on the way to a reader hold.
    const LINES: usize = 200_000;
    let image = world.busybox();
    let dev = &world.dev;
    let script = format!("until [ -e /go ]; do sleep 0.2; done; seq {LINES}; echo end");
    dev.ok(&["run", "-d", "--name", "many", &image, "sh", "-c", &script])?;
    let follow = || begin(dev, &["logs", "--follow", "many"]);
    let mut slow = follow()?;
    let (enough, told) = mpsc::channel();
    let slowly = read_slowly(slow.stdout.take().context("no output")?, told);
    let readers: Vec<Child> = (1..READERS).map(|_| follow()).collect::<Result<_>>()?;
    let execs: Vec<Child> = (0..EXECS)
        .map(|number| {
            let script = format!("echo {number}; exit {}", number % 100);
            begin(dev, &["exec", "many", "sh", "-c", &script])
        })
        .collect::<Result<_>>()?;
    for (number, exec) in execs.into_iter().enumerate() {
        let (text, code) = finish(exec)?;
        same(text, format!("{number}\n"))?;
        same(code, i32::try_from(number % 100).ok())?;
    }
    dev.ok(&["exec", "many", "touch", "/go"])?;
    let expected: String = (1..=LINES).map(|line| format!("{line}\n")).chain(["end\n".to_owned()]).collect();
    for reader in readers {
        let (text, code) = finish(reader)?;
        ensure!(text == expected, "a reader got {} bytes of {}", text.len(), expected.len());
        same(code, Some(0))?;
    }
    drop(enough);
    slow.kill()?;
    slow.wait()?;
    let seen = slowly.join().map_err(|_| anyhow!("the slow reader was cut off"))?;
    ensure!(expected.as_bytes().starts_with(&seen) && !seen.is_empty(), "it saw {seen:?}");
    dev.ok(&["rm", "-f", "many"]).map(drop)
}

/// A byte a second, until that is enough; gives what it read till then.
fn read_slowly(mut from: ChildStdout, enough: Receiver<()>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while from.read_exact(&mut byte).is_ok() {
            seen.extend(byte);
            if enough.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        seen
    })
}

fn many_containers_at_once(world: &mut World) -> Result<()> {
    const CONTAINERS: usize = 20;
    let image = world.busybox();
    let dev = &world.dev;
    let started: Vec<Child> = (0..CONTAINERS)
        .map(|number| {
            let script = format!("echo {number}; exit {number}");
            begin(dev, &["run", "--rm", "--network", "none", "-m", "128m", &image, "sh", "-c", &script])
        })
        .collect::<Result<_>>()?;
    for (number, container) in started.into_iter().enumerate() {
        let (text, code) = finish(container)?;
        same(text, format!("{number}\n"))?;
        same(code, i32::try_from(number).ok())?;
    }
    Ok(())
}
