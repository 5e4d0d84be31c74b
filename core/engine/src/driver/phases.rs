//! What the start of a container's last run was made of, and how long each part of it took.

use crate::Happening;
use crate::observe::Observer;
use bulkhead_guest_protocol::message::Took;
use bulkhead_model::lifecycle::Act;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// One act of a start, until the next one began; of the one that the guest answers, what that took in the guest stands apart.
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
    in_guest: Took,
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

    /// What the act that goes on took in the guest. It is the guest's word: what cannot be is passed over.
    pub(super) fn guest_took(&mut self, took: Took) {
        self.in_guest = took;
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
        let Some((name, since)) = self.current.take() else { return };
        let took = since.elapsed();
        let Took { network_us, disks_us, process_us } = std::mem::take(&mut self.in_guest);
        let parts = [("guest-network", network_us), ("guest-disks", disks_us), ("guest-process", process_us)]
            .map(|(name, us)| Phase { name, took: Duration::from_micros(us.into()) });
        let beside = took.checked_sub(parts.iter().map(|part| part.took).sum());
        self.over.push(Phase { name, took: beside.unwrap_or(took) });
        if beside.is_some_and(|beside| beside < took) {
            self.over.extend(parts);
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
        // What the guest took stands apart, if it can be true.
        for (disks_us, expect) in [
            (7000, vec![phase("start-process", 90), phase("guest-network", 3), phase("guest-disks", 7)]),
            (200_000, vec![phase("start-process", 100)]),
        ] {
            stopwatch.begins(&Act::BeginRun);
            stopwatch.begins(&Act::StartProcess);
            tokio::time::advance(Duration::from_millis(100)).await;
            stopwatch.guest_took(Took { network_us: 3000, disks_us, process_us: 0 });
            stopwatch.ends(&last, &observer);
            assert_eq!(last.phases()[1..=expect.len()], expect);
        }
        // One that failed half-way leaves nothing to the next.
        stopwatch.begins(&Act::BeginRun);
        stopwatch.begins(&Act::CreateDisk);
        stopwatch.begins(&Act::BeginRun);
        stopwatch.ends(&last, &observer);
        assert_eq!(last.phases(), [phase("begin-run", 0)]);
    }
}
