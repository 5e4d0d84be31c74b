//! What a driver does. Each act may be repeated and may be cut off anywhere.

use super::journal::{start_failed, time_of};
use super::process::{interior, process};
use super::signal::killed_by;
use super::told::Told;
use super::volumes::{HELD_LOOK, Readiness};
use super::{Driver, Met, run_of};
use crate::admission::random;
use crate::containers::event;
use crate::guest::{GuestError, Link};
use crate::networks::{nics, run_events};
use crate::volumes::volume_event;
use crate::{EngineError, Happening};
use bulkhead_guest_protocol::message::{AgentState, ReplyBody, RequestBody, Start, Stdio, TerminalSize};
use bulkhead_machine::{Condition, MachineSpec};
use bulkhead_model::event::NewEvent;
use bulkhead_model::lifecycle::{Act, Desired, Exit, Goal, GuestFact, Status};
use bulkhead_model::volume::uses;
use bulkhead_model::{Boot, Container, Mount};
use bulkhead_store::Record;
use std::time::Duration;
use tokio::time::Instant;

/// A kernel boots in seconds; under emulation on a busy machine it takes its time.
const BOOT_DEADLINE: Duration = Duration::from_secs(30);
const BOOT_DEADLINE_EMULATED: Duration = Duration::from_secs(180);
/// A clone answers at once; under emulation, on a host that has much else to do, after some seconds.
const CLONE_DEADLINE: Duration = Duration::from_secs(5);
const CLONE_DEADLINE_EMULATED: Duration = Duration::from_secs(25);
/// Attaching disks, mounting them, starting the process.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// And filling volumes from the image.
const FILL_DEADLINE: Duration = Duration::from_secs(480);
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// How long a greeting is waited for before the driver looks whether it is still wanted.
pub(super) const GREET_SLICE: Duration = Duration::from_millis(250);
/// A machine whose process is over powers itself off; it gets this long before it is made to.
const POWER_OFF_PATIENCE: Duration = Duration::from_secs(10);
/// With volumes to be written first.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

impl Driver {
    pub(super) async fn perform(&mut self, act: &Act, container: &Container) -> Result<(), EngineError> {
        let back_end = self.engine.back_end().clone();
        if act.touches_machine() {
            // A server that was stopped for a while must not take the agent or the machine from its successor.
            self.engine.store().check_fence(self.engine.0.fence).await?;
        }
        match act {
            Act::BeginRun => {
                self.guest = GuestFact::Unknown;
                self.failed = None;
                self.greet_by = None;
                (self.fresh, self.boots) = (false, false);
                self.begin_journal().await?;
                let status = Status::Starting { run: container.desired.run };
                self.set_status(&status, None, self.record()).await
            }
            Act::CreateDisk => {
                let bytes = container.spec.resources.disk_bytes;
                let made = back_end.disks.create_disk(self.vch, container.disk_place(), bytes).await;
                self.or_fail(made.map_err(Into::into), container)
            }
            Act::StartMachine => self.start_machine(container).await,
            Act::Greet => self.greet(container).await,
            Act::StartProcess => self.start_process(container).await,
            Act::RecordRunning { started_at } => {
                let run = run_of(&container.status);
                let status =
                    Status::Running { run, started_at: *started_at, stop_signalled: false, paused: false };
                let mounts = container.spec.mounts.iter().map(|mount| mounted(container, mount));
                let joined = run_events(container, "connect").into_iter();
                let mut record = joined.chain(mounts).fold(self.record(), Record::event);
                record = record.event(event(container, "start", &[]));
                if container.desired.again {
                    record = record.event(event(container, "restart", &[]));
                }
                self.set_status(&status, None, record).await
            }
            Act::Signal { signal } => {
                self.send_signal(*signal, self.patience(&container.desired)).await?;
                self.record_signal(container, *signal, true).await
            }
            Act::Kill => {
                let over = matches!(container.status, Status::Exited { .. });
                // What it wrote into volumes outlives it, once its kernel has written it.
                let leaves = self.has_volumes;
                if over && (container.desired.goal != Goal::Gone || leaves) {
                    self.await_power_off().await?;
                }
                if !over && (matches!(container.desired.goal, Goal::Stop { .. }) || leaves) {
                    self.kill_from_within(container).await?;
                }
                self.link = None;
                Ok(back_end.machines.kill(&self.id).await?)
            }
            Act::Pause => Ok(back_end.machines.pause(&self.id).await?),
            Act::RecordPaused => self.record_paused(container, true).await,
            Act::Resume => self.resume().await,
            Act::RecordResumed => self.record_paused(container, false).await,
            Act::RecordExit { exit } => self.record_exit(container, exit).await,
            Act::RunAgain => self.run_again(container).await,
            Act::RestartByPolicy => self.restart_by_policy(container).await,
            Act::DeleteMachine => {
                self.link = None;
                self.token = None;
                self.guest = GuestFact::Unknown;
                Ok(back_end.machines.delete(&self.id).await?)
            }
            Act::DeleteDisk => Ok(back_end.disks.delete_disk(self.vch, container.disk_place()).await?),
            Act::Forget => {
                self.engine.0.execs.forget(&self.id);
                self.leave_volumes(container).await?;
                back_end.journals.delete(&self.id).await?;
                let record = self.record().event(event(container, "destroy", &[]));
                self.engine
                    .store()
                    .forget_container(self.engine.0.fence, self.vch, &self.id, &record)
                    .await?;
                if container.endpoints.iter().any(|endpoint| endpoint.lease.is_some()) {
                    self.engine.networks_changed();
                }
                self.engine.0.feed.wake();
                Ok(())
            }
        }
    }

