//! Restart policies: whether a container that ended runs again without being asked, and when.
//!
//! What they look at is part of what is desired, so it is recorded with every change of it, and a server that starts
//! anew goes on counting where the last one was.

use crate::lifecycle::{Desired, Exit, Goal, Status};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// The pause before the first restart; it doubles with each that follows soon.
const PAUSE_MIN_MS: i64 = 100;
const PAUSE_MAX_MS: i64 = 60_000;
/// A run of this length was no failure to start: the next pause is the first one again.
const LONG_RUN_S: i64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum RestartPolicy {
    #[default]
    No,
    Always,
    /// As `Always`, but for containers that a user stopped.
    UnlessStopped,
    /// After an exit code other than 0; so many times (0: without end).
    OnFailure {
        retries_max: u32,
    },
}

impl RestartPolicy {
    /// As Docker's clients spell it.
    pub fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
            RestartPolicy::OnFailure { .. } => "on-failure",
        }
    }

    pub fn retries_max(self) -> u32 {
        match self {
            RestartPolicy::OnFailure { retries_max } => retries_max,
            RestartPolicy::No | RestartPolicy::Always | RestartPolicy::UnlessStopped => 0,
        }
    }
}

/// A policy and what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    pub policy: RestartPolicy,
    /// Restarts by policy since a user started it.
    pub count: u32,
    /// Of these, the last that followed short runs without a break: each doubles the pause.
    pub quick: u32,
    /// A user stopped or signalled it since it was started.
    pub stopped: bool,
    /// Called off until a user starts it.
    pub cancelled: bool,
    /// The next run is that of a server's start, which is counted as little as a user's.
    pub revived: bool,
}

impl Restarts {
    /// As a user starts it.
    #[must_use]
    pub fn fresh(self) -> Self {
        Self { policy: self.policy, ..Self::default() }
    }

    /// After one more restart by policy, behind the run that ended so.
    #[must_use]
    pub fn after(self, exit: &Exit) -> Self {
        if self.revived {
            return self.fresh();
        }
        let quick = if was_long(exit) { 0 } else { self.quick };
        Self { count: self.count.saturating_add(1), quick: quick.saturating_add(1), ..self }
    }

    /// Whether the policy wants another run after this end. A run whose process never started is not tried again.
    pub fn wanted(&self, exit: &Exit) -> bool {
        if self.cancelled || exit.started_at.is_none() {
            return false;
        }
        match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !self.stopped,
            RestartPolicy::OnFailure { retries_max } => {
                exit.code != 0 && (retries_max == 0 || self.count < retries_max)
            }
        }
    }

    fn pause(&self, exit: &Exit) -> TimeDelta {
        let doublings = if was_long(exit) { 0 } else { self.quick.min(16) };
        TimeDelta::milliseconds((PAUSE_MIN_MS << doublings).min(PAUSE_MAX_MS))
    }
}

fn was_long(exit: &Exit) -> bool {
    exit.started_at.is_some_and(|started_at| (exit.finished_at - started_at).num_seconds() >= LONG_RUN_S)
}

/// When the policy starts the next run; `None`: it does not.
pub fn due(desired: &Desired, status: &Status) -> Option<DateTime<Utc>> {
    match (&desired.goal, status) {
        (Goal::Run, Status::Exited { run, exit }) if *run >= desired.run && desired.restarts.wanted(exit) => {
            Some(exit.finished_at + desired.restarts.pause(exit))
        }
        (Goal::Rest | Goal::Run | Goal::Stop { .. } | Goal::Gone, _) => None,
    }
}

