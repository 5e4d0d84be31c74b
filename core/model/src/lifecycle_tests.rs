//! The rules, tried on a small world: a machine that does what its driver says, fails when it likes, and may die at
//! any moment. Whatever happens, the driver must get where it was told to go, and stop there.

use super::*;
use crate::restart::RestartPolicy;
use proptest::prelude::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

#[derive(Debug, Clone)]
struct World {
    desired: Desired,
    /// `None`: the row is gone.
    status: Option<Status>,
    disk: bool,
    machine: MachineFact,
    guest: GuestFact,
    now: i64,
    log: Vec<&'static str>,
}

#[derive(Debug, Clone)]
enum Happening {
    Ask(Request),
    MachineDies,
    ProcessEnds,
    /// The server was killed and started again: what its driver knew of the guest is lost.
    DriverForgets,
    TimePasses,
}

impl World {
    fn new() -> Self {
        Self {
            desired: Desired::default(),
            status: Some(Status::Created),
            disk: false,
            machine: MachineFact::Absent,
            guest: GuestFact::Unknown,
            now: 0,
            log: Vec::new(),
        }
    }

    fn with(policy: RestartPolicy) -> Self {
        let mut world = Self::new();
        world.desired.restarts.policy = policy;
        world
    }

    fn run(&self) -> u32 {
        self.status.as_ref().map_or(0, Status::run)
    }

    fn step(&self) -> Step {
        let Some(status) = &self.status else { return Step::Idle };
        let facts = Facts { disk: self.disk, machine: self.machine.clone(), guest: self.guest.clone() };
        next(&self.desired, status, &facts, at(self.now))
    }

    fn perform(&mut self, act: Act) {
        self.log.push(act.name());
        let run = self.run();
        match act {
            Act::BeginRun => {
                assert_eq!(
                    self.machine,
                    MachineFact::Absent,
                    "a run begins without a machine: {:?}",
                    self.log
                );
                self.guest = GuestFact::Unknown;
                self.status = Some(Status::Starting { run: self.desired.run });
            }
            Act::CreateDisk => self.disk = true,
            Act::StartMachine => {
                assert!(self.disk, "a machine starts with its disk");
                assert_eq!(self.machine, MachineFact::Absent, "never two machines");
                self.machine = MachineFact::Running;
            }
            Act::Greet => self.guest = GuestFact::Ready,
            Act::StartProcess => self.guest = GuestFact::Process { run, started_at: at(self.now) },
            Act::RecordRunning { started_at } => {
                let running = Status::Running { run, started_at, stop_signalled: false, paused: false };
                self.status = Some(running);
            }
            Act::Signal { .. } => {
                let Some(Status::Running { stop_signalled, paused, .. }) = &mut self.status else {
                    panic!("signals what runs")
                };
                (*stop_signalled, *paused) = (true, false);
                assert_eq!(self.machine, MachineFact::Running, "what stands still hears nothing");
            }
            Act::Pause => {
                assert_eq!(self.machine, MachineFact::Running);
                self.machine = MachineFact::Paused;
            }
            Act::Resume => {
                assert_eq!(self.machine, MachineFact::Paused);
                self.machine = MachineFact::Running;
            }
            Act::RecordPaused | Act::RecordResumed => {
                let Some(Status::Running { paused, .. }) = &mut self.status else { panic!("{self:?}") };
                *paused = act == Act::RecordPaused;
            }
            Act::RunAgain => {
                assert_eq!(self.machine, MachineFact::Absent, "{:?}", self.log);
                let status = self.status.as_ref().unwrap();
                self.desired = self.desired.started(status, true);
            }
            Act::RestartByPolicy => {
                let Some(status @ Status::Exited { exit, .. }) = &self.status else { panic!("{self:?}") };
                self.desired = self.desired.restarted(status, exit);
            }
            Act::Kill => {
                let there = matches!(self.machine, MachineFact::Running | MachineFact::Paused);
                assert!(there, "kills what runs: {:?}", self.log);
                self.machine_dies();
            }
            Act::RecordExit { exit } => {
                self.status = Some(Status::Exited { run, exit });
            }
            Act::DeleteMachine => {
                assert!(matches!(self.machine, MachineFact::Ended { .. }), "deletes what has ended");
                self.machine = MachineFact::Absent;
                self.guest = GuestFact::Unknown;
            }
            Act::DeleteDisk => self.disk = false,
            Act::Forget => {
                assert!(
                    !self.disk && self.machine == MachineFact::Absent,
                    "nothing is orphaned: {:?}",
                    self.log
                );
                self.status = None;
            }
        }
    }

