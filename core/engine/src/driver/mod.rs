//! One driver per container: the only writer of its actual state.
//!
//! ```text
//!   loop:  look (row, machine, journal) ──▶ model::lifecycle::next ──▶ act ──▶ look again
//!                                                   │
//!                                                   └─ idle: until a request, the machine or the journal wakes it
//! ```
//!
//! It keeps nothing that matters in memory: a driver that starts after a crash looks at the same facts and goes on.

mod acts;
mod again;
mod journal;
mod network;
mod patience;
mod pause;
mod phases;
mod process;
mod signal;
mod told;
mod volumes;
mod workbench;

pub(crate) use journal::time_of;
pub(crate) use process::{limits, process};
pub(crate) use workbench::Bench;

pub use phases::Phase;

use crate::guest::{Agent, Link};
use crate::{Engine, EngineError};
use bulkhead_guest_protocol::network::Network;
use bulkhead_machine::Condition;
use bulkhead_model::container::Signal;
use bulkhead_model::lifecycle::{Act, Exit, Facts, GuestFact, MachineFact, Status, Step, next};
use bulkhead_model::{Boot, Container, ContainerId, EndpointId, VchId};
use bulkhead_store::StoreError;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Looks are repeated this often even if nothing wakes the driver.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What a driver last saw; requests wait on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) container: Option<Arc<Container>>,
    /// The newest run that ended, and how.
    pub(crate) last_exit: Option<(u32, Exit)>,
    pub(crate) gone: bool,
}

pub(crate) enum Command {
    Signal { signal: Signal, done: oneshot::Sender<Result<(), EngineError>> },
    Workbench { done: oneshot::Sender<Result<Bench, EngineError>> },
    Networks { done: oneshot::Sender<Result<(), EngineError>> },
    Limits { done: oneshot::Sender<Result<(), EngineError>> },
}

/// Whom a driver has met in the machine.
#[derive(Debug, Clone)]
pub(crate) enum Met {
    Nobody,
    /// The agent of the run whose process runs, while the driver is connected to it.
    Agent(u32, Agent),
    /// One of another version: what it runs goes on, and nothing can be told to it. In words for the user.
    Stranger(String),
}

/// How others reach a driver.
#[derive(Debug)]
pub(crate) struct Handle {
    wake: Notify,
    commands: mpsc::Sender<Command>,
    seen: watch::Receiver<Seen>,
    pub(crate) agent: watch::Receiver<Met>,
    pub(crate) pins: journal::Pins,
    /// The guest's clock has to be set.
    clock_due: AtomicBool,
    pub(crate) last_start: phases::LastStart,
}

impl Handle {
    pub(crate) fn clock_is_due(&self) {
        self.clock_due.store(true, Ordering::Relaxed);
    }

    fn take_clock_due(&self) -> bool {
        self.clock_due.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), EngineError> {
        self.commands.send(command).await.map_err(|_| EngineError::Stopping)
    }

    /// Sends a signal to the process, by way of the driver.
    pub(crate) async fn signal(&self, signal: Signal) -> Result<(), EngineError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Signal { signal, done }).await.map_err(|_| EngineError::Stopping)?;
        answer.await.map_err(|_| EngineError::Stopping)?
    }
}

/// All drivers of this server.
#[derive(Debug, Default)]
pub(crate) struct Drivers(Mutex<HashMap<ContainerId, Arc<Handle>>>);