/// What is wanted once a server starts: `always` also means what a user stopped, if it ever ran. `None`: as before.
pub fn at_server_start(desired: &Desired, status: &Status) -> Option<Desired> {
    let Status::Exited { exit, .. } = status else { return None };
    let revived = match desired.goal {
        Goal::Run => desired.restarts.cancelled,
        Goal::Stop { .. } => true,
        Goal::Rest | Goal::Gone => false,
    };
    let always = desired.restarts.policy == RestartPolicy::Always && exit.started_at.is_some();
    (revived && always).then(|| Desired {
        goal: Goal::Run,
        again: false,
        restarts: Restarts { revived: true, ..desired.restarts.fresh() },
        ..desired.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Signal;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_000 + ms).unwrap()
    }

    fn exited(code: i32, ran_ms: i64) -> Exit {
        Exit { code, error: None, oom_killed: false, started_at: Some(at(-ran_ms)), finished_at: at(0) }
    }

    fn of(policy: RestartPolicy) -> Restarts {
        Restarts { policy, ..Restarts::default() }
    }

    const POLICIES: [RestartPolicy; 4] = [
        RestartPolicy::No,
        RestartPolicy::Always,
        RestartPolicy::UnlessStopped,
        RestartPolicy::OnFailure { retries_max: 2 },
    ];

    #[test]
    fn policies_want_what_their_names_say() {
        let wanted = |restarts: fn(Restarts) -> Restarts, exit: &Exit| {
            POLICIES.map(|policy| restarts(of(policy)).wanted(exit))
        };
        let same = |restarts| restarts;
        assert_eq!(wanted(same, &exited(1, 10)), [false, true, true, true]);
        assert_eq!(wanted(same, &exited(0, 10)), [false, true, true, false]);
        assert_eq!(wanted(|r| Restarts { stopped: true, ..r }, &exited(1, 10)), [false, true, false, true]);
        assert_eq!(wanted(|r| Restarts { count: 2, ..r }, &exited(1, 10)), [false, true, true, false]);
        assert_eq!(wanted(|r| Restarts { cancelled: true, ..r }, &exited(1, 10)), [false; 4]);
        let failed = Exit { started_at: None, ..exited(127, 0) };
        assert_eq!(wanted(same, &failed), [false; 4], "a failed start is not retried");
    }

    #[test]
    fn the_pause_doubles_up_to_a_minute_and_a_long_run_resets_it() {
        let mut restarts = of(RestartPolicy::Always);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            pauses.push(restarts.pause(&exited(1, 10)).num_milliseconds());
            restarts = restarts.after(&exited(1, 10));
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(restarts.pause(&exited(1, 10_000)).num_milliseconds(), 100);
        let after = restarts.after(&exited(1, 10_000));
        assert_eq!((after.count, after.quick), (13, 1));
        assert_eq!(Restarts { quick: u32::MAX, ..restarts }.pause(&exited(1, 1)).num_milliseconds(), 60_000);
    }

    #[test]
    fn a_server_that_starts_revives_what_is_always_to_run() {
        let stop = Goal::Stop { signal: Signal::TERM, deadline: None };
        let ended = Status::Exited { run: 3, exit: exited(143, 5) };
        let desired = |goal, policy| Desired { goal, run: 3, restarts: of(policy), ..Desired::default() };
        for policy in POLICIES {
            let revived = at_server_start(&desired(stop.clone(), policy), &ended);
            assert_eq!(revived.is_some(), policy == RestartPolicy::Always, "{policy:?}");
            if let Some(revived) = revived {
                assert!(due(&revived, &ended).is_some());
                let begun = revived.restarts.after(&exited(143, 5));
                assert_eq!(begun, of(policy), "nothing is counted");
                assert_eq!(begun.after(&exited(1, 5)).count, 1);
            }
        }
        let always = desired(stop.clone(), RestartPolicy::Always);
        assert_eq!(at_server_start(&always, &Status::Created), None, "what never ran");
        let failed = Status::Exited { run: 1, exit: Exit { started_at: None, ..exited(127, 0) } };
        assert_eq!(at_server_start(&always, &failed), None);
        assert_eq!(at_server_start(&desired(Goal::Gone, RestartPolicy::Always), &ended), None);
        let mut killed = desired(Goal::Run, RestartPolicy::Always);
        assert_eq!(at_server_start(&killed, &ended), None, "it waits for its restart already");
        killed.restarts.cancelled = true;
        assert!(at_server_start(&killed, &ended).is_some());
    }
}
