//! A container's life, as pure functions.
//!
//! ```text
//!            start                RecordRunning            RecordExit
//!  Created ────────▶ Starting ───────────────▶ Running ───────────────▶ Exited ──┐
//!                       │        start failed, machine ended                ▲    │ start (next run)
//!                       └───────────────────────────────────────────────────┘◀───┘
//!  any ── remove ──▶ … Kill, RecordExit, DeleteMachine, DeleteDisk, Forget
//! ```
//!
//! A request changes only what is *desired*; the container's driver alone changes its *status*, one [`Act`] at a
//! time, as [`next`] says. `next` is total and looks at facts, never at what the driver did before: the same loop
//! serves the first start, a retry, recovery after a crash and removal.

use crate::container::Signal;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What the user wants. `run` counts starts: run 2 is wanted once the container was started twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub goal: Goal,
    pub run: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "goal")]
pub enum Goal {
    /// Nothing was asked beyond existing.
    Rest,
    /// Run number `Desired::run` to its end.
    Run,
    /// End what runs: signal, then kill at the deadline (`None`: never).
    Stop { signal: Signal, deadline: Option<DateTime<Utc>> },
    /// Be removed, whatever the state.
    Gone,
}

/// What is, as far as it was recorded. Written by the container's driver only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum Status {
    Created,
    Starting { run: u32 },
    Running { run: u32, started_at: DateTime<Utc>, stop_signalled: bool },
    Exited { run: u32, exit: Exit },
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
    /// Status becomes `Exited`; event `die`.
    RecordExit {
        exit: Exit,
    },
    DeleteMachine,
    DeleteDisk,
    /// Delete the row; event `destroy`.
    Forget,
}

impl Act {
    pub const NAMES: [&'static str; 12] = [
        "begin-run",
        "create-disk",
        "start-machine",
        "greet",
        "start-process",
        "record-running",
        "signal",
        "kill",
        "record-exit",
        "delete-machine",
        "delete-disk",
        "forget",
    ];

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
            Act::RecordExit { .. } => "record-exit",
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
            MachineFact::Running => Step::Do(Act::Kill),
            MachineFact::Ended { .. } => Step::Do(Act::DeleteMachine),
        },
        (Goal::Run, Status::Starting { run }) => starting(*run, facts, now),
        (Goal::Rest | Goal::Run, Status::Running { run, started_at, .. }) => {
            running(*run, *started_at, facts, now)
        }
        (Goal::Rest | Goal::Run | Goal::Stop { .. }, Status::Created | Status::Exited { .. }) => {
            resting(facts)
        }
        (Goal::Stop { .. } | Goal::Gone | Goal::Rest, Status::Starting { run }) => {
            ending(*run, None, facts, now)
        }
        (Goal::Stop { signal, deadline }, Status::Running { run, started_at, stop_signalled }) => {
            match running(*run, *started_at, facts, now) {
                Step::Idle if !stop_signalled => Step::Do(Act::Signal { signal: *signal }),
                Step::Idle => match deadline {
                    Some(at) if *at > now => Step::Wait(*at),
                    Some(_) => Step::Do(Act::Kill),
                    None => Step::Idle,
                },
                // An agent that does not answer must not outlive the deadline.
                Step::Do(Act::Greet) if deadline.is_some_and(|at| at <= now) => Step::Do(Act::Kill),
                step => step,
            }
        }
        (Goal::Gone, Status::Running { run, started_at, .. }) => ending(*run, Some(*started_at), facts, now),
        (Goal::Gone, Status::Created | Status::Exited { .. }) => match (&facts.machine, facts.disk) {
            (MachineFact::Running, _) => Step::Do(Act::Kill),
            (MachineFact::Ended { .. }, _) => Step::Do(Act::DeleteMachine),
            (MachineFact::Absent, true) => Step::Do(Act::DeleteDisk),
            (MachineFact::Absent, false) => Step::Do(Act::Forget),
        },
    }
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
        (MachineFact::Running, GuestFact::Unknown) => Step::Do(Act::Greet),
        (MachineFact::Running, GuestFact::Process { .. }) => Step::Idle,
        // The agent lost the process that was recorded: nothing can be said of it any more.
        (MachineFact::Running, GuestFact::Ready | GuestFact::Exited { .. }) => Step::Do(Act::Kill),
    }
}

/// Ends a machine that is starting or running, without grace.
fn ending(run: u32, started_at: Option<DateTime<Utc>>, facts: &Facts, now: DateTime<Utc>) -> Step {
    match (&facts.machine, &facts.guest) {
        (MachineFact::Running, GuestFact::Exited { run: over, exit }) if *over == run => {
            Step::Do(Act::RecordExit { exit: exit.clone() })
        }
        (MachineFact::Running, _) => Step::Do(Act::Kill),
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
        MachineFact::Running => Step::Do(Act::Kill),
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
    /// A signal to what runs.
    Kill,
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
}

/// Whether a request makes sense in a state.
pub fn accept(desired: &Desired, status: &Status, request: Request) -> Answer {
    use Answer::{Accepted, AlreadySo, Denied as No};
    if desired.goal == Goal::Gone {
        return match request {
            Request::Remove { .. } => AlreadySo,
            Request::Start | Request::Stop | Request::Kill => No(Denied::BeingRemoved),
        };
    }
    // Asked to start, though its driver has not begun: as good as starting.
    let pending = desired.goal == Goal::Run
        && match status {
            Status::Created => true,
            Status::Exited { run, .. } => *run < desired.run,
            Status::Starting { .. } | Status::Running { .. } => false,
        };
    let live = pending || matches!(status, Status::Starting { .. } | Status::Running { .. });
    match request {
        Request::Start => match (live, &desired.goal) {
            (false, _) => Accepted,
            (true, Goal::Stop { .. }) => No(Denied::IsRunning),
            (true, _) => AlreadySo,
        },
        Request::Stop if live => Accepted,
        Request::Stop => AlreadySo,
        Request::Kill if live => Accepted,
        Request::Kill => No(Denied::NotRunning),
        Request::Remove { force: false } if live => No(Denied::IsRunning),
        Request::Remove { .. } => Accepted,
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
