//! What is measured: each thing at both engines in turn, so that whatever else the machine does hits both.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::client::{Client, Ran};
use super::events::{self, Events};
use super::figures::{Row, Unit};
use super::pulls::Pullable;
use super::{acts, figures};
use crate::layout::Layout;
use crate::registry::Registry;
use crate::say::Step;

/// For what is done when nothing else is asked.
const PREPARES_WITHIN: Duration = Duration::from_secs(20);
/// Bytes through a stream of `exec`, in MiB.
const STREAM_MIB: u64 = 64;
/// Of which so many are kept in the container, to be sent out again and again.
const NOISE_MIB: u64 = 16;
/// Bytes through `docker run`, in MiB.
const ATTACHED_MIB: u64 = 100;
/// Bytes of a log, in MiB: below what a VCH keeps by default, and what an engine keeps so that all of it is.
const LOG_MIB: u64 = 8;
const LOG_KEPT: &str = "max-size=64m";
/// A log's line: 100 characters and its end.
const LINE: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";
/// In which processes beside its own are started.
const RESIDENT: &str = "bench-resident";

/// Which of a row's numbers are an engine's.
pub type Of = fn(&mut Row) -> &mut Vec<f64>;

/// Both endpoints, and what is run there.
#[derive(Debug)]
pub struct Bench<'a> {
    pub bulkhead: &'a Client,
    pub dockerd: &'a Client,
    pub image: &'a str,
    pub pullable: &'a Pullable,
    /// To make things in.
    pub folder: &'a Path,
    /// Both pull from it.
    pub registry: &'a Registry,
    /// Of Bulkhead.
    pub layout: &'a Layout,
    /// Where they keep everything, in the order of [`Bench::both`].
    pub data: [&'a Path; 2],
    pub runs: usize,
}

/// Ids of the containers that were timed at Bulkhead, beside the rows: its log knows more about them.
#[derive(Debug)]
pub struct RunRows {
    pub rows: Vec<Row>,
    pub ids: Vec<String>,
}