    fn machine_dies(&mut self) {
        if matches!(self.machine, MachineFact::Running | MachineFact::Paused) {
            self.machine = MachineFact::Ended { reason: "test".into() };
            if !matches!(self.guest, GuestFact::Exited { .. }) {
                self.guest = GuestFact::Unknown;
            }
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Ask(request) => self.ask(*request),
            Happening::MachineDies => self.machine_dies(),
            Happening::ProcessEnds => {
                if let (MachineFact::Running, GuestFact::Process { run, started_at }) =
                    (&self.machine, &self.guest)
                {
                    let exit = Exit {
                        code: 0,
                        error: None,
                        oom_killed: false,
                        started_at: Some(*started_at),
                        finished_at: at(self.now),
                    };
                    self.guest = GuestFact::Exited { run: *run, exit };
                }
            }
            Happening::DriverForgets => {
                if matches!(self.guest, GuestFact::Ready) {
                    self.guest = GuestFact::Unknown;
                }
            }
            Happening::TimePasses => self.now += 60,
        }
    }

    fn ask(&mut self, request: Request) {
        let Some(status) = &self.status else { return };
        if accept(&self.desired, status, request) != Answer::Accepted {
            return;
        }
        let deadline = Some(at(self.now + 10));
        let desired = &self.desired;
        self.desired = match request {
            Request::Start => desired.started(status, false),
            Request::Stop => desired.stopped(Signal::TERM, deadline, false),
            Request::Restart if matches!(status, Status::Starting { .. } | Status::Running { .. }) => {
                desired.stopped(Signal::TERM, deadline, true)
            }
            Request::Restart => desired.started(status, true),
            Request::Kill => {
                self.desired = desired.signalled(true);
                return self.happen(&Happening::ProcessEnds);
            }
            Request::Pause => Desired { paused: true, ..desired.clone() },
            Request::Unpause => Desired { paused: false, ..desired.clone() },
            Request::Remove { .. } => desired.gone(false),
        };
    }

    /// Lets the driver work until it rests; a wait lets time pass. Fails if it never rests.
    fn settle(&mut self) {
        for _ in 0..200 {
            match self.step() {
                Step::Idle => return,
                Step::Do(act) => self.perform(act),
                Step::Wait(until) => self.now = (until - at(0)).as_seconds_f64().ceil() as i64,
            }
        }
        panic!("the driver does not come to rest: {self:?}");
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Ask(Request::Start)),
        2 => Just(Happening::Ask(Request::Stop)),
        1 => Just(Happening::Ask(Request::Restart)),
        1 => Just(Happening::Ask(Request::Kill)),
        1 => Just(Happening::Ask(Request::Pause)),
        1 => Just(Happening::Ask(Request::Unpause)),
        1 => any::<bool>().prop_map(|force| Happening::Ask(Request::Remove { force })),
        2 => Just(Happening::MachineDies),
        2 => Just(Happening::ProcessEnds),
        2 => Just(Happening::DriverForgets),
        1 => Just(Happening::TimePasses),
    ]
}

fn policy() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![
        Just(RestartPolicy::No),
        Just(RestartPolicy::Always),
        Just(RestartPolicy::UnlessStopped),
        (0_u32..3).prop_map(|retries_max| RestartPolicy::OnFailure { retries_max }),
    ]
}

proptest! {
    /// Between any two happenings the driver does any number of acts, also none: that is a crash at every act.
    #[test]
    fn gets_where_it_is_told_from_anywhere(
        policy in policy(),
        script in prop::collection::vec((happening(), 0_usize..8), 0..40),
    ) {
        let mut world = World::with(policy);
        for (happening, acts) in &script {
            world.happen(happening);
            for _ in 0..*acts {
                match world.step() {
                    Step::Do(act) => world.perform(act),
                    Step::Idle | Step::Wait(_) => break,
                }
            }
        }
        world.settle();
        match (&world.desired.goal, &world.status) {
            (Goal::Gone, status) => prop_assert!(status.is_none()),
            (Goal::Stop { .. }, status) => {
                prop_assert!(matches!(status, Some(Status::Created | Status::Exited { .. })), "{world:?}");
                prop_assert_eq!(&world.machine, &MachineFact::Absent);
            }
            (Goal::Run, Some(status @ (Status::Running { .. } | Status::Exited { .. }))) => {
                prop_assert_eq!(status.run(), world.desired.run);
                prop_assert!(restart::due(&world.desired, status).is_none(), "{world:?}");
                if let Status::Running { paused, .. } = status {
                    prop_assert_eq!(*paused, world.desired.paused);
                    prop_assert_eq!(*paused, world.machine == MachineFact::Paused);
                }
            }
            (Goal::Run, other) => prop_assert!(false, "wanted to run, is {other:?}"),
            (Goal::Rest, status) => prop_assert!(matches!(status, Some(Status::Created)), "{world:?}"),
        }
        // And from there it can always be removed.
        if world.status.is_some() {
            world.ask(Request::Remove { force: true });
            world.settle();
            prop_assert!(world.status.is_none());
        }
    }
}

