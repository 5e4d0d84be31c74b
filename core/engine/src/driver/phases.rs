//! What the start of a container's last run was made of, and how long each part of it took.

use crate::Happening;
use crate::observe::Observer;
use bulkhead_model::lifecycle::Act;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// One act of a start, until the next one began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// As the log has it.
    pub name: &'static str,
    pub took: Duration,
}

/// Of the last start that got its process to run; nothing of those before this server came.
#[derive(Debug, Default)]
pub(crate) struct LastStart(Mutex<Vec<Phase>>);

impl LastStart {
    pub(crate) fn phases(&self) -> Vec<Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, phases: Vec<Phase>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = phases;
    }
}

/// The start that goes on, if one does.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    over: Vec<Phase>,
    current: Option<(&'static str, Instant)>,
}

impl Stopwatch {
    /// An act that is tried again and again, a greeting for example, is one phase.
    pub(super) fn begins(&mut self, act: &Act) {
        match self.current {
            _ if *act == Act::BeginRun => self.over.clear(),
            None => return,
            Some((name, _)) if name == act.name() => return,
            Some(_) => self.lap(),
        }
        self.current = Some((act.name(), Instant::now()));
    }

    /// The process runs, and that is on record.
    pub(super) fn ends(&mut self, last: &LastStart, observer: &Observer) {
        if self.current.is_none() {
            return;
        }
        self.lap();
        for phase in &self.over {
            observer.tell(Happening::Phase(*phase));
            tracing::debug!(phase = phase.name, took_us = phase.took.as_micros(), "phase of a start");
        }
        let took: Duration = self.over.iter().map(|phase| phase.took).sum();
        tracing::info!(took_ms = took.as_millis(), "started");
        last.set(std::mem::take(&mut self.over));
    }

    fn lap(&mut self) {
        if let Some((name, since)) = self.current.take() {
            self.over.push(Phase { name, took: since.elapsed() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_is_told_in_phases() {
        let (mut stopwatch, last) = (Stopwatch::default(), LastStart::default());
        let observer = Observer::new(|_| {});
        // What comes before a start, or after one, is none of it.
        stopwatch.begins(&Act::Greet);
        stopwatch.ends(&last, &observer);
        assert!(last.phases().is_empty());
        for (act, ms) in [(Act::BeginRun, 1), (Act::Greet, 250), (Act::Greet, 50), (Act::StartProcess, 100)] {
            stopwatch.begins(&act);
            tokio::time::advance(Duration::from_millis(ms)).await;
        }
        stopwatch.ends(&last, &observer);
        let phase = |name, ms| Phase { name, took: Duration::from_millis(ms) };
        let whole = [phase("begin-run", 1), phase("greet", 300), phase("start-process", 100)];
        assert_eq!(last.phases(), whole);
        stopwatch.begins(&Act::Kill);
        stopwatch.ends(&last, &observer);
        assert_eq!(last.phases(), whole);
        // One that failed half-way leaves nothing to the next.
        stopwatch.begins(&Act::BeginRun);
        stopwatch.begins(&Act::CreateDisk);
        stopwatch.begins(&Act::BeginRun);
        stopwatch.ends(&last, &observer);
        assert_eq!(last.phases(), [phase("begin-run", 0)]);
    }
}
