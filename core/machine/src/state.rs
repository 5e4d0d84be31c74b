//! The life of a machine, as a small pure state machine that every back end shares.
//!
//! ```text
//!   Absent ──Started──▶ Running ──Ended──▶ Ended ──Deleted──▶ Absent
//! ```
//!
//! **Invariant:** an ended machine never runs again: it is deleted, and its id may then be started anew.

use chrono::{DateTime, Utc};

/// Where a machine is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineState {
    Absent,
    Running { run: u32, since: DateTime<Utc> },
    Ended { run: u32, reason: String },
}

/// What happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEvent {
    Started { run: u32, at: DateTime<Utc> },
    Ended { reason: String },
    Deleted,
}

/// What `start` has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartStep {
    Launch,
    /// It runs already, as asked.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("run {running} of it is still running")]
    OtherRun { running: u32 },
    #[error("it ended ({reason}) and has to be deleted first")]
    NotDeleted { reason: String },
    #[error("it is running and has to be ended first")]
    StillRunning,
}

impl MachineState {
    /// Whether a start of `run` launches, or finds what it wants.
    pub fn start(&self, run: u32) -> Result<StartStep, StateError> {
        match self {
            MachineState::Absent => Ok(StartStep::Launch),
            MachineState::Running { run: running, .. } if *running == run => Ok(StartStep::Nothing),
            MachineState::Running { run: running, .. } => Err(StateError::OtherRun { running: *running }),
            MachineState::Ended { reason, .. } => Err(StateError::NotDeleted { reason: reason.clone() }),
        }
    }

    /// Whether `delete` has something to remove. A machine that runs is never deleted.
    pub fn delete(&self) -> Result<bool, StateError> {
        match self {
            MachineState::Absent => Ok(false),
            MachineState::Running { .. } => Err(StateError::StillRunning),
            MachineState::Ended { .. } => Ok(true),
        }
    }

    /// The state after `event`. What cannot happen from here changes nothing: the first reason of an end stays, and
    /// news of a machine that is gone is old news.
    #[must_use]
    pub fn after(self, event: MachineEvent) -> MachineState {
        match (self, event) {
            (MachineState::Absent, MachineEvent::Started { run, at }) => {
                MachineState::Running { run, since: at }
            }
            (MachineState::Running { run, .. }, MachineEvent::Ended { reason }) => {
                MachineState::Ended { run, reason }
            }
            (MachineState::Ended { .. }, MachineEvent::Deleted) => MachineState::Absent,
            (same @ MachineState::Absent, MachineEvent::Ended { .. } | MachineEvent::Deleted)
            | (same @ MachineState::Running { .. }, MachineEvent::Started { .. } | MachineEvent::Deleted)
            | (
                same @ MachineState::Ended { .. },
                MachineEvent::Started { .. } | MachineEvent::Ended { .. },
            ) => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn ended(reason: &str) -> MachineEvent {
        MachineEvent::Ended { reason: reason.into() }
    }

    #[test]
    fn a_life_goes_round() {
        let mut state = MachineState::Absent;
        for run in 1..3 {
            assert_eq!(state.start(run), Ok(StartStep::Launch));
            state = state.after(MachineEvent::Started { run, at: at() });
            assert_eq!(state.start(run), Ok(StartStep::Nothing));
            assert_eq!(state.delete(), Err(StateError::StillRunning));
            state = state.after(ended("guest powered off"));
            assert_eq!(
                state.start(run + 1),
                Err(StateError::NotDeleted { reason: "guest powered off".into() })
            );
            assert_eq!(state.delete(), Ok(true));
            state = state.after(MachineEvent::Deleted);
            assert_eq!(state.delete(), Ok(false));
        }
    }

    #[test]
    fn another_run_is_not_mistaken_for_this_one() {
        let running = MachineState::Running { run: 1, since: at() };
        assert_eq!(running.start(2), Err(StateError::OtherRun { running: 1 }));
    }

    #[test]
    fn the_first_reason_stays() {
        let state =
            MachineState::Running { run: 1, since: at() }.after(ended("killed")).after(ended("vanished"));
        assert_eq!(state, MachineState::Ended { run: 1, reason: "killed".into() });
    }

    #[test]
    fn old_news_changes_nothing() {
        assert_eq!(MachineState::Absent.after(ended("killed")), MachineState::Absent);
        assert_eq!(MachineState::Absent.after(MachineEvent::Deleted), MachineState::Absent);
        let running = MachineState::Running { run: 1, since: at() };
        assert_eq!(running.clone().after(MachineEvent::Deleted), running);
    }
}
