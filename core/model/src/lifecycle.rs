//! A container's life, as pure functions.
//!
//! ```text
//!            start                RecordRunning            RecordExit
//!  Created ────────▶ Starting ───────────────▶ Running ───────────────▶ Exited ──┐
//!                       │        start failed, machine ended                ▲    │ start (next run)
//!                       └───────────────────────────────────────────────────┘◀───┘
//!  Exited ── restart policy, restart ──▶ RestartByPolicy, RunAgain: the next run is desired
//!  Running ── pause, unpause ──▶ Pause, RecordPaused; Resume, RecordResumed
//!  any ── remove ──▶ … Kill, RecordExit, DeleteMachine, DeleteDisk, Forget
//! ```
//!
//! A request changes only what is *desired*; the container's driver alone changes its *status*, one [`Act`] at a
//! time, as [`next`] says. `next` is total and looks at facts, never at what the driver did before: the same loop
//! serves the first start, a retry, recovery after a crash and removal.

use crate::container::Signal;
use crate::restart::{self, Restarts};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What the user wants. `run` counts starts: run 2 is wanted once the container was started twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub goal: Goal,
    pub run: u32,
    /// A restart was asked for: with `Stop` another run follows, with `Run` this run is the one that follows.
    #[serde(default)]
    pub again: bool,
    /// What runs stands still.
    #[serde(default)]
    pub paused: bool,
    #[serde(default)]
    pub restarts: Restarts,
    /// Volumes that were made for it alone go with it.
    #[serde(default)]
    pub with_volumes: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "goal")]
pub enum Goal {
    /// Nothing was asked beyond existing.
    #[default]
    Rest,
    /// Run number `Desired::run` to its end.
    Run,
    /// End what runs: signal, then kill at the deadline (`None`: never).
    Stop { signal: Signal, deadline: Option<DateTime<Utc>> },
    /// Be removed, whatever the state.
    Gone,
}

impl Desired {
    /// The next run, as a user starts it.
    #[must_use]
    pub fn started(&self, status: &Status, again: bool) -> Self {
        let restarts = self.restarts.fresh();
        let run = status.run().saturating_add(1);
        Self { goal: Goal::Run, run, again, paused: false, restarts, with_volumes: false }
    }

    /// The next run, as the restart policy starts it after `exit`.
    #[must_use]
    pub fn restarted(&self, status: &Status, exit: &Exit) -> Self {
        Self { restarts: self.restarts.after(exit), ..self.started(status, false) }
    }

    /// Its end; `again`: and another run after it.
    #[must_use]
    pub fn stopped(&self, signal: Signal, deadline: Option<DateTime<Utc>>, again: bool) -> Self {
        let restarts = Restarts { stopped: true, ..self.restarts };
        Self { goal: Goal::Stop { signal, deadline }, again, paused: false, restarts, ..self.clone() }
    }

    /// A signal of a user's, on its way to the process. `ends`: it is one that is meant to end it, so no restart
    /// policy brings it back, and what was paused goes on to take it.
    #[must_use]
    pub fn signalled(&self, ends: bool) -> Self {
        let mut new = self.clone();
        new.restarts.stopped = true;
        new.restarts.cancelled |= ends;
        new.paused &= !ends;
        new
    }

    /// Its removal. `with_volumes`: and that of the volumes that were made for it alone.
    #[must_use]
    pub fn gone(&self, with_volumes: bool) -> Self {
        Self { goal: Goal::Gone, paused: false, with_volumes, ..self.clone() }
    }

    /// No more runs but what a user starts: what was to follow could not.
    #[must_use]
    pub fn given_up(&self) -> Self {
        let restarts = Restarts { cancelled: true, ..self.restarts };
        Self { again: false, restarts, ..self.clone() }
    }
}

/// What is, as far as it was recorded. Written by the container's driver only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum Status {
    Created,
    Starting {
        run: u32,
    },
    Running {
        run: u32,
        started_at: DateTime<Utc>,
        stop_signalled: bool,
        #[serde(default)]
        paused: bool,
    },
    Exited {
        run: u32,
        exit: Exit,
    },
}