    async fn start_machine(&mut self, container: &Container) -> Result<(), EngineError> {
        let mut gate = None;
        if !uses(&container.spec.mounts).is_empty() {
            let held = self.gate().await;
            match self.ready_volumes(container).await? {
                Readiness::Ready => gate = Some(held),
                Readiness::Unsettled => return self.settle(container, held).await,
                Readiness::NotYet => {
                    drop(held);
                    // Whoever has them needs a moment.
                    let _ = tokio::time::timeout(HELD_LOOK, self.handle.wake.notified()).await;
                    return Ok(());
                }
                Readiness::Held(error) => {
                    self.fail(128, &error.to_string(), container);
                    return Ok(());
                }
            }
        }
        self.link = None;
        if !self.prepare_machine(container).await? {
            // Something else may be wanted by now; else it is looked again.
            return Ok(());
        }
        self.begun = Some(Instant::now());
        let started = self.join_and_start(container).await;
        drop(gate);
        self.greet_by = None;
        self.fresh = started.is_ok();
        match started {
            Err(EngineError::Machine(_) | EngineError::Network(_)) => self.or_fail(started, container),
            other => other,
        }
    }

    pub(super) fn record(&self) -> Record {
        Record::at(self.engine.now())
    }

    pub(super) async fn set_status(
        &self,
        status: &Status,
        desired: Option<&Desired>,
        record: Record,
    ) -> Result<(), EngineError> {
        let fence = self.engine.0.fence;
        self.engine.store().set_status(fence, self.vch, &self.id, status, desired, &record).await?;
        self.engine.0.feed.wake();
        Ok(())
    }