#[test]
fn a_first_start_is_these_acts() {
    let mut world = World::new();
    world.ask(Request::Start);
    world.settle();
    let expect = ["begin-run", "create-disk", "start-machine", "greet", "start-process", "record-running"];
    assert_eq!(world.log, expect);
}

#[test]
fn a_process_that_is_over_at_once_still_starts_before_it_ends() {
    let mut world = World::new();
    world.ask(Request::Start);
    while world.log.last() != Some(&"start-process") {
        let Step::Do(act) = world.step() else { panic!("{world:?}") };
        world.perform(act);
    }
    world.happen(&Happening::ProcessEnds);
    world.settle();
    assert_eq!(&world.log[5..], ["record-running", "record-exit", "kill", "delete-machine"]);
}

#[test]
fn stop_signals_once_waits_and_kills() {
    let mut world = World::new();
    world.ask(Request::Start);
    world.settle();
    world.ask(Request::Stop);
    assert_eq!(world.step(), Step::Do(Act::Signal { signal: Signal::TERM }));
    world.perform(Act::Signal { signal: Signal::TERM });
    assert_eq!(world.step(), Step::Wait(at(10)));
    world.now = 10;
    assert_eq!(world.step(), Step::Do(Act::Kill));
    world.perform(Act::Kill);
    let Step::Do(Act::RecordExit { exit }) = world.step() else { panic!("{:?}", world.step()) };
    assert_eq!((exit.code, exit.error), (137, None), "as after SIGKILL");
}

#[test]
fn stop_without_a_deadline_never_kills() {
    let mut world = World::new();
    world.ask(Request::Start);
    world.settle();
    world.desired = world.desired.stopped(Signal::TERM, None, false);
    world.settle();
    world.now += 1_000_000;
    assert_eq!(world.step(), Step::Idle);
    assert_eq!(world.machine, MachineFact::Running);
}

#[test]
fn a_machine_that_vanished_is_an_exit_with_137() {
    let mut world = World::new();
    world.ask(Request::Start);
    world.settle();
    world.machine = MachineFact::Absent;
    world.guest = GuestFact::Unknown;
    let Step::Do(Act::RecordExit { exit }) = world.step() else { panic!("{:?}", world.step()) };
    assert_eq!(exit.code, 137);
    assert!(exit.error.is_some());
}

#[test]
fn a_restart_ends_one_run_and_begins_the_next() {
    let mut world = World::new();
    world.ask(Request::Start);
    world.settle();
    world.log.clear();
    world.ask(Request::Restart);
    assert_eq!(world.step(), Step::Do(Act::Signal { signal: Signal::TERM }));
    world.perform(Act::Signal { signal: Signal::TERM });
    world.happen(&Happening::ProcessEnds);
    world.settle();
    let expect = [
        "signal",
        "record-exit",
        "kill",
        "delete-machine",
        "run-again",
        "begin-run",
        "start-machine",
        "greet",
        "start-process",
        "record-running",
    ];
    assert_eq!(world.log, expect);
    assert!(world.desired.again && world.desired.run == 2, "{world:?}");
}

#[test]
fn a_policy_restarts_after_a_pause_and_counts() {
    let mut world = World::with(RestartPolicy::OnFailure { retries_max: 1 });
    world.ask(Request::Start);
    for count in 0..2 {
        world.settle();
        assert_eq!(world.desired.restarts.count, count);
        world.machine_dies();
        while let Step::Do(act) = world.step() {
            world.perform(act);
        }
    }
    assert_eq!(world.step(), Step::Idle, "no retries are left");
    world.ask(Request::Start);
    world.settle();
    assert_eq!((world.desired.run, world.desired.restarts.count), (3, 0), "a user's start counts anew");
}

