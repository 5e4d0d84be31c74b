//! Volumes: what a process reads and writes there, and what many of them cost.

use anyhow::{Context, Result};
use serde_json::Value;

use super::client::Client;
use super::figures::{Row, Unit};
use super::measure::{Bench, medians, row};
use super::tools;
use crate::say::Step;

const VOLUME: &str = "bench-volume";
/// Rounds of fio at each engine.
const ROUNDS: usize = 3;
/// Volumes that are there together.
const MANY: usize = 500;

/// A job of fio: its name in a row, whether its reads are counted, what of them, and its words.
struct Job {
    what: &'static str,
    reads: bool,
    unit: Unit,
    words: &'static [&'static str],
}

/// One after the other, on the file that the first one writes.
const JOBS: [Job; 4] = [
    Job {
        what: "written to a volume in order and synced, 256 MiB",
        reads: false,
        unit: Unit::MibPerSecond,
        words: &["--rw=write", "--bs=1M", "--end_fsync=1"],
    },
    Job {
        what: "read from it in order, past the guest's cache",
        reads: true,
        unit: Unit::MibPerSecond,
        words: &["--rw=read", "--bs=1M", "--direct=1"],
    },
    Job {
        what: "read at random, 4 KiB, 16 at a time, past the guest's cache",
        reads: true,
        unit: Unit::PerSecond,
        words: &[
            "--rw=randread",
            "--bs=4k",
            "--direct=1",
            "--ioengine=libaio",
            "--iodepth=16",
            "--time_based",
            "--runtime=5",
        ],
    },
    Job {
        what: "written at random, 4 KiB, each synced, as a database commits",
        reads: false,
        unit: Unit::PerSecond,
        words: &["--rw=randwrite", "--bs=4k", "--fdatasync=1", "--time_based", "--runtime=5"],
    },
];

impl Bench<'_> {
    /// fio, in a container that has a volume.
    pub fn volume_io(&self) -> Result<Vec<Row>> {
        let step = Step::start("reads and writes of a volume (fio)");
        let mut rows: Vec<Row> = JOBS.iter().map(|job| row(job.what, job.unit)).collect();
        let script = script();
        for _ in 0..ROUNDS {
            for (client, of) in self.both() {
                let volume = format!("{VOLUME}:/volume");
                let words = ["run", "--rm", "--network", "none", "--volume", &volume, tools::IMAGE];
                let ran = client.run(&[&words[..], &["sh", "-c", &script]].concat())?;
                let told = ran.output.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
                let told = told.with_context(|| format!("fio at {} said: {}", client.engine, ran.output))?;
                for ((row, job), told) in rows.iter_mut().zip(&JOBS).zip(&told) {
                    of(row).push(number(job, told).with_context(|| format!("no figure in {told}"))?);
                }
                client.run(&["volume", "rm", VOLUME])?;
            }
        }
        step.done(&medians(&rows));
        Ok(rows)
    }

    /// Many volumes: each that is made, and how those that are there are found.
    pub fn many_volumes(&self) -> Result<Vec<Row>> {
        let name = |number: usize| format!("bench-many-{number:03}");
        let mut create = row(&format!("docker volume create, each of {MANY}"), Unit::Milliseconds);
        let step = Step::start(create.what.clone());
        for number in 0..MANY {
            for (client, of) in self.both() {
                of(&mut create).push(client.run(&["volume", "create", &name(number)])?.ms());
            }
        }
        step.done(&medians(std::slice::from_ref(&create)));
        let names: Vec<String> = (0..MANY).map(name).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let one = name(MANY / 2);
        let of_all = |words: [&'static str; 2]| -> Vec<&str> {
            words.into_iter().chain(all.iter().copied()).collect()
        };
        let rows = vec![
            create,
            self.times(&format!("docker volume ls, {MANY} there"), |client| {
                Ok(client.run(&["volume", "ls"])?.ms())
            })?,
            self.times("docker volume inspect, one of them", |client: &Client| {
                Ok(client.run(&["volume", "inspect", &one])?.ms())
            })?,
            self.times(&format!("docker volume inspect, all {MANY} (a request for each)"), |client| {
                Ok(client.run(&of_all(["volume", "inspect"]))?.ms())
            })?,
        ];
        for (client, _) in self.both() {
            client.run(&of_all(["volume", "rm"]))?;
        }
        Ok(rows)
    }
}

/// Runs all jobs; each tells of itself on a line.
fn script() -> String {
    let job = |job: &Job| {
        let words = job.words.join(" ");
        format!(
            "fio --name=bench --filename=/volume/file --size=256M --output-format=json {words} | tr -d '\\n'; echo"
        )
    };
    JOBS.iter().map(job).collect::<Vec<_>>().join("; ")
}

fn number(job: &Job, told: &Value) -> Option<f64> {
    let side = told.get("jobs")?.get(0)?.get(if job.reads { "read" } else { "write" })?;
    match job.unit {
        // The time of the last sync is not in fio's own rate.
        Unit::MibPerSecond => {
            let bytes = side.get("io_bytes")?.as_f64()?;
            let ms = told.get("jobs")?.get(0)?.get("job_runtime")?.as_f64()?;
            Some(bytes / f64::from(1 << 20) / (ms / 1000.0))
        }
        Unit::Microseconds | Unit::Milliseconds | Unit::Mebibytes | Unit::Percent | Unit::PerSecond => {
            side.get("iops")?.as_f64()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_what_fio_tells() {
        let told = serde_json::json!({ "jobs": [{
            "job_runtime": 2000,
            "read": { "io_bytes": 0, "iops": 0.0 },
            "write": { "io_bytes": 256 << 20, "iops": 1234.5 },
        }] });
        let [write, _, _, commits] = &JOBS;
        assert_eq!(number(write, &told), Some(128.0));
        assert_eq!(number(commits, &told), Some(1234.5));
        assert_eq!(number(write, &serde_json::json!({})), None);
        assert_eq!(script().matches("fio --name").count(), 4);
    }
}