    /// What a start cannot get past ends the run, with the reason for the user.
    fn or_fail(&mut self, done: Result<(), EngineError>, container: &Container) -> Result<(), EngineError> {
        if let Err(error) = done {
            tracing::warn!(error = &error as &dyn std::error::Error, "start failed");
            self.fail(128, &error.to_string(), container);
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, code: i32, message: &str, container: &Container) {
        self.failed = Some((run_of(&container.status), start_failed(code, message, self.engine.now())));
    }

    pub(super) fn boot_deadline(&self) -> Duration {
        let hardware = self.engine.back_end().machines.capabilities().hardware_isolation;
        if hardware { BOOT_DEADLINE } else { BOOT_DEADLINE_EMULATED }
    }

    /// Whether what the machine is cloned from is there. Where it cannot be, the machine boots.
    async fn prepare_machine(&self, container: &Container) -> Result<bool, EngineError> {
        let spec = self.machine_spec(container).await?;
        let prepared = self.engine.back_end().machines.prepare(&spec, GREET_SLICE).await;
        if let Err(error) = &prepared {
            tracing::warn!(error = error as &dyn std::error::Error, "no template was looked for");
        }
        Ok(prepared.unwrap_or(true))
    }

    fn clone_deadline(&self) -> Duration {
        match self.engine.back_end().machines.capabilities().accelerator.as_str() {
            "tcg" => CLONE_DEADLINE_EMULATED,
            _ => CLONE_DEADLINE,
        }
    }

    async fn join_and_start(&self, container: &Container) -> Result<(), EngineError> {
        let container = self.engine.join_networks(container).await?;
        let spec = self.machine_spec(&container).await?;
        Ok(self.engine.back_end().machines.start(&spec).await?)
    }

    pub(super) async fn machine_spec(&self, container: &Container) -> Result<MachineSpec, EngineError> {
        let resources = &container.spec.resources;
        Ok(MachineSpec {
            id: self.id.clone(),
            vch: self.vch,
            placement: container.placement.clone(),
            server: self.engine.0.fence.server,
            cpu_milli: resources.cpu_milli,
            vcpus: resources.vcpus(),
            memory_bytes: resources.memory_bytes,
            layers: container.layers.clone(),
            volumes: self.run_disks(container).await?,
            token: random()?,
            run: run_of(&container.status),
            journal_bytes_max: 2 * self.log_bytes(container).await?,
            nics: nics(&container.endpoints),
            boot: if self.boots { Boot::Cold } else { container.spec.boot },
        })
    }

    /// How long the agent may take to put everything in its place.
    pub(super) fn start_deadline(container: &Container) -> Duration {
        let fills = container.spec.mounts.iter().any(|mount| mount.fills);
        if fills { FILL_DEADLINE } else { START_DEADLINE }
    }

    /// Asks the agent who it is; comes back before it has answered, so that a stop during boot is heard.
    pub(super) async fn greet(&mut self, container: &Container) -> Result<(), EngineError> {
        let fresh_clone = self.fresh && self.boot == Boot::Clone;
        let boot_deadline = if fresh_clone { self.clone_deadline() } else { self.boot_deadline() };
        let by = *self.greet_by.get_or_insert_with(|| Instant::now() + boot_deadline);
        let token = self.token.unwrap_or_default();
        if self.link.is_none() {
            let channel = self.engine.back_end().machines.channel(&self.id).await?;
            self.link = Some(Link::open(channel, random()?, &self.engine.0.tasks));
        }
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        match link.greeting(&token, GREET_SLICE).await {
            Ok(Some(hello)) => {
                self.greet_by = None;
                self.journal.limit = 0;
                self.guest = match hello.state {
                    AgentState::Ready => GuestFact::Ready,
                    AgentState::Running { run, started_unix_ns, .. } => {
                        self.introduce(run);
                        self.handle.clock_is_due();
                        self.told = Told::default();
                        GuestFact::Process { run, started_at: time_of(started_unix_ns) }
                    }
                    // Its last words are in the journal, which the next look reads.
                    AgentState::Over { .. } => GuestFact::Unknown,
                };
                Ok(())
            }
            Ok(None) if Instant::now() < by => Ok(()),
            Ok(None) if fresh_clone => {
                tracing::warn!("the clone said nothing within {boot_deadline:?}: a machine boots instead");
                self.boot_instead().await
            }
            Ok(None) => {
                self.link = None;
                self.greet_by = None;
                let text = format!("the guest did not come up within {} s", boot_deadline.as_secs());
                match container.status {
                    Status::Starting { .. } => self.fail(128, &text, container),
                    // It ran, and cannot be spoken to: it is left running, and asked again.
                    Status::Created | Status::Running { .. } | Status::Exited { .. } => {
                        tracing::warn!("{text}")
                    }
                }
                Ok(())
            }
            // Of a server before this one. It does its work, and says in its journal how that ended.
            Err(error @ GuestError::OtherVersion(_))
                if matches!(container.status, Status::Running { .. }) =>
            {
                self.link = None;
                self.greet_by = None;
                self.agent.send_replace(Met::Stranger(format!(
                    "{error}; container {} runs on, and can be worked with again after a restart",
                    container.id.short()
                )));
                self.guest_result(Err(error))
            }
            Err(
                error @ (GuestError::Impostor
                | GuestError::Protocol(_)
                | GuestError::Refused(_)
                | GuestError::OtherVersion(_)),
            ) => {
                self.link = None;
                self.fail(128, &error.to_string(), container);
                Ok(())
            }
            Err(error) => {
                self.link = None;
                self.guest_result(Err(error))
            }
        }
    }

    /// In place of a clone that says nothing, and in which nothing of the container's ever ran.
    async fn boot_instead(&mut self) -> Result<(), EngineError> {
        (self.link, self.greet_by) = (None, None);
        self.boots = true;
        let machines = &self.engine.back_end().machines;
        machines.kill(&self.id).await?;
        Ok(machines.delete(&self.id).await?)
    }

    /// Lets others talk to the agent of this run.
    fn introduce(&self, run: u32) {
        let met = self.link.as_ref().map_or(Met::Nobody, |link| Met::Agent(run, link.agent().clone()));
        self.agent.send_replace(met);
    }

    async fn start_process(&mut self, container: &Container) -> Result<(), EngineError> {
        let run = run_of(&container.status);
        let spec = &container.spec;
        let journal_offset = self.begin_journal().await?;
        let journal_limit = journal_offset + 2 * self.log_bytes(container).await?;
        self.fresh = false;
        let interior = interior(spec);
        self.told = Told { limits: Some(interior.limits), still: Some(false), cpu_share: None };
        let network = self.engine.network_of(container).await;
        let start = Start {
            run,
            token: self.token.unwrap_or_default(),
            entropy: random()?,
            unix_ns: u64::try_from(self.engine.now().timestamp_nanos_opt().unwrap_or(0)).unwrap_or(0),
            hostname: spec.hostname.clone(),
            domain_name: spec.process.domain_name.clone(),
            stdio: Stdio {
                stdin: spec.stdio.open_stdin,
                terminal: spec
                    .stdio
                    .tty
                    .then_some(TerminalSize { rows: spec.stdio.rows, columns: spec.stdio.columns }),
            },
            layer_count: u32::try_from(container.layers.len()).unwrap_or(u32::MAX),
            process: process(spec),
            interior,
            network: network.clone(),
            journal_offset,
            journal_limit,
        };
        let Some(link) = &self.link else {
            self.guest = GuestFact::Unknown;
            return Ok(());
        };
        let (agent, deadline) = (link.agent().clone(), Self::start_deadline(container));
        let body = RequestBody::Start(Box::new(start));
        let answer = match self.call_while(Self::check_starts, &agent, body, deadline).await {
            // Somebody wants something else of it.
            Err(EngineError::Conflict(_)) => {
                self.link = None;
                self.guest = GuestFact::Unknown;
                return Ok(());
            }
            other => other?,
        };
        match answer {
            Ok(ReplyBody::Started { unix_ns, took, .. }) => {
                self.stopwatch.guest_took(took);
                self.journal.limit = journal_limit;
                self.told_network = Some(network);
                self.introduce(run);
                self.guest = GuestFact::Process { run, started_at: time_of(unix_ns) };
                if let Some(begun) = self.begun.take() {
                    self.engine.0.observer.tell(Happening::Started { took: begun.elapsed() });
                }
                Ok(())
            }
            Ok(ReplyBody::StartFailed { code, message }) => {
                self.fail(code, &message, container);
                Ok(())
            }
            Ok(other) => {
                self.fail(128, &format!("the agent broke the protocol: {other:?}"), container);
                Ok(())
            }
            Err(GuestError::Refused(message)) => {
                self.fail(128, &message, container);
                Ok(())
            }
            Err(error) => {
                self.link = None;
                self.guest = GuestFact::Unknown;
                self.guest_result(Err(error))
            }
        }
    }

    pub(super) async fn await_power_off(&mut self) -> Result<(), EngineError> {
        let patience = if self.has_volumes { WRITE_PATIENCE } else { POWER_OFF_PATIENCE };
        let until = Instant::now() + patience;
        while Instant::now() < until {
            match self.engine.back_end().machines.observe(&self.id).await? {
                Some(found) if matches!(found.condition, Condition::Running { .. }) => {
                    // The back end wakes us when it ends.
                    let _ =
                        tokio::time::timeout(Duration::from_millis(100), self.handle.wake.notified()).await;
                }
                Some(_) | None => return Ok(()),
            }
        }
        Ok(())
    }

    async fn record_exit(&mut self, container: &Container, exit: &Exit) -> Result<(), EngineError> {
        let run = run_of(&container.status);
        // The guest says when; a restart must not wait for a clock that is ahead.
        let exit = &Exit { finished_at: exit.finished_at.min(self.engine.now()), ..exit.clone() };
        let code = exit.code.to_string();
        let mut record = self.record();
        if exit.oom_killed {
            record = record.event(event(container, "oom", &[]));
        }
        if exit.started_at.is_none() {
            self.engine.0.observer.tell(Happening::StartFailed);
        }
        // A process that never ran did not die; but it may have come onto its networks.
        let joined = container.endpoints.iter().any(|place| place.lease.is_some());
        if exit.started_at.is_none() && joined {
            let (came, left) = (run_events(container, "connect"), run_events(container, "disconnect"));
            record = came.into_iter().chain(left).fold(record, Record::event);
        }
        if let Some(started_at) = exit.started_at {
            if let Some(number) = killed_by(container, exit, self.engine.now()) {
                let number = number.to_string();
                record = record.event(event(container, "kill", &[("signal", &number)]));
            }
            record = run_events(container, "disconnect").into_iter().fold(record, Record::event);
            for mount in &container.spec.mounts {
                let id = container.id.as_str();
                record = record.event(volume_event(&mount.name, "unmount", &[("container", id)]));
            }
            let seconds = (exit.finished_at - started_at).num_seconds().max(0).to_string();
            record =
                record.event(event(container, "die", &[("exitCode", &code), ("execDuration", &seconds)]));
        }
        if matches!(container.desired.goal, Goal::Stop { .. }) {
            record = record.event(event(container, "stop", &[]));
        }
        let gone = container.desired.gone(true);
        let desired = (container.spec.auto_remove && !container.desired.again).then_some(&gone);
        self.set_status(&Status::Exited { run, exit: exit.clone() }, desired, record).await?;
        if !container.endpoints.is_empty() {
            // Its addresses and ports were given back with that.
            self.engine.networks_changed();
        }
        self.failed = None;
        self.greet_by = None;
        Ok(())
    }

    pub(super) fn guest_result<T>(&self, result: Result<T, GuestError>) -> Result<T, EngineError> {
        result.map_err(|error| unreachable_agent(&error.to_string(), self))
    }
}

fn mounted(container: &Container, mount: &Mount) -> NewEvent {
    let writable = (!mount.read_only).to_string();
    let special = [
        ("container", container.id.as_str()),
        ("destination", mount.target.as_str()),
        ("propagation", ""),
        ("read/write", writable.as_str()),
    ];
    volume_event(&mount.name, "mount", &special)
}

pub(super) fn unreachable_agent(why: &str, driver: &Driver) -> EngineError {
    bulkhead_machine::MachineError::Channel { id: driver.id.clone(), why: why.into() }.into()
}
