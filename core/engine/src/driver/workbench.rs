//! A machine that is there for what is in it, while its container's processes are not, or stand still: one that does
//! not run is started without its process, one that is paused goes on with its processes frozen. It is put away once
//! nobody has used it for a moment, or when anything else is to be done with the container.
//!
//! It is in nobody's records. After a crash it is a machine that runs while its container rests or is paused, which the
//! next driver ends or pauses as any such.

use super::acts::{CALL_DEADLINE, GREET_SLICE};
use super::patience::Wanted;
use super::volumes::{Gate, told};
use super::{Command, Driver, Handle, run_of};
use crate::EngineError;
use crate::admission::random;
use crate::guest::{Agent, GuestError, Link};
use bulkhead_guest_protocol::files::Assemble;
use bulkhead_guest_protocol::message::{AgentState, RequestBody};
use bulkhead_machine::{MachineError, MachineSpec};
use bulkhead_model::Container;
use bulkhead_model::lifecycle::{Act, Facts, GuestFact, MachineFact, Status, Step, next};
use bulkhead_model::volume::VolumeUse;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Several tasks in a row, as `docker cp` asks for, find it there.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// The agent of such a machine, which stays while it is held.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) agent: Agent,
    hold: Option<Arc<()>>,
    handle: Arc<Handle>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.hold = None;
        self.handle.wake();
    }
}

#[derive(Debug)]
pub(super) struct Workbench {
    /// `None`: it is a paused container's, and the driver's own link leads there.
    bare: Option<Link>,
    held: Arc<()>,
    idle_since: Option<Instant>,
}

impl Handle {
    /// The container's machine, for what is in it. `Conflict`: the container runs, or is about to do something else.
    pub(crate) async fn workbench(&self) -> Result<Bench, EngineError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Workbench { done }).await.map_err(|_| EngineError::Stopping)?;
        answer.await.map_err(|_| EngineError::Stopping)?
    }
}

impl Driver {
    pub(super) async fn workbench(&mut self) -> Result<Bench, EngineError> {
        // What is left of a run goes first.
        while let Step::Do(_) = self.step().await? {}
        if self.workbench.is_none() {
            let container = self.engine.store().container(self.vch, &self.id).await?;
            let paused = self.standing && matches!(container.status, Status::Running { paused: true, .. });
            if !paused {
                // A machine that is there now is not ours to clear away.
                self.check_rests(&container)?;
            }
            let bare = match paused {
                true => self.wake(&container).await.map(|()| None),
                false => {
                    let gate = self.free_volumes(&container).await?;
                    let run = run_of(&container.status);
                    self.set_up(&container, run, gate, Self::check_rests).await.map(Some)
                }
            };
            match bare {
                Ok(bare) => {
                    self.workbench = Some(Workbench { bare, held: Arc::new(()), idle_since: None });
                }
                Err(error) => {
                    self.clear_away(paused).await?;
                    return Err(error);
                }
            }
        }
        let Some(workbench) = &mut self.workbench else { return Err(EngineError::Stopping) };
        let Some(link) = workbench.bare.as_ref().or(self.link.as_ref()) else {
            return Err(EngineError::Stopping);
        };
        workbench.idle_since = None;
        Ok(Bench {
            agent: link.agent().clone(),
            hold: Some(workbench.held.clone()),
            handle: self.handle.clone(),
        })
    }