#[test]
fn a_stop_between_two_runs_is_final() {
    let mut world = World::with(RestartPolicy::Always);
    world.ask(Request::Start);
    world.settle();
    world.machine_dies();
    while let Step::Do(act) = world.step() {
        world.perform(act);
    }
    assert!(matches!(world.step(), Step::Wait(_)), "{world:?}");
    world.ask(Request::Stop);
    assert_eq!(world.step(), Step::Idle);
}

#[test]
fn a_paused_process_is_woken_before_it_is_signalled() {
    let mut world = World::new();
    world.ask(Request::Start);
    world.settle();
    world.log.clear();
    world.ask(Request::Pause);
    world.settle();
    assert_eq!(world.log, ["pause", "record-paused"]);
    world.log.clear();
    world.ask(Request::Stop);
    for _ in 0..2 {
        let Step::Do(act) = world.step() else { panic!("{world:?}") };
        world.perform(act);
    }
    assert_eq!(world.log, ["resume", "signal"]);
    assert!(matches!(world.step(), Step::Wait(_)), "{world:?}");
}

#[test]
fn requests_are_answered_by_state() {
    use Answer::{Accepted, AlreadySo, Denied as No};
    let rest = Desired::default();
    let run = Desired { goal: Goal::Run, run: 1, ..Desired::default() };
    let paused = Desired { paused: true, ..run.clone() };
    let running = Status::Running { run: 1, started_at: at(0), stop_signalled: false, paused: false };
    let gone = Desired { goal: Goal::Gone, run: 1, ..Desired::default() };
    let always = Restarts { policy: RestartPolicy::Always, ..Restarts::default() };
    let looping = Desired { restarts: always, ..run.clone() };
    let again = run.stopped(Signal::TERM, None, true);
    let exit = Exit { code: 1, error: None, oom_killed: false, started_at: Some(at(0)), finished_at: at(1) };
    let exited = Status::Exited { run: 1, exit };
    for (desired, status, request, expect) in [
        (&rest, &Status::Created, Request::Start, Accepted),
        (&run, &running, Request::Start, AlreadySo),
        (&paused, &running, Request::Start, No(Denied::IsPaused)),
        (&rest, &Status::Created, Request::Stop, AlreadySo),
        (&run, &running, Request::Stop, Accepted),
        (&run, &running, Request::Restart, Accepted),
        (&run, &exited, Request::Restart, Accepted),
        (&run, &Status::Created, Request::Restart, AlreadySo),
        (&again, &exited, Request::Restart, AlreadySo),
        (&again, &running, Request::Start, AlreadySo),
        (&again, &running, Request::Stop, Accepted),
        (&rest, &Status::Created, Request::Kill, No(Denied::NotRunning)),
        (&run, &running, Request::Pause, Accepted),
        (&paused, &running, Request::Pause, No(Denied::IsPaused)),
        (&paused, &running, Request::Unpause, Accepted),
        (&run, &running, Request::Unpause, No(Denied::NotPaused)),
        (&run, &exited, Request::Pause, No(Denied::NotRunning)),
        (&run, &running, Request::Remove { force: false }, No(Denied::IsRunning)),
        (&run, &running, Request::Remove { force: true }, Accepted),
        (&rest, &Status::Created, Request::Remove { force: false }, Accepted),
        (&gone, &running, Request::Start, No(Denied::BeingRemoved)),
        (&gone, &running, Request::Restart, No(Denied::BeingRemoved)),
        (&gone, &running, Request::Remove { force: true }, AlreadySo),
        // Between two runs of a restart policy it is as good as running, but there is nothing to signal.
        (&looping, &exited, Request::Start, AlreadySo),
        (&looping, &exited, Request::Stop, Accepted),
        (&looping, &exited, Request::Kill, No(Denied::NotRunning)),
        (&looping, &exited, Request::Pause, No(Denied::IsRestarting)),
        (&looping, &exited, Request::Remove { force: false }, No(Denied::IsRunning)),
    ] {
        assert_eq!(accept(desired, status, request), expect, "{desired:?} {status:?} {request:?}");
    }
}

#[test]
fn every_act_has_its_name_in_the_list() {
    assert_eq!(Act::NAMES.len(), 18);
    assert!(Act::NAMES.contains(&Act::Greet.name()));
}