impl Bench<'_> {
    /// `docker run --rm IMAGE true`, as a whole and in phases.
    pub fn run_true(&self) -> Result<RunRows> {
        let step = Step::start(format!("docker run --rm {} true", self.image));
        let names = ["docker run --rm, whole"].into_iter().chain(events::PHASES);
        let mut rows: Vec<Row> = names.map(|name| row(name, Unit::Milliseconds)).collect();
        let mut ids = Vec::new();
        // An image that was started before, some time ago: what an engine prepares for the next starts is there.
        for (client, _) in self.both() {
            client.run(&["run", "--rm", self.image, "true"])?;
            client.run(&["run", "--rm", self.image, "true"])?;
        }
        thread::sleep(PREPARES_WITHIN);
        // The first one at each engine only warms caches.
        for turn in 0..=self.runs {
            for (client, of) in self.both() {
                let (ran, told) = self.one_run(client, turn)?;
                let phases = told.phases(ran.began_ns, ran.ended_ns)?;
                if turn == 0 {
                    continue;
                }
                let phases = phases.into_iter().map(|ns| ns as f64 / 1e6);
                for (row, ms) in rows.iter_mut().zip([ran.ms()].into_iter().chain(phases)) {
                    of(row).push(ms);
                }
                if std::ptr::eq(client, self.bulkhead) {
                    ids.push(told.container_id()?.to_owned());
                }
            }
        }
        step.done(&medians(&rows));
        Ok(RunRows { rows, ids })
    }

    fn one_run(&self, client: &Client, turn: usize) -> Result<(Ran, Events)> {
        let name = format!("bench-run-{turn}");
        let ran = client.run(&["run", "--rm", "--name", &name, self.image, "true"])?;
        let told = told_of(client, &name, &ran)?;
        Ok((ran, told))
    }

    /// What is done in a container that runs already.
    pub fn in_a_running_container(&self) -> Result<Vec<Row>> {
        for (client, _) in self.both() {
            let words = ["run", "--detach", "--network", "none", "--name", RESIDENT, self.image];
            client.run(&[words.as_slice(), &["sleep", "100000"]].concat())?;
            // In memory, so that no disk takes part.
            let keep = ["exec", "--interactive", RESIDENT, "sh", "-c", "cat >/dev/shm/noise"];
            client.run_with_input(&keep, NOISE_MIB << 20)?;
        }
        let script = format!("for part in $(seq {}); do cat /dev/shm/noise; done", STREAM_MIB / NOISE_MIB);
        let exec = self.times("docker exec CONTAINER true", |client| {
            Ok(client.run(&["exec", RESIDENT, "true"])?.ms())
        })?;
        let stdin = self.rates(&format!("docker exec -i, {STREAM_MIB} MiB of input"), |client| {
            let words = ["exec", "--interactive", RESIDENT, "sh", "-c", "cat >/dev/null"];
            let ran = client.run_with_input(&words, STREAM_MIB << 20)?;
            Ok(rate(STREAM_MIB, ran.took.as_secs_f64()))
        })?;
        let stdout = self.rates(&format!("docker exec, {STREAM_MIB} MiB of output"), |client| {
            let ran = client.run(&["exec", RESIDENT, "sh", "-c", &script])?;
            all_came(client, &ran, STREAM_MIB)?;
            Ok(rate(STREAM_MIB, ran.took.as_secs_f64()))
        })?;
        for (client, _) in self.both() {
            client.run(&["rm", "--force", RESIDENT])?;
        }
        Ok(vec![exec, stdin, stdout])
    }

    /// A container that writes much, and its log read afterwards.
    pub fn logs(&self) -> Result<Vec<Row>> {
        let script = format!("dd if=/dev/zero bs=65536 count={}", ATTACHED_MIB << 4);
        let attached = self.rates(&format!("docker run --rm, {ATTACHED_MIB} MiB of output"), |client| {
            let ran = client.run(&["run", "--rm", "--network", "none", self.image, "sh", "-c", &script])?;
            all_came(client, &ran, ATTACHED_MIB)?;
            Ok(rate(ATTACHED_MIB, ran.took.as_secs_f64()))
        })?;
        let mut written = row(&format!("{LOG_MIB} MiB written by a process to its log"), Unit::MibPerSecond);
        let name = "bench-log";
        let script = format!("yes {LINE} | head -c {}", LOG_MIB << 20);
        for (client, of) in self.both() {
            let words =
                ["run", "--detach", "--network", "none", "--log-opt", LOG_KEPT, "--name", name, self.image];
            let mut ran = client.run(&[words.as_slice(), &["sh", "-c", &script]].concat())?;
            ran.ended_ns = client.run(&["wait", name])?.ended_ns;
            let ns = told_of(client, name, &ran)?.between("start", "die")?;
            of(&mut written).push(rate(LOG_MIB, ns as f64 / 1e9));
        }
        let read = self.rates(&format!("docker logs, {LOG_MIB} MiB"), |client| {
            let read = client.run(&["logs", name])?;
            all_came(client, &read, LOG_MIB)?;
            Ok(rate(LOG_MIB, read.took.as_secs_f64()))
        })?;
        for (client, _) in self.both() {
            client.run(&["rm", "--force", name])?;
        }
        Ok(vec![attached, written, read])
    }

    pub fn times(&self, what: &str, once: impl Fn(&Client) -> Result<f64>) -> Result<Row> {
        self.each(row(what, Unit::Milliseconds), once)
    }

    fn rates(&self, what: &str, once: impl Fn(&Client) -> Result<f64>) -> Result<Row> {
        self.each(row(what, Unit::MibPerSecond), once)
    }

    pub(super) fn each(&self, mut row: Row, once: impl Fn(&Client) -> Result<f64>) -> Result<Row> {
        let step = Step::start(row.what.clone());
        for turn in 0..=self.runs {
            for (client, of) in self.both() {
                let number = once(client)?;
                if turn > 0 {
                    of(&mut row).push(number);
                }
            }
        }
        step.done(&medians(std::slice::from_ref(&row)));
        Ok(row)
    }

    pub fn both(&self) -> [(&Client, Of); 2] {
        [(self.bulkhead, |row| &mut row.bulkhead), (self.dockerd, |row| &mut row.dockerd)]
    }
}

/// What the server's log says about the timed containers: by act, the milliseconds in each run.
pub fn acts(log: &str, ids: &[String]) -> Result<Vec<(String, Vec<f64>)>> {
    let runs: Vec<_> = ids.iter().map(|id| acts::of_container(log, id)).collect::<Result<_>>()?;
    Ok(acts::gather(&runs))
}

/// The events of a container between the start and the end of a command.
fn told_of(client: &Client, container: &str, ran: &Ran) -> Result<Events> {
    let (since, until) = (seconds(ran.began_ns), seconds(ran.ended_ns));
    let filter = format!("container={container}");
    let words = ["events", "--since", &since, "--until", &until, "--filter", "type=container"];
    let words = [words.as_slice(), &["--filter", &filter, "--format", "{{json .}}"]].concat();
    Events::parse(&client.run(&words)?.output).with_context(|| format!("events of {}", client.engine))
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn all_came(client: &Client, ran: &Ran, mib: u64) -> Result<()> {
    if ran.output_bytes != mib << 20 {
        bail!("{} gave {} bytes of {}: not worth timing", client.engine, ran.output_bytes, mib << 20);
    }
    Ok(())
}

pub(super) fn rate(mib: u64, seconds: f64) -> f64 {
    mib as f64 / seconds
}

pub fn row(what: &str, unit: Unit) -> Row {
    Row { what: what.to_owned(), unit, bulkhead: Vec::new(), dockerd: Vec::new() }
}

pub fn medians(rows: &[Row]) -> String {
    let told = |row: &Row| {
        let (ours, theirs) = row.medians()?;
        Some(format!("{} {}, dockerd {}", figures::number(ours), row.unit.word(), figures::number(theirs)))
    };
    rows.first().and_then(told).unwrap_or_else(|| "nothing was measured".to_owned())
}