impl Status {
    /// The run that it speaks of; 0 before the first.
    pub fn run(&self) -> u32 {
        match self {
            Status::Created => 0,
            Status::Starting { run } | Status::Running { run, .. } | Status::Exited { run, .. } => *run,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: i32,
    /// Why, where the code alone does not tell.
    pub error: Option<String>,
    pub oom_killed: bool,
    /// `None`: the process never started.
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: DateTime<Utc>,
}

/// What was observed just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub disk: bool,
    pub machine: MachineFact,
    pub guest: GuestFact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineFact {
    Absent,
    Running,
    /// It is there, and its vCPUs stand still.
    Paused,
    /// It is no more; its journal is still there.
    Ended {
        reason: String,
    },
}

/// What the guest told, over its agent channel or by its journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestFact {
    /// Not connected.
    Unknown,
    /// The agent waits for its process.
    Ready,
    /// The process of this run runs.
    Process { run: u32, started_at: DateTime<Utc> },
    /// The process of this run is over.
    Exited { run: u32, exit: Exit },
}

/// One step of a driver; each can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Status becomes `Starting`.
    BeginRun,
    CreateDisk,
    StartMachine,
    /// Connect to the agent and hear who it is.
    Greet,
    StartProcess,
    /// Status becomes `Running`; event `start`.
    RecordRunning {
        started_at: DateTime<Utc>,
    },
    Signal {
        signal: Signal,
    },
    /// End the machine, at once.
    Kill,
    /// Stops the machine's vCPUs.
    Pause,
    /// Status says paused; event `pause`.
    RecordPaused,
    /// Lets the vCPUs go on, and sets the guest's clock.
    Resume,
    /// Status says not paused; event `unpause`.
    RecordResumed,
    /// Status becomes `Exited`; event `die`.
    RecordExit {
        exit: Exit,
    },
    /// Another run is desired, as was asked for with the end of the last.
    RunAgain,
    /// Another run is desired by the restart policy, if the Cedar policies still allow a start.
    RestartByPolicy,
    DeleteMachine,
    DeleteDisk,
    /// Delete the row; event `destroy`.
    Forget,
}

impl Act {
    pub const NAMES: [&'static str; 18] = [
        "begin-run",
        "create-disk",
        "start-machine",
        "greet",
        "start-process",
        "record-running",
        "signal",
        "kill",
        "pause",
        "record-paused",
        "resume",
        "record-resumed",
        "record-exit",
        "run-again",
        "restart-by-policy",
        "delete-machine",
        "delete-disk",
        "forget",
    ];