    /// The agent of a machine without a process. `wanted`: whether it still is, as the container is now.
    pub(super) async fn set_up(
        &mut self,
        container: &Container,
        run: u32,
        gate: Gate,
        wanted: Wanted,
    ) -> Result<Link, EngineError> {
        let back_end = self.engine.back_end().clone();
        if !back_end.disks.has_disk(self.vch, container.disk_place()).await? {
            let bytes = container.spec.resources.disk_bytes;
            back_end.disks.create_disk(self.vch, container.disk_place(), bytes).await?;
        }
        let volumes = self.bench_disks(container).await?;
        let spec = MachineSpec { run, volumes, nics: Vec::new(), ..self.machine_spec(container).await? };
        while !back_end.machines.prepare(&spec, GREET_SLICE).await? {
            wanted(self, &self.engine.store().container(self.vch, &self.id).await?)?;
        }
        back_end.machines.start(&spec).await?;
        drop(gate);
        let channel = back_end.machines.channel(&self.id).await?;
        let mut link = Link::open(channel, random()?, &self.engine.0.tasks);
        let deadline = self.boot_deadline();
        let by = Instant::now() + deadline;
        let state = loop {
            match link.greeting(&spec.token, GREET_SLICE).await.map_err(|error| self.broken(&error))? {
                Some(hello) => break hello.state,
                None if Instant::now() > by => return Err(EngineError::TimedOut(deadline.as_secs())),
                // Whoever wants to start it need not wait for the boot.
                None => wanted(self, &self.engine.store().container(self.vch, &self.id).await?)?,
            }
        };
        if state != AgentState::Ready {
            return Err(self.broken(&GuestError::Protocol(format!("{state:?} at its start"))));
        }
        let volumes: Vec<_> =
            spec.volumes.iter().map(|disk| VolumeUse { id: disk.at.id, read_only: disk.read_only }).collect();
        let assemble = Assemble {
            token: spec.token,
            unix_ns: u64::try_from(self.engine.now().timestamp_nanos_opt().unwrap_or(0)).unwrap_or(0),
            layer_count: u32::try_from(container.layers.len()).unwrap_or(u32::MAX),
            volumes: told(&container.spec.mounts, &volumes),
        };
        let (body, deadline) = (RequestBody::Assemble(assemble), Self::start_deadline(container));
        let done = self.call_while(wanted, link.agent(), body, deadline).await?;
        done.map_err(|error| self.broken(&error))?;
        Ok(link)
    }

    pub(super) fn broken(&self, error: &GuestError) -> EngineError {
        MachineError::Channel { id: self.id.clone(), why: error.to_string() }.into()
    }

    fn check_rests(&self, container: &Container) -> Result<(), EngineError> {
        let facts = Facts { disk: true, machine: MachineFact::Absent, guest: GuestFact::Unknown };
        let idle =
            !matches!(next(&container.desired, &container.status, &facts, self.engine.now()), Step::Do(_));
        match container.status {
            Status::Created | Status::Exited { .. } if idle => Ok(()),
            _ => Err(EngineError::Conflict(format!(
                "container {} is on its way to another state",
                self.id.short()
            ))),
        }
    }

    /// What the machine is to the container's life: a workbench is none, or one that is paused.
    pub(super) fn without_workbench(&mut self, machine: MachineFact) -> MachineFact {
        let is_open = |link: &Link| !link.agent().is_closed();
        match (&self.workbench, machine) {
            (Some(Workbench { bare: Some(link), .. }), MachineFact::Running) if is_open(link) => {
                MachineFact::Absent
            }
            (Some(Workbench { bare: None, .. }), MachineFact::Running)
                if self.link.as_ref().is_some_and(is_open) =>
            {
                MachineFact::Paused
            }
            (_, machine) => {
                self.workbench = None;
                machine
            }
        }
    }

    /// Puts the workbench away if the container is to do something, or nobody uses it. Whether it did.
    pub(super) async fn put_away(&mut self, step: &Step) -> Result<bool, EngineError> {
        let Some(workbench) = &mut self.workbench else { return Ok(false) };
        match Arc::strong_count(&workbench.held) {
            1 => drop(workbench.idle_since.get_or_insert_with(Instant::now)),
            _ => workbench.idle_since = None,
        }
        let idle = workbench.idle_since.is_some_and(|since| since.elapsed() >= IDLE_MAX);
        if !idle && !matches!(step, Step::Do(_)) {
            return Ok(false);
        }
        let Some(workbench) = self.workbench.take() else { return Ok(false) };
        match &workbench.bare {
            // It goes on anyway.
            None if *step == Step::Do(Act::Resume) => return Ok(true),
            None => {}
            // So that its disk is clean; one that does not answer is cut off.
            Some(link) => match link.call(RequestBody::PowerOff, CALL_DEADLINE).await {
                Ok(_) => self.await_power_off().await?,
                Err(error) => tracing::debug!(%error, "a machine without a process did not power off"),
            },
        }
        self.clear_away(workbench.bare.is_none()).await?;
        Ok(true)
    }

    pub(super) async fn clear_away(&self, paused: bool) -> Result<(), EngineError> {
        let machines = &self.engine.back_end().machines;
        if paused {
            return Ok(machines.pause(&self.id).await?);
        }
        machines.kill(&self.id).await?;
        Ok(machines.delete(&self.id).await?)
    }

    /// By when it has to be looked at again.
    pub(super) fn workbench_rest(&self) -> Duration {
        match &self.workbench {
            Some(Workbench { idle_since: Some(since), .. }) => IDLE_MAX.saturating_sub(since.elapsed()),
            Some(_) | None => Duration::MAX,
        }
    }
}