impl Drivers {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn get(&self, id: &ContainerId) -> Option<Arc<Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn remove(&self, id: &ContainerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

pub(super) struct Driver {
    engine: Engine,
    vch: VchId,
    id: ContainerId,
    handle: Arc<Handle>,
    commands: mpsc::Receiver<Command>,
    seen: watch::Sender<Seen>,
    link: Option<Link>,
    agent: watch::Sender<Met>,
    token: Option<[u8; 32]>,
    guest: GuestFact,
    /// The machine was paused when it was last looked at: nobody in it answers.
    standing: bool,
    workbench: Option<workbench::Workbench>,
    size: told::Size,
    told: told::Told,
    /// What the guest of this run was told of its networks.
    told_network: Option<Network>,
    /// Interfaces that the machine has.
    nics: Vec<EndpointId>,
    /// A start that cannot succeed, by run: told to `next` as if the guest had said so.
    failed: Option<(u32, Exit)>,
    /// When the machine of this run was begun, by this server.
    begun: Option<Instant>,
    /// By when the agent must have answered.
    greet_by: Option<Instant>,
    /// This driver started the machine, and has told nobody in it whose it is.
    fresh: bool,
    /// How the machine came to life.
    boot: Boot,
    /// The machine of this run is to boot, whatever others do.
    boots: bool,
    /// What it writes is not its own alone.
    has_volumes: bool,
    /// By when other machines must have left its volumes.
    held_until: Option<Instant>,
    journal: journal::Follower,
    stopwatch: phases::Stopwatch,
    retry: Duration,
}

impl Engine {
    /// The driver of a container; started if it is not there.
    pub(crate) fn drive(&self, container: &Container) -> Arc<Handle> {
        let mut drivers = self.0.drivers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = drivers.get(&container.id) {
            return handle.clone();
        }
        let (commands, inbox) = mpsc::channel(16);
        let (seen, watching) = watch::channel(Seen {
            last_exit: last_exit(&container.status),
            container: Some(Arc::new(container.clone())),
            gone: false,
        });
        let (agent, introduced) = watch::channel(Met::Nobody);
        let handle = Arc::new(Handle {
            wake: Notify::new(),
            commands,
            seen: watching,
            agent: introduced,
            pins: journal::Pins::default(),
            clock_due: AtomicBool::new(false),
            last_start: phases::LastStart::default(),
        });
        drivers.insert(container.id.clone(), handle.clone());
        let driver = Driver {
            engine: self.clone(),
            vch: container.vch,
            id: container.id.clone(),
            handle: handle.clone(),
            commands: inbox,
            seen,
            link: None,
            agent,
            token: None,
            guest: GuestFact::Unknown,
            standing: false,
            workbench: None,
            size: told::Size::default(),
            told: told::Told::default(),
            told_network: None,
            nics: Vec::new(),
            failed: None,
            begun: None,
            greet_by: None,
            fresh: false,
            boot: Boot::Cold,
            boots: false,
            has_volumes: !container.spec.mounts.is_empty(),
            held_until: None,
            journal: journal::Follower::default(),
            stopwatch: phases::Stopwatch::default(),
            retry: RETRY_MIN,
        };
        self.0.tasks.spawn(driver.run());
        if let Some(check) = container.spec.health.clone() {
            self.0.tasks.spawn(crate::health::watch(self.clone(), check, handle.clone()));
        }
        handle
    }
}

fn last_exit(status: &Status) -> Option<(u32, Exit)> {
    match status {
        Status::Exited { run, exit } => Some((*run, exit.clone())),
        Status::Created | Status::Starting { .. } | Status::Running { .. } => None,
    }
}

/// The run that a status speaks of; 0 before the first.
pub(crate) fn run_of(status: &Status) -> u32 {
    status.run()
}

impl Driver {
    #[tracing::instrument(name = "driver", skip_all, fields(container.id = %self.id.short()))]
    async fn run(mut self) {
        let stop = self.engine.0.stop.clone();
        loop {
            let went = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                went = self.step() => went,
            };
            let rest = match went {
                Ok(Step::Do(_)) => {
                    self.retry = RETRY_MIN;
                    // Acts may follow each other for long: an agent that does not answer is greeted again and again.
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = self.obey_waiting() => continue,
                    }
                }
                Ok(Step::Idle) => LOOK_EVERY,
                Ok(Step::Wait(at)) => (at - self.engine.now())
                    .to_std()
                    .unwrap_or_default()
                    .clamp(Duration::from_millis(1), LOOK_EVERY),
                Err(EngineError::Store(StoreError::NotFound { .. })) => {
                    self.engine.0.drivers.remove(&self.id);
                    self.seen.send_modify(|seen| seen.gone = true);
                    return;
                }
                Err(EngineError::Fenced) => {
                    tracing::error!("a newer server owns this container; its driver stops");
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "step failed, tried again");
                    self.retry = (self.retry * 2).min(RETRY_MAX);
                    self.retry
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.rest(rest) => {}
            }
        }
    }

    /// Looks, and does one act.
    async fn step(&mut self) -> Result<Step, EngineError> {
        let container = self.engine.store().container(self.vch, &self.id).await?;
        let facts = self.look(&container).await?;
        self.publish(&container);
        let mut step = next(&container.desired, &container.status, &facts, self.engine.now());
        if self.put_away(&step).await? {
            let facts = self.look(&container).await?;
            step = next(&container.desired, &container.status, &facts, self.engine.now());
        }
        if let Step::Do(act) = &step {
            tracing::debug!(act = act.name(), "acts");
            self.stopwatch.begins(act);
            self.perform(act, &container).await?;
            if matches!(act, Act::RecordRunning { .. }) {
                self.stopwatch.ends(&self.handle.last_start, &self.engine.0.observer);
            }
        }
        Ok(step)
    }

