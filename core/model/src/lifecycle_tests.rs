//! The rules, tried on a small world: a machine that does what its driver says, fails when it likes, and may die at
//! any moment. Whatever happens, the driver must get where it was told to go, and stop there.

use super::*;
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
            desired: Desired { goal: Goal::Rest, run: 0 },
            status: Some(Status::Created),
            disk: false,
            machine: MachineFact::Absent,
            guest: GuestFact::Unknown,
            now: 0,
            log: Vec::new(),
        }
    }

    fn run(&self) -> u32 {
        match self.status {
            None | Some(Status::Created) => 0,
            Some(Status::Starting { run } | Status::Running { run, .. } | Status::Exited { run, .. }) => run,
        }
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
                self.status = Some(Status::Running { run, started_at, stop_signalled: false });
            }
            Act::Signal { .. } => {
                let Some(Status::Running { run, started_at, .. }) = self.status else {
                    panic!("signals what runs")
                };
                self.status = Some(Status::Running { run, started_at, stop_signalled: true });
            }
            Act::Kill => {
                assert_eq!(self.machine, MachineFact::Running, "kills what runs: {:?}", self.log);
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
        if self.machine == MachineFact::Running {
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
        let run = self.desired.run;
        self.desired = match request {
            Request::Start => Desired { goal: Goal::Run, run: self.run() + 1 },
            Request::Stop => {
                Desired { goal: Goal::Stop { signal: Signal::TERM, deadline: Some(at(self.now + 10)) }, run }
            }
            Request::Kill => return self.happen(&Happening::ProcessEnds),
            Request::Remove { .. } => Desired { goal: Goal::Gone, run },
        };
    }

    /// Lets the driver work until it rests; a wait lets time pass. Fails if it never rests.
    fn settle(&mut self) {
        for _ in 0..200 {
            match self.step() {
                Step::Idle => return,
                Step::Do(act) => self.perform(act),
                Step::Wait(until) => self.now = (until - at(0)).num_seconds(),
            }
        }
        panic!("the driver does not come to rest: {self:?}");
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Ask(Request::Start)),
        2 => Just(Happening::Ask(Request::Stop)),
        1 => Just(Happening::Ask(Request::Kill)),
        1 => any::<bool>().prop_map(|force| Happening::Ask(Request::Remove { force })),
        2 => Just(Happening::MachineDies),
        2 => Just(Happening::ProcessEnds),
        2 => Just(Happening::DriverForgets),
        1 => Just(Happening::TimePasses),
    ]
}

proptest! {
    /// Between any two happenings the driver does any number of acts, also none: that is a crash at every act.
    #[test]
    fn gets_where_it_is_told_from_anywhere(script in prop::collection::vec((happening(), 0_usize..8), 0..40)) {
        let mut world = World::new();
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
            (Goal::Run, Some(Status::Running { run, .. } | Status::Exited { run, .. })) => {
                prop_assert_eq!(*run, world.desired.run);
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
}

#[test]
fn stop_without_a_deadline_never_kills() {
    let mut world = World::new();
    world.ask(Request::Start);
    world.settle();
    world.desired.goal = Goal::Stop { signal: Signal::TERM, deadline: None };
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
fn requests_are_answered_by_state() {
    use Answer::{Accepted, AlreadySo, Denied as No};
    let rest = Desired { goal: Goal::Rest, run: 1 };
    let running = Status::Running { run: 1, started_at: at(0), stop_signalled: false };
    let gone = Desired { goal: Goal::Gone, run: 1 };
    for (desired, status, request, expect) in [
        (&rest, &Status::Created, Request::Start, Accepted),
        (&rest, &running, Request::Start, AlreadySo),
        (&rest, &Status::Created, Request::Stop, AlreadySo),
        (&rest, &running, Request::Stop, Accepted),
        (&rest, &Status::Created, Request::Kill, No(Denied::NotRunning)),
        (&rest, &running, Request::Remove { force: false }, No(Denied::IsRunning)),
        (&rest, &running, Request::Remove { force: true }, Accepted),
        (&rest, &Status::Created, Request::Remove { force: false }, Accepted),
        (&gone, &running, Request::Start, No(Denied::BeingRemoved)),
        (&gone, &running, Request::Remove { force: true }, AlreadySo),
    ] {
        assert_eq!(accept(desired, status, request), expect, "{desired:?} {status:?} {request:?}");
    }
}

#[test]
fn every_act_has_its_name_in_the_list() {
    assert_eq!(Act::NAMES.len(), 12);
    assert!(Act::NAMES.contains(&Act::Greet.name()));
}
