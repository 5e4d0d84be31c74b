//! The machines of a [`Sim`].

use super::{Machine, Sim, Verb, agent};
use crate::networks::Nic;
use crate::places::Places;
use crate::state::{MachineEvent, MachineState, StartStep};
use crate::templates::TemplateFacts;
use crate::{
    Capabilities, Channel, Condition, MachineCost, MachineError, MachineFacts, MachineSpec, Machines,
    MemoryFacts,
};
use async_trait::async_trait;
use bulkhead_model::{ContainerId, EndpointId, VolumeId};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

const PIPE_BYTES: usize = 64 << 10;
/// What a machine could have while it runs.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

#[async_trait]
impl Machines for Sim {
    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    async fn places(&self) -> Result<Places, MachineError> {
        Ok(self.lock().places.clone())
    }

    async fn prepare(&self, _: &MachineSpec, _: Duration) -> Result<bool, MachineError> {
        Ok(true)
    }

    async fn start(&self, spec: &MachineSpec) -> Result<(), MachineError> {
        self.enter(Verb::Start)?;
        let mut world = self.lock();
        for layer in &spec.layers {
            if !world.layers.contains_key(&(spec.vch, layer.clone())) {
                return Err(MachineError::NoSuchLayer(layer.clone()));
            }
        }
        let refuse = |why: String| MachineError::Start { id: spec.id.clone(), why };
        world.places.check(&spec.placement)?;
        if world.disks.get(&(spec.vch, spec.id.clone())) != Some(&spec.placement.datastore) {
            return Err(refuse("its disk is not there".into()));
        }
        for disk in &spec.volumes {
            world.check_folder(spec.vch, &disk.at)?;
            if !world.volumes.contains_key(&super::disks::key(spec.vch, &disk.at)) {
                return Err(MachineError::NoSuchVolume(disk.at.id));
            }
            let holds = |machine: &Machine| {
                let mut disks = machine.spec.volumes.iter();
                machine.spec.id != spec.id
                    && matches!(machine.state, MachineState::Running { .. })
                    && disks.any(|held| held.at.id == disk.at.id && !(held.read_only && disk.read_only))
            };
            if world.machines.values().any(holds) {
                return Err(refuse(format!("volume {} is in another machine", disk.at.id)));
            }
        }
        let state =
            world.machines.get(&spec.id).map_or(MachineState::Absent, |machine| machine.state.clone());
        match state.start(spec.run).map_err(|error| refuse(error.to_string()))? {
            StartStep::Nothing => return Ok(()),
            StartStep::Launch => {}
        }
        let started = MachineEvent::Started { run: spec.run, at: chrono::Utc::now() };
        world.journals.entry(spec.id.clone()).or_default();
        world.machines.insert(
            spec.id.clone(),
            Machine {
                spec: spec.clone(),
                state: state.after(started),
                guest: Arc::new(agent::Guest::new(spec)),
                power: self.0.stop.child_token(),
                channel: CancellationToken::new(),
                plugged_bytes: 0,
            },
        );
        drop(world);
        let _ = self.0.changes.send(spec.id.clone());
        Ok(())
    }

    async fn observe(&self, id: &ContainerId) -> Result<Option<MachineFacts>, MachineError> {
        self.enter(Verb::Observe)?;
        Ok(self.lock().machines.get(id).and_then(facts))
    }

    async fn list(&self) -> Result<Vec<MachineFacts>, MachineError> {
        Ok(self.lock().machines.values().filter_map(facts).collect())
    }

    async fn cost(&self, id: &ContainerId) -> Result<Option<MachineCost>, MachineError> {
        let runs = |machine: &&Machine| matches!(machine.state, MachineState::Running { .. });
        Ok(self.lock().machines.get(id).filter(runs).map(|_| MachineCost::default()))
    }

    async fn kill(&self, id: &ContainerId) -> Result<(), MachineError> {
        self.enter(Verb::Kill)?;
        self.end(id, "killed");
        Ok(())
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), MachineError> {
        self.enter(Verb::Pause)?;
        self.freeze(id, true)
    }

    async fn resume(&self, id: &ContainerId) -> Result<(), MachineError> {
        self.enter(Verb::Resume)?;
        self.freeze(id, false)
    }

    async fn set_cpu_share(&self, id: &ContainerId, cpu_milli: u32) -> Result<(), MachineError> {
        match self.lock().machines.get_mut(id) {
            Some(machine) if matches!(machine.state, MachineState::Running { .. }) => {
                machine.spec.cpu_milli = cpu_milli;
                Ok(())
            }
            Some(_) | None => Err(MachineError::NoSuchMachine(id.clone())),
        }
    }