    /// Whether it changes something outside of the database.
    pub fn touches_machine(&self) -> bool {
        match self {
            Act::CreateDisk
            | Act::StartMachine
            | Act::Greet
            | Act::StartProcess
            | Act::Signal { .. }
            | Act::Kill
            | Act::Pause
            | Act::Resume
            | Act::DeleteMachine
            | Act::DeleteDisk
            | Act::Forget => true,
            Act::BeginRun
            | Act::RecordRunning { .. }
            | Act::RecordPaused
            | Act::RecordResumed
            | Act::RecordExit { .. }
            | Act::RunAgain
            | Act::RestartByPolicy => false,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Act::BeginRun => "begin-run",
            Act::CreateDisk => "create-disk",
            Act::StartMachine => "start-machine",
            Act::Greet => "greet",
            Act::StartProcess => "start-process",
            Act::RecordRunning { .. } => "record-running",
            Act::Signal { .. } => "signal",
            Act::Kill => "kill",
            Act::Pause => "pause",
            Act::RecordPaused => "record-paused",
            Act::Resume => "resume",
            Act::RecordResumed => "record-resumed",
            Act::RecordExit { .. } => "record-exit",
            Act::RunAgain => "run-again",
            Act::RestartByPolicy => "restart-by-policy",
            Act::DeleteMachine => "delete-machine",
            Act::DeleteDisk => "delete-disk",
            Act::Forget => "forget",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Desired and actual agree; wait for a wake-up.
    Idle,
    Do(Act),
    /// Look again at this time, or when woken.
    Wait(DateTime<Utc>),
}

/// The next step towards what is desired.
pub fn next(desired: &Desired, status: &Status, facts: &Facts, now: DateTime<Utc>) -> Step {
    match (&desired.goal, status) {
        (Goal::Run, Status::Created) => Step::Do(Act::BeginRun),
        (Goal::Run, Status::Exited { run, .. }) if *run < desired.run => match facts.machine {
            // The last run's machine first: a container has one machine at a time.
            MachineFact::Absent => Step::Do(Act::BeginRun),
            MachineFact::Running | MachineFact::Paused => Step::Do(Act::Kill),
            MachineFact::Ended { .. } => Step::Do(Act::DeleteMachine),
        },
        (Goal::Run, Status::Starting { run }) => starting(*run, facts, now),
        (Goal::Rest | Goal::Run, Status::Running { run, started_at, paused, .. }) => {
            match running(*run, *started_at, facts, now) {
                Step::Idle => standing(desired.paused, *paused, &facts.machine),
                step => step,
            }
        }
        (Goal::Rest | Goal::Run | Goal::Stop { .. }, Status::Created | Status::Exited { .. }) => {
            match resting(facts) {
                Step::Idle => following(desired, status, now),
                step => step,
            }
        }
        (Goal::Stop { .. } | Goal::Gone | Goal::Rest, Status::Starting { run }) => {
            ending(*run, None, facts, now)
        }
        (Goal::Stop { signal, deadline }, Status::Running { run, started_at, stop_signalled, paused }) => {
            match running(*run, *started_at, facts, now) {
                // A process that stands still can be told nothing.
                Step::Idle if facts.machine == MachineFact::Paused => Step::Do(Act::Resume),
                Step::Idle if !stop_signalled => Step::Do(Act::Signal { signal: *signal }),
                Step::Idle if *paused => Step::Do(Act::RecordResumed),
                Step::Idle => match deadline {
                    Some(at) if *at > now => Step::Wait(*at),
                    Some(_) => Step::Do(Act::Kill),
                    None => Step::Idle,
                },
                // What was killed at the deadline cannot tell how it ended, and there is nothing to wonder about.
                Step::Do(Act::RecordExit { exit })
                    if is_over(*deadline, now) && is_lost(&facts.guest, *run) =>
                {
                    Step::Do(Act::RecordExit { exit: Exit { error: None, ..exit } })
                }
                // An agent that does not answer must not outlive the deadline.
                Step::Do(Act::Greet) if is_over(*deadline, now) => Step::Do(Act::Kill),
                step => step,
            }
        }
        (Goal::Gone, Status::Running { run, started_at, .. }) => ending(*run, Some(*started_at), facts, now),
        (Goal::Gone, Status::Created | Status::Exited { .. }) => match (&facts.machine, facts.disk) {
            (MachineFact::Running | MachineFact::Paused, _) => Step::Do(Act::Kill),
            (MachineFact::Ended { .. }, _) => Step::Do(Act::DeleteMachine),
            (MachineFact::Absent, true) => Step::Do(Act::DeleteDisk),
            (MachineFact::Absent, false) => Step::Do(Act::Forget),
        },
    }
}

fn is_over(deadline: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    deadline.is_some_and(|at| at <= now)
}

/// Whether the guest told nothing of this run's end.
fn is_lost(guest: &GuestFact, run: u32) -> bool {
    !matches!(guest, GuestFact::Exited { run: over, .. } if *over == run)
}

fn starting(run: u32, facts: &Facts, now: DateTime<Utc>) -> Step {
    match (&facts.machine, &facts.guest) {
        (_, GuestFact::Exited { run: over, exit }) if *over == run => match exit.started_at {
            // Started and over between two looks: both are recorded, in order.
            Some(started_at) => Step::Do(Act::RecordRunning { started_at }),
            None => Step::Do(Act::RecordExit { exit: exit.clone() }),
        },
        (MachineFact::Running, GuestFact::Process { run: of, started_at }) if *of == run => {
            Step::Do(Act::RecordRunning { started_at: *started_at })
        }
        (MachineFact::Ended { reason }, _) => {
            let exit = Exit {
                code: 128,
                error: Some(format!("the machine ended before the process started: {reason}")),
                oom_killed: false,
                started_at: None,
                finished_at: now,
            };
            Step::Do(Act::RecordExit { exit })
        }
        (MachineFact::Absent, _) if !facts.disk => Step::Do(Act::CreateDisk),
        (MachineFact::Absent, _) => Step::Do(Act::StartMachine),
        // Paused by hand, or its container was asked to before this run: a start goes on.
        (MachineFact::Paused, _) => Step::Do(Act::Resume),
        (MachineFact::Running, GuestFact::Unknown) => Step::Do(Act::Greet),
        (MachineFact::Running, GuestFact::Ready) => Step::Do(Act::StartProcess),
        // A machine of another run: it must go first.
        (MachineFact::Running, GuestFact::Process { .. } | GuestFact::Exited { .. }) => Step::Do(Act::Kill),
    }
}

fn running(run: u32, started_at: DateTime<Utc>, facts: &Facts, now: DateTime<Utc>) -> Step {
    match (&facts.machine, &facts.guest) {
        (_, GuestFact::Exited { run: over, exit }) if *over == run => {
            Step::Do(Act::RecordExit { exit: exit.clone() })
        }
        (MachineFact::Ended { reason }, _) => {
            Step::Do(Act::RecordExit { exit: lost(started_at, reason, now) })
        }
        (MachineFact::Absent, _) => {
            Step::Do(Act::RecordExit { exit: lost(started_at, "no machine was found", now) })
        }
        // Nobody in it can answer.
        (MachineFact::Paused, _) => Step::Idle,
        (MachineFact::Running, GuestFact::Unknown) => Step::Do(Act::Greet),
        (MachineFact::Running, GuestFact::Process { .. }) => Step::Idle,
        // The agent lost the process that was recorded: nothing can be said of it any more.
        (MachineFact::Running, GuestFact::Ready | GuestFact::Exited { .. }) => Step::Do(Act::Kill),
    }
}

/// Lets what runs stand still or go on, as wished; and records it once it is so.
fn standing(wished: bool, recorded: bool, machine: &MachineFact) -> Step {
    let is = *machine == MachineFact::Paused;
    match (wished, is, recorded) {
        (true, false, _) => Step::Do(Act::Pause),
        (true, true, false) => Step::Do(Act::RecordPaused),
        (false, true, _) => Step::Do(Act::Resume),
        (false, false, true) => Step::Do(Act::RecordResumed),
        (true, true, true) | (false, false, false) => Step::Idle,
    }
}

/// What comes after an end, once its machine is cleared away.
fn following(desired: &Desired, status: &Status, now: DateTime<Utc>) -> Step {
    if desired.again && matches!(desired.goal, Goal::Stop { .. }) {
        return Step::Do(Act::RunAgain);
    }
    match restart::due(desired, status) {
        Some(at) if at > now => Step::Wait(at),
        Some(_) => Step::Do(Act::RestartByPolicy),
        None => Step::Idle,
    }
}

/// Ends a machine that is starting or running, without grace.
fn ending(run: u32, started_at: Option<DateTime<Utc>>, facts: &Facts, now: DateTime<Utc>) -> Step {
    match (&facts.machine, &facts.guest) {
        (MachineFact::Running | MachineFact::Paused, GuestFact::Exited { run: over, exit })
            if *over == run =>
        {
            Step::Do(Act::RecordExit { exit: exit.clone() })
        }
        (MachineFact::Running | MachineFact::Paused, _) => Step::Do(Act::Kill),
        (_, GuestFact::Exited { run: over, exit }) if *over == run => {
            Step::Do(Act::RecordExit { exit: exit.clone() })
        }
        (MachineFact::Ended { .. } | MachineFact::Absent, _) => {
            let exit = Exit { code: 137, error: None, oom_killed: false, started_at, finished_at: now };
            Step::Do(Act::RecordExit { exit })
        }
    }
}

/// Nothing runs and nothing should: a machine that is left is cleared away.
fn resting(facts: &Facts) -> Step {
    match facts.machine {
        MachineFact::Absent => Step::Idle,
        MachineFact::Running | MachineFact::Paused => Step::Do(Act::Kill),
        MachineFact::Ended { .. } => Step::Do(Act::DeleteMachine),
    }
}

/// 137, as after SIGKILL: the process cannot have ended in any better way.
fn lost(started_at: DateTime<Utc>, reason: &str, now: DateTime<Utc>) -> Exit {
    Exit {
        code: 137,
        error: Some(format!("the machine ended without telling how its process did: {reason}")),
        oom_killed: false,
        started_at: Some(started_at),
        finished_at: now,
    }
}

/// A request that changes what is desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Start,
    Stop,
    /// Stop what runs, then start.
    Restart,
    /// A signal to what runs.
    Kill,
    Pause,
    Unpause,
    Remove {
        force: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    AlreadySo,
    Denied(Denied),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It is running, and the request needs it not to.
    IsRunning,
    /// It is not running, and the request needs it to.
    NotRunning,
    /// It is on its way out.
    BeingRemoved,
    IsPaused,
    NotPaused,
    /// It has ended, and its restart policy is about to start it again.
    IsRestarting,
}

/// Whether a run is to come that has not begun: asked for, or by the restart policy.
pub fn awaits_run(desired: &Desired, status: &Status) -> bool {
    is_pending(desired, status) || restart::due(desired, status).is_some()
}

/// Asked to start, though its driver has not begun: as good as starting.
fn is_pending(desired: &Desired, status: &Status) -> bool {
    let begun = desired.goal == Goal::Run
        && match status {
            Status::Created => true,
            Status::Exited { run, .. } => *run < desired.run,
            Status::Starting { .. } | Status::Running { .. } => false,
        };
    begun || desired.again && matches!((&desired.goal, status), (Goal::Stop { .. }, Status::Exited { .. }))
}

/// Whether a request makes sense in a state.
pub fn accept(desired: &Desired, status: &Status, request: Request) -> Answer {
    use Answer::{Accepted, AlreadySo, Denied as No};
    if desired.goal == Goal::Gone {
        return match request {
            Request::Remove { .. } => AlreadySo,
            Request::Start
            | Request::Stop
            | Request::Restart
            | Request::Kill
            | Request::Pause
            | Request::Unpause => No(Denied::BeingRemoved),
        };
    }
    let pending = is_pending(desired, status);
    let restarting = restart::due(desired, status).is_some();
    let live = pending || matches!(status, Status::Starting { .. } | Status::Running { .. });
    let runs = matches!(status, Status::Running { .. }) && desired.goal == Goal::Run;
    match request {
        Request::Start if desired.paused && live => No(Denied::IsPaused),
        Request::Start => match (live || restarting, &desired.goal) {
            (false, _) => Accepted,
            (true, Goal::Stop { .. }) if !desired.again => No(Denied::IsRunning),
            (true, _) => AlreadySo,
        },
        Request::Stop if live || restarting => Accepted,
        Request::Stop => AlreadySo,
        // The run that is to come is as new as any.
        Request::Restart if pending => AlreadySo,
        Request::Restart => Accepted,
        Request::Kill if live => Accepted,
        Request::Kill => No(Denied::NotRunning),
        Request::Pause if restarting => No(Denied::IsRestarting),
        Request::Pause if !runs => No(Denied::NotRunning),
        Request::Pause if desired.paused => No(Denied::IsPaused),
        Request::Pause => Accepted,
        Request::Unpause if live && desired.paused => Accepted,
        Request::Unpause => No(Denied::NotPaused),
        Request::Remove { force: false } if live || restarting => No(Denied::IsRunning),
        Request::Remove { .. } => Accepted,
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
