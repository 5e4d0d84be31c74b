//! A container that is talked to all the while: other networks come and go, and nothing of the talk is lost.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::harness::Case;
use crate::network::soon;
use crate::world::World;

pub const CASES: &[Case] = &[("busy::networks_come_and_go_under_traffic", come_and_go)];

const ROUNDS: u32 = 20;

fn come_and_go(world: &mut World) -> Result<()> {
    let dev = &world.dev;
    // Counts for whoever asks, until it is told to stop.
    let count = "i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i; usleep 20000; done; echo end";
    let serve = format!("echo '{count}' > /tmp/count; exec busybox nc -ll -p 81 -e sh /tmp/count");
    dev.ok(&["run", "--detach", "--name", "busy", &world.busybox(), "sh", "-c", &serve])?;
    dev.ok(&["run", "--detach", "--name", "hearer", &world.image("debian:12"), "sleep", "3600"])?;
    dev.ok(&["network", "create", "extra"])?;
    let hear = "exec 3<>/dev/tcp/busy/81 && cat <&3";
    soon("a word", "1", || {
        dev.ok(&["exec", "hearer", "bash", "-c", "exec 3<>/dev/tcp/busy/81 && head -1 <&3"])
    })?;
    let heard = dev
        .command(&["exec", "hearer", "bash", "-c", hear])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let started = Instant::now();
    for _ in 0..ROUNDS {
        dev.ok(&["network", "connect", "extra", "busy"])?;
        dev.ok(&["network", "disconnect", "extra", "busy"])?;
    }
    let took = started.elapsed();
    dev.ok(&["exec", "busy", "touch", "/tmp/stop"])?;
    let output = heard.wait_with_output().context("the hearer")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let (last, numbers) = lines.split_last().context("nothing was heard")?;
    ensure!(*last == "end", "the talk was cut off after {last}");
    let whole = numbers.iter().zip(1..).all(|(line, number)| line.parse() == Ok(number));
    ensure!(whole && numbers.len() > 50, "{} lines, or not all of them: {text}", numbers.len());
    eprintln!(
        "     {} lines heard while a network came and went {ROUNDS} times, {} ms each time",
        numbers.len(),
        took.as_millis() / u128::from(ROUNDS)
    );
    dev.ok(&["rm", "--force", "busy", "hearer"])?;
    dev.ok(&["network", "rm", "extra"]).map(drop)
}