    async fn grow_memory(&self, id: &ContainerId, bytes: u64) -> Result<(), MachineError> {
        self.enter(Verb::GrowMemory)?;
        match self.lock().machines.get_mut(id) {
            Some(machine) if matches!(machine.state, MachineState::Running { .. }) => {
                let more = bytes.saturating_sub(machine.spec.memory_bytes);
                machine.spec.memory_bytes += more;
                machine.plugged_bytes += more;
                Ok(())
            }
            Some(_) | None => Err(MachineError::NoSuchMachine(id.clone())),
        }
    }

    async fn volume_grown(&self, _: &ContainerId, _: VolumeId, _: u64) -> Result<(), MachineError> {
        Ok(())
    }

    async fn plug(&self, id: &ContainerId, nic: &Nic) -> Result<(), MachineError> {
        self.enter(Verb::Plug)?;
        let mut world = self.lock();
        let machine = world.machines.get_mut(id).ok_or_else(|| MachineError::NoSuchMachine(id.clone()))?;
        if !machine.spec.nics.iter().any(|one| one.endpoint == nic.endpoint) {
            machine.spec.nics.push(nic.clone());
        }
        Ok(())
    }

    async fn unplug(&self, id: &ContainerId, endpoint: &EndpointId) -> Result<(), MachineError> {
        self.enter(Verb::Unplug)?;
        if let Some(machine) = self.lock().machines.get_mut(id) {
            machine.spec.nics.retain(|nic| nic.endpoint != *endpoint);
        }
        Ok(())
    }

    async fn delete(&self, id: &ContainerId) -> Result<(), MachineError> {
        self.enter(Verb::Delete)?;
        let mut world = self.lock();
        let state = world.machines.get(id).map_or(MachineState::Absent, |machine| machine.state.clone());
        let why =
            |error: crate::state::StateError| MachineError::Start { id: id.clone(), why: error.to_string() };
        if state.delete().map_err(why)? {
            world.machines.remove(id);
            world.silent.remove(id);
            world.estranged.remove(id);
        }
        Ok(())
    }

    async fn channel(&self, id: &ContainerId) -> Result<Box<dyn Channel>, MachineError> {
        self.enter(Verb::Channel)?;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let mut world = self.lock();
        let machine = world.machines.get_mut(id).ok_or_else(|| MachineError::NoSuchMachine(id.clone()))?;
        if !matches!(machine.state, MachineState::Running { .. }) {
            return Err(MachineError::Channel { id: id.clone(), why: "the machine has ended".into() });
        }
        machine.channel.cancel();
        machine.channel = machine.power.child_token();
        let (guest, until) = (machine.guest.clone(), machine.channel.clone());
        let sim: Weak<super::Shared> = Arc::downgrade(&self.0);
        let power = machine.power.clone();
        drop(world);
        // Owned by the machine: its power token ends it, and the last clone of the sim ends all.
        tokio::spawn(async move {
            tokio::select! {
                () = until.cancelled() => {}
                () = agent::serve(sim, guest, power, theirs) => {}
            }
        });
        Ok(Box::new(ours))
    }

    async fn templates(&self) -> Result<Vec<TemplateFacts>, MachineError> {
        Ok(Vec::new())
    }

    async fn build_template(&self, _: u32, _: u64) -> Result<String, MachineError> {
        Err(MachineError::Template("simulated machines are not cloned".into()))
    }

    async fn remove_template(&self, _: &str) -> Result<bool, MachineError> {
        Ok(false)
    }

    fn changes(&self) -> broadcast::Receiver<ContainerId> {
        self.0.changes.subscribe()
    }
}

impl Sim {
    fn freeze(&self, id: &ContainerId, frozen: bool) -> Result<(), MachineError> {
        match self.lock().machines.get(id) {
            Some(machine) if matches!(machine.state, MachineState::Running { .. }) => {
                machine.guest.frozen.send_replace(frozen);
            }
            Some(_) | None => return Err(MachineError::NoSuchMachine(id.clone())),
        }
        let _ = self.0.changes.send(id.clone());
        Ok(())
    }
}

fn facts(machine: &Machine) -> Option<MachineFacts> {
    let (run, condition) = match &machine.state {
        MachineState::Absent => return None,
        MachineState::Running { run, since } => {
            let paused = *machine.guest.frozen.borrow();
            (*run, Condition::Running { pid: None, since: *since, paused })
        }
        MachineState::Ended { run, reason } => (*run, Condition::Ended { reason: reason.clone() }),
    };
    Some(MachineFacts {
        id: machine.spec.id.clone(),
        vch: machine.spec.vch,
        placement: machine.spec.placement.clone(),
        server: machine.spec.server,
        run,
        vcpus: machine.spec.vcpus,
        memory: MemoryFacts {
            memory_bytes: machine.spec.memory_bytes,
            plugged_bytes: machine.plugged_bytes,
            memory_bytes_max: MEMORY_BYTES_MAX,
        },
        token: machine.spec.token,
        boot: machine.spec.boot,
        template: None,
        nics: machine.spec.nics.iter().map(|nic| nic.endpoint.clone()).collect(),
        condition,
    })
}
