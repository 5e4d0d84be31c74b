//! Whether a container is well: what is asked of it, and what its answers make of its state.

use crate::container::Container;
use crate::lifecycle::Status;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Probes that are told about.
pub const PROBES_KEPT: usize = 5;
/// Of a probe's output; what is more is cut off, and marked so.
pub const OUTPUT_BYTES_MAX: usize = 4096;
/// Code of a probe that could not be run, or took too long.
pub const CODE_NO_ANSWER: i32 = -1;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
const NANOS_MIN: i64 = 1_000_000;

/// A check as it was asked for, in an image or by a client: what is empty or zero was not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthAsk {
    /// `["NONE"]`, `["CMD", word…]`, `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    pub interval_ns: i64,
    pub timeout_ns: i64,
    pub start_period_ns: i64,
    pub start_interval_ns: i64,
    pub retries: i64,
}

/// A check as it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What was decided, as it is shown.
    pub ask: HealthAsk,
    pub command: Vec<String>,
}

impl HealthAsk {
    /// Each part that was not said is the image's.
    pub fn over(&self, image: &HealthAsk) -> HealthAsk {
        let number = |own: i64, other: i64| if own == 0 { other } else { own };
        HealthAsk {
            test: if self.test.is_empty() { image.test.clone() } else { self.test.clone() },
            interval_ns: number(self.interval_ns, image.interval_ns),
            timeout_ns: number(self.timeout_ns, image.timeout_ns),
            start_period_ns: number(self.start_period_ns, image.start_period_ns),
            start_interval_ns: number(self.start_interval_ns, image.start_interval_ns),
            retries: number(self.retries, image.retries),
        }
    }

    /// What is wrong with it, in Docker's words.
    pub fn fault(&self) -> Option<String> {
        let kind = self.test.first().map_or("NONE", String::as_str);
        if !matches!((kind, self.test.len()), ("NONE", _) | ("CMD", 2..) | ("CMD-SHELL", 2)) {
            let kind: String = kind.chars().take(80).collect();
            return Some(match kind.as_str() {
                "CMD" | "CMD-SHELL" => format!("the health check {kind} needs a command"),
                _ => format!("Unknown healthcheck type '{kind}' (expected 'CMD')"),
            });
        }
        let times = [
            ("Interval", self.interval_ns),
            ("Timeout", self.timeout_ns),
            ("StartPeriod", self.start_period_ns),
            ("StartInterval", self.start_interval_ns),
        ];
        let short = times.into_iter().find(|(_, ns)| *ns != 0 && *ns < NANOS_MIN);
        match short {
            Some((name, _)) => Some(format!("{name} in Healthcheck cannot be less than 1ms")),
            None if self.retries < 0 => Some("Retries in Healthcheck cannot be negative".into()),
            None => None,
        }
    }

    /// `None`: there is nothing to ask. `shell` takes a line; none: `/bin/sh -c`.
    pub fn check(self, shell: &[String]) -> Option<HealthCheck> {
        let command = match self.test.split_first()? {
            (kind, words) if kind == "CMD" => words.to_vec(),
            (kind, [line]) if kind == "CMD-SHELL" && shell.is_empty() => {
                vec!["/bin/sh".into(), "-c".into(), line.clone()]
            }
            (kind, [line]) if kind == "CMD-SHELL" => [shell, std::slice::from_ref(line)].concat(),
            _ => return None,
        };
        Some(HealthCheck { ask: self, command })
    }
}

fn or(ns: i64, default: Duration) -> Duration {
    u64::try_from(ns).ok().filter(|ns| *ns > 0).map_or(default, Duration::from_nanos)
}

impl HealthCheck {
    pub fn timeout(&self) -> Duration {
        or(self.ask.timeout_ns, TIMEOUT)
    }

    fn start_period(&self) -> TimeDelta {
        TimeDelta::nanoseconds(self.ask.start_period_ns.max(0))
    }

    fn retries(&self) -> u32 {
        u32::try_from(self.ask.retries).ok().filter(|count| *count > 0).unwrap_or(RETRIES)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub code: i32,
    pub output: String,
}

/// How a run is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    pub failing_streak: u32,
    /// The newest last.
    pub probes: VecDeque<Probe>,
    /// Of its process.
    started_at: DateTime<Utc>,
}

/// What was learnt of a container, and in which of its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHealth {
    pub run: u32,
    pub health: Health,
}

/// How a container is doing. `None`: nobody asks, or it never ran.
pub fn of(container: &Container) -> Option<Health> {
    container.spec.health.as_ref()?;
    let of_this_run = container.health.as_ref().filter(|known| known.run == container.status.run());
    let known = of_this_run.map(|known| known.health.clone());
    match &container.status {
        Status::Created => None,
        Status::Starting { .. } => container.health.as_ref().map(|last| last.health.clone().unasked()),
        Status::Running { started_at, paused, .. } => {
            let health = known.unwrap_or_else(|| Health::new(*started_at));
            Some(if *paused { health.unasked() } else { health })
        }
        Status::Exited { exit, .. } => known.or(exit.started_at.map(Health::new)).map(Health::unasked),
    }
}

impl Health {
    /// What is not asked is not well, until the next good answer: nobody is told of that.
    pub fn break_off(&mut self) {
        self.status = HealthStatus::Unhealthy;
    }

