//! Starts after a pause, from the kernel on, up to an answer, and many at once; and what idle containers take.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::IMAGE;
use super::client::Client;
use super::figures::{Row, Unit};
use super::measure::{Bench, medians, row};
use crate::say::Step;

/// For an engine that prepares something when nothing runs.
const PAUSE: Duration = Duration::from_secs(5);
pub const AT_ONCE: usize = 50;
/// So long the processors are watched, with nothing and with idle containers.
const WATCHED: Duration = Duration::from_secs(10);
const MEMINFO: &str = "/proc/meminfo";
const STAT: &str = "/proc/stat";
const WEB: &str = "bench-web";
const ANSWER: &str =
    "until busybox wget -q -O /dev/null http://127.0.0.1:5080/passwd 2>/dev/null; do sleep 0.01; done";

impl Bench<'_> {
    /// `docker run --rm IMAGE true` as somebody at a keyboard does it, and with machines that boot.
    pub fn other_starts(&self) -> Result<Vec<Row>> {
        let pause = format!("docker run --rm, after a pause of {} s", PAUSE.as_secs());
        let paused = self.times(&pause, |client| {
            thread::sleep(PAUSE);
            self.start(client, &[])
        })?;
        let label = ["--label", "bulkhead.boot=cold"];
        let cold = self.times("docker run --rm, its machine boots", |client| self.start(client, &label))?;
        let alone = ["--network", "none"];
        let alone = self.times("docker run --rm --network none", |client| self.start(client, &alone))?;
        let answer = self.times("docker run -d -p, until the first HTTP answer", first_answer)?;
        Ok(vec![paused, cold, alone, answer])
    }

    fn start(&self, client: &Client, options: &[&str]) -> Result<f64> {
        let words = [&["run", "--rm"], options, &[self.image, "true"]].concat();
        Ok(client.run(&words)?.ms())
    }

    /// Until the last of many that are started at once runs, and what they take of the host's memory, each.
    pub fn many(&self) -> Result<Vec<Row>> {
        let step = Step::start(format!("{AT_ONCE} containers at once"));
        let mut rows = vec![
            row(&format!("{AT_ONCE} × docker run -d at once, all run"), Unit::Milliseconds),
            row(&format!("an idle container's memory, mean of {AT_ONCE}"), Unit::Mebibytes),
            row(&format!("an idle container's processor time, mean of {AT_ONCE}"), Unit::Percent),
        ];
        for turn in 0..=self.runs.div_ceil(5) {
            for (client, of) in self.both() {
                let idle = busy_percent()?;
                let before = available_mib()?;
                let took = start_at_once(client, self.image)?;
                // What was started for a moment only is gone, and what is prepared for the next ones is there.
                thread::sleep(2 * PAUSE);
                let memory = (before - available_mib()?) / AT_ONCE as f64;
                let processor = ((busy_percent()? - idle) / AT_ONCE as f64).max(0.0);
                remove(client)?;
                thread::sleep(PAUSE);
                if turn == 0 {
                    continue;
                }
                for (row, number) in rows.iter_mut().zip([took.as_secs_f64() * 1000.0, memory, processor]) {
                    of(row).push(number);
                }
            }
        }
        step.done(&medians(&rows));
        Ok(rows)
    }
}

/// Starts [`AT_ONCE`] containers, each by a client of its own; until the last one runs.
pub fn start_at_once(client: &Client, image: &str) -> Result<Duration> {
    let began = Instant::now();
    thread::scope(|scope| {
        let start = |name: String| {
            let words = ["run", "--detach", "--name"];
            client.run(&[&words[..], &[name.as_str(), image, "sleep", "100000"]].concat()).map(drop)
        };
        let starts: Vec<_> = names().map(|name| scope.spawn(move || start(name))).collect();
        for start in starts {
            match start.join() {
                Ok(done) => done?,
                Err(_) => bail!("a start was cut off"),
            }
        }
        Ok(began.elapsed())
    })
}

/// Removes those.
pub fn remove(client: &Client) -> Result<()> {
    let names: Vec<_> = names().collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    client.run(&[&["rm", "--force"], &names[..]].concat()).map(drop)
}

fn names() -> impl Iterator<Item = String> {
    (0..AT_ONCE).map(|number| format!("bench-many-{number}"))
}

/// Of a page that a container serves at a port of the host's own address.
fn first_answer(client: &Client) -> Result<f64> {
    let began = Instant::now();
    let words = ["run", "--detach", "--name", WEB, "--publish", "127.0.0.1:5080:80", IMAGE];
    client.run(&[&words[..], &["httpd", "-f", "-h", "/etc"]].concat())?;
    client.beside(ANSWER)?;
    let took = began.elapsed();
    client.run(&["rm", "--force", WEB])?;
    Ok(took.as_secs_f64() * 1000.0)
}

/// What all processors together do for a while, in percent of one.
fn busy_percent() -> Result<f64> {
    let before = busy_ticks()?;
    thread::sleep(WATCHED);
    // A tick is the hundredth of a second (proc_stat(5)), and so a percent of each second.
    Ok((busy_ticks()? - before) as f64 / WATCHED.as_secs_f64())
}

fn busy_ticks() -> Result<u64> {
    let text = fs::read_to_string(STAT).context(STAT)?;
    let all = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no processors")?;
    let all: Vec<u64> = all.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    // The fourth and fifth are idle and waiting; the last two are counted in the first two already.
    Ok(all
        .iter()
        .take(8)
        .enumerate()
        .filter(|(place, _)| ![3, 4].contains(place))
        .map(|(_, ticks)| ticks)
        .sum())
}

fn available_mib() -> Result<f64> {
    let text = fs::read_to_string(MEMINFO).context(MEMINFO)?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    Ok(kib.and_then(|kib| kib.parse::<f64>().ok()).context("the host does not tell what memory is free")?
        / 1024.0)
}