    fn publish(&self, container: &Container) {
        self.seen.send_if_modified(|seen| {
            let same = seen.container.as_ref().is_some_and(|old| {
                old.status == container.status
                    && old.desired == container.desired
                    && old.name == container.name
                    && old.endpoints == container.endpoints
            });
            if !same {
                seen.container = Some(Arc::new(container.clone()));
                if let Some(exit) = last_exit(&container.status) {
                    seen.last_exit = Some(exit);
                }
            }
            !same
        });
    }

    async fn look(&mut self, container: &Container) -> Result<Facts, EngineError> {
        let back_end = self.engine.back_end().clone();
        // The machine first, its journal after: a machine that had ended has nothing more to write.
        let machine = match back_end.machines.observe(&self.id).await? {
            None => MachineFact::Absent,
            Some(found) if self.clear_left_over(container, found.run).await? => MachineFact::Absent,
            Some(found) => {
                self.token = Some(found.token);
                self.size = told::Size::of(&found);
                self.boot = found.boot;
                self.nics = found.nics;
                match found.condition {
                    Condition::Running { paused: false, .. } => MachineFact::Running,
                    Condition::Running { paused: true, .. } => MachineFact::Paused,
                    Condition::Ended { reason } => MachineFact::Ended { reason },
                }
            }
        };
        let machine = self.without_workbench(machine);
        if self.link.as_ref().is_some_and(|link| link.agent().is_closed()) {
            self.link = None;
        }
        self.standing = machine == MachineFact::Paused;
        if matches!(machine, MachineFact::Absent | MachineFact::Ended { .. }) {
            self.link = None;
            if !matches!(self.guest, GuestFact::Exited { .. }) {
                self.guest = GuestFact::Unknown;
            }
        }
        let disk = back_end.disks.has_disk(self.vch, container.disk_place()).await?;
        if matches!(container.status, Status::Starting { .. } | Status::Running { .. }) {
            self.read_journal(container).await?;
        }
        // The journal tells of the process, but only an agent that was greeted can be told anything: to write on.
        if machine == MachineFact::Running
            && self.link.is_none()
            && matches!(self.guest, GuestFact::Process { .. })
        {
            self.guest = GuestFact::Unknown;
        }
        self.tell(&machine, container).await;
        if let Err(error) = self.set_network(&machine, container).await {
            // The next look tries again.
            tracing::warn!(error = &error as &dyn std::error::Error, "the machine is not on its networks");
        }
        let run = run_of(&container.status);
        let guest = match &self.failed {
            Some((of, exit)) if *of == run => GuestFact::Exited { run, exit: exit.clone() },
            Some(_) | None => self.guest.clone(),
        };
        Ok(Facts { disk, machine, guest })
    }

    /// Waits until something may have changed.
    async fn rest(&mut self, most: Duration) {
        let live = self.seen.borrow().container.as_ref().is_some_and(|container| {
            matches!(container.status, Status::Starting { .. } | Status::Running { .. })
        });
        let journals = self.engine.back_end().journals.clone();
        let beyond = self.journal.end();
        let agent = self.link.as_ref().map(|link| link.agent().clone());
        let cut_off = async {
            match &agent {
                Some(agent) => agent.closed().await,
                None => std::future::pending().await,
            }
        };
        let command = tokio::select! {
            () = self.handle.wake.notified() => None,
            () = cut_off => None,
            () = tokio::time::sleep(most.min(self.workbench_rest())) => None,
            () = journals.grown(&self.id, beyond), if live => None,
            command = self.commands.recv() => command,
        };
        if let Some(command) = command {
            self.obey(command).await;
        }
    }

    async fn obey_waiting(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command).await;
        }
    }

    async fn obey(&mut self, command: Command) {
        // Nobody to tell is fine: the client left, the signal stands.
        match command {
            Command::Signal { signal, done } => drop(done.send(self.signal(signal).await)),
            Command::Networks { done } => drop(done.send(self.change_networks().await)),
            Command::Limits { done } => drop(done.send(self.change_limits().await)),
            Command::Workbench { done } => {
                let stop = self.engine.0.stop.clone();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    bench = self.workbench() => drop(done.send(bench)),
                }
            }
        }
    }
}