    fn unasked(mut self) -> Self {
        self.break_off();
        self
    }

    /// Of a run that has just begun.
    pub fn new(started_at: DateTime<Utc>) -> Self {
        Self { status: HealthStatus::Starting, failing_streak: 0, probes: VecDeque::new(), started_at }
    }

    /// How long to wait until the next probe.
    pub fn pause(&self, check: &HealthCheck, now: DateTime<Utc>) -> Duration {
        let begins = self.status == HealthStatus::Starting && now - self.started_at < check.start_period();
        let (ns, default) = match begins {
            true => (check.ask.start_interval_ns, START_INTERVAL),
            false => (check.ask.interval_ns, INTERVAL),
        };
        or(ns, default)
    }

    /// Takes an answer; whether the status changed.
    pub fn take(&mut self, check: &HealthCheck, probe: Probe) -> bool {
        let before = self.status;
        let forgiven = self.status == HealthStatus::Starting
            && probe.started_at - self.started_at < check.start_period();
        if probe.code == 0 {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if !forgiven {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries() {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.probes.push_back(probe);
        while self.probes.len() > PROBES_KEPT {
            self.probes.pop_front();
        }
        self.status != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(test: &[&str]) -> HealthAsk {
        HealthAsk { test: test.iter().map(|word| (*word).to_owned()).collect(), ..HealthAsk::default() }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn probe(seconds: i64, code: i32) -> Probe {
        Probe { started_at: at(seconds), ended_at: at(seconds), code, output: String::new() }
    }

    #[test]
    fn what_is_not_said_is_the_image_s() {
        let image = HealthAsk { retries: 5, interval_ns: 7_000_000, ..ask(&["CMD", "true"]) };
        let own = HealthAsk { interval_ns: 9_000_000, ..HealthAsk::default() };
        let merged = own.over(&image);
        assert_eq!((merged.retries, merged.interval_ns), (5, 9_000_000));
        assert_eq!(merged.check(&[]).unwrap().command, ["true"]);
        assert_eq!(ask(&["NONE"]).over(&image).check(&[]), None);
        assert_eq!(ask(&["CMD-SHELL", "a b"]).check(&[]).unwrap().command, ["/bin/sh", "-c", "a b"]);
        let shell = ["/bin/ash".to_owned(), "-ec".to_owned()];
        assert_eq!(ask(&["CMD-SHELL", "a b"]).check(&shell).unwrap().command, ["/bin/ash", "-ec", "a b"]);
        assert_eq!(ask(&["CMD", "a b"]).check(&shell).unwrap().command, ["a b"]);
        assert_eq!(HealthAsk::default().check(&[]), None);
    }

    #[test]
    fn faults_have_dockers_words() {
        let fault = |ask: HealthAsk| ask.fault().unwrap_or_default();
        assert_eq!(fault(ask(&["CMD", "x"])), "");
        assert_eq!(fault(ask(&["CMD"])), "the health check CMD needs a command");
        assert_eq!(fault(ask(&["RUN", "x"])), "Unknown healthcheck type 'RUN' (expected 'CMD')");
        let short = HealthAsk { timeout_ns: 999_999, ..HealthAsk::default() };
        assert_eq!(fault(short), "Timeout in Healthcheck cannot be less than 1ms");
        let negative = HealthAsk { retries: -1, ..HealthAsk::default() };
        assert_eq!(fault(negative), "Retries in Healthcheck cannot be negative");
    }

    #[test]
    fn a_row_of_failures_makes_unhealthy_and_one_success_healthy() {
        let check = HealthAsk { retries: 2, ..ask(&["CMD", "x"]) }.check(&[]).unwrap();
        let mut health = Health::new(at(0));
        assert!(!health.take(&check, probe(1, 1)));
        assert!(health.take(&check, probe(2, CODE_NO_ANSWER)));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Unhealthy, 2));
        assert!(!health.take(&check, probe(3, 1)));
        assert!(health.take(&check, probe(4, 0)));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 0));
        assert!(!health.take(&check, probe(5, 1)));
        assert_eq!(health.status, HealthStatus::Healthy);
        for second in 6..20 {
            health.take(&check, probe(second, 0));
        }
        assert_eq!(health.probes.len(), PROBES_KEPT);
        assert_eq!(health.probes[4], probe(19, 0));
    }

    #[test]
    fn a_start_is_given_time() {
        let second = 1_000_000_000;
        let asked = HealthAsk { retries: 1, start_period_ns: 10 * second, ..ask(&["CMD", "x"]) };
        let check = asked.check(&[]).unwrap();
        let mut health = Health::new(at(0));
        assert_eq!(health.pause(&check, at(9)), Duration::from_secs(5));
        assert_eq!(health.pause(&check, at(10)), Duration::from_secs(30));
        assert!(!health.take(&check, probe(9, 1)));
        assert_eq!(health.failing_streak, 0);
        assert!(health.take(&check, probe(10, 1)));
        // Once it was well, it is given none.
        health.take(&check, probe(1, 0));
        assert!(health.take(&check, probe(2, 1)));
        assert_eq!(health.pause(&check, at(2)), Duration::from_secs(30));
    }
}
