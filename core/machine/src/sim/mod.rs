//! The simulated back end: machines without a hypervisor, for tests and for trying the API.
//!
//! Its machines follow the same state machine as real ones, and their agent speaks the real protocol over a pipe in
//! memory and writes a real journal. What a process does is a little script; see [`script`]. Faults are injected by
//! name. A `Sim` outlives the engines that use it, as real machines outlive a server.

mod agent;
mod disks;
mod facts;
mod inventory;
mod journals;
mod machines;
mod networks;
mod process;
pub mod script;

use crate::places::Places;
use crate::state::{MachineEvent, MachineState};
use crate::{BackEnd, Capabilities, MachineError, MachineSpec};
use bulkhead_guest_protocol::message::Limits;
use bulkhead_model::placement::DatastoreName;
use bulkhead_model::ports::Protocol;
use bulkhead_model::{ContainerId, Digest, VchId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

/// The port's verbs, for faults and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Start,
    Observe,
    Kill,
    Pause,
    Resume,
    Delete,
    Channel,
    ReadJournal,
    ReleaseJournal,
    DeleteJournal,
    CreateDisk,
    HasDisk,
    DeleteDisk,
    CommitLayer,
    DeleteLayer,
    CreateVolume,
    DeleteVolume,
    ApplyNetworks,
    Plug,
    Unplug,
    GrowMemory,
}

impl Verb {
    pub const ALL: [Verb; 21] = [
        Verb::Start,
        Verb::Observe,
        Verb::Kill,
        Verb::Pause,
        Verb::Resume,
        Verb::Delete,
        Verb::Channel,
        Verb::ReadJournal,
        Verb::ReleaseJournal,
        Verb::DeleteJournal,
        Verb::CreateDisk,
        Verb::HasDisk,
        Verb::DeleteDisk,
        Verb::CommitLayer,
        Verb::DeleteLayer,
        Verb::CreateVolume,
        Verb::DeleteVolume,
        Verb::ApplyNetworks,
        Verb::Plug,
        Verb::Unplug,
        Verb::GrowMemory,
    ];
}

type Hook = Arc<dyn Fn(Verb, u64) + Send + Sync>;

/// A whole simulated installation. Cloning shares it; its tasks end with the last clone.
#[derive(Clone)]
pub struct Sim(Arc<Shared>);

struct Shared {
    capabilities: Capabilities,
    world: Mutex<World>,
    changes: broadcast::Sender<ContainerId>,
    disturbed: watch::Sender<u64>,
    stop: CancellationToken,
}

#[derive(Default)]
struct World {
    machines: HashMap<ContainerId, Machine>,
    journals: HashMap<ContainerId, Journal>,
    /// With their datastores.
    disks: HashMap<(VchId, ContainerId), DatastoreName>,
    places: Places,
    layers: BTreeMap<(VchId, Digest), Arc<disks::LayerFile>>,
    /// With their sizes.
    volumes: BTreeMap<disks::VolumeKey, u64>,
    /// Folders of the host that are ready for volumes.
    folders: BTreeSet<(VchId, PathBuf)>,
    faults: HashMap<Verb, VecDeque<String>>,
    broken: HashMap<Verb, String>,
    calls: BTreeMap<Verb, u64>,
    hook: Option<Hook>,
    hold_boot: bool,
    hold_start: bool,
    held: HashSet<ContainerId>,
    silent: HashSet<ContainerId>,
    estranged: HashSet<ContainerId>,
    networks: Vec<crate::networks::VchNetworks>,
    used_ports: HashSet<(Protocol, u16)>,
}

struct Machine {
    spec: MachineSpec,
    state: MachineState,
    guest: Arc<agent::Guest>,
    /// Ends what the machine runs.
    power: CancellationToken,
    /// Ends the last channel when a new one comes.
    channel: CancellationToken,
    /// Of its memory, what came since its start.
    plugged_bytes: u64,
}

#[derive(Default)]
struct Journal {
    start: u64,
    data: VecDeque<u8>,
    grown: Arc<Notify>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("machines", &self.lock().machines.len()).finish_non_exhaustive()
    }
}

impl Default for Sim {
    fn default() -> Self {
        Self::new()
    }
}

impl Sim {
    pub fn new() -> Self {
        Self::with(Places::simulated_default())
    }

    /// With those places.
    pub fn with(places: Places) -> Self {
        let capabilities = Capabilities {
            back_end: "sim".into(),
            accelerator: "sim".into(),
            hardware_isolation: false,
            version: env!("CARGO_PKG_VERSION").into(),
            guest_kernel: "0.0.0-simulated".into(),
            host_name: "simulated".into(),
            host_cpus: 8,
            host_memory_bytes: 64 << 30,
            vcpus_max: 8,
            layers_max: 127,
            volumes_max: 64,
            limits: "none".into(),
        };
        let (changes, _) = broadcast::channel(1024);
        let stop = CancellationToken::new();
        let disturbed = watch::Sender::new(0);
        let world = Mutex::new(World { places, ..World::default() });
        Self(Arc::new(Shared { capabilities, world, changes, disturbed, stop }))
    }

    pub fn back_end(&self) -> BackEnd {
        let this = Arc::new(self.clone());
        BackEnd {
            machines: this.clone(),
            journals: this.clone(),
            disks: this.clone(),
            networks: this.clone(),
            inventory: this,
        }
    }

    /// The next call of `verb` fails with this text; may be queued.
    pub fn fail_next(&self, verb: Verb, text: &str) {
        self.lock().faults.entry(verb).or_default().push_back(text.into());
    }

    /// Until it is to succeed again (`None`).
    pub fn fail_always(&self, verb: Verb, text: Option<&str>) {
        let mut world = self.lock();
        match text {
            Some(text) => drop(world.broken.insert(verb, text.into())),
            None => drop(world.broken.remove(&verb)),
        }
    }

    /// Called on every verb, with the number of calls of all verbs so far.
    pub fn on_call(&self, hook: impl Fn(Verb, u64) + Send + Sync + 'static) {
        self.lock().hook = Some(Arc::new(hook));
    }

    pub fn clear_hook(&self) {
        self.lock().hook = None;
    }

    pub fn calls(&self, verb: Verb) -> u64 {
        self.lock().calls.get(&verb).copied().unwrap_or(0)
    }

    /// Machines that run.
    pub fn running(&self) -> Vec<ContainerId> {
        let world = self.lock();
        let running = |machine: &Machine| matches!(machine.state, MachineState::Running { .. });
        world.machines.iter().filter(|(_, machine)| running(machine)).map(|(id, _)| id.clone()).collect()
    }

    /// Everything that exists: machines, journals, disks and layers, counted.
    pub fn leftovers(&self) -> (usize, usize, usize, usize) {
        let world = self.lock();
        (world.machines.len(), world.journals.len(), world.disks.len(), world.layers.len())
    }

    /// Sizes of all disks of volumes.
    pub fn volume_sizes(&self) -> Vec<u64> {
        self.lock().volumes.values().copied().collect()
    }

    /// The folders of the host in which there are volumes, each as often as there are.
    pub fn volume_folders(&self) -> Vec<Option<PathBuf>> {
        self.lock().volumes.keys().map(|(_, folder, _)| folder.clone()).collect()
    }

    /// What a folder for volumes lies on is not mounted any more; [`crate::Disks::open_folder`] brings it back.
    pub fn unmount(&self, vch: VchId, folder: &Path) {
        self.lock().folders.remove(&(vch, folder.to_owned()));
    }

    /// The volumes that a machine has, and whether it can only read each.
    pub fn attached(&self, id: &ContainerId) -> Vec<bool> {
        let world = self.lock();
        let machine = world.machines.get(id);
        machine
            .map(|machine| machine.spec.volumes.iter().map(|disk| disk.read_only).collect())
            .unwrap_or_default()
    }

    /// What a step `probe` in a machine ends with from now on.
    pub fn set_probe_code(&self, id: &ContainerId, code: i32) {
        if let Some(machine) = self.lock().machines.get(id) {
            machine.guest.probe_code.store(code, Ordering::Relaxed);
        }
    }

    /// The limits that the guest of a machine was last told.
    pub fn limits(&self, id: &ContainerId) -> Option<Limits> {
        let guest = self.lock().machines.get(id)?.guest.clone();
        let limits = *guest.limits.lock().unwrap_or_else(PoisonError::into_inner);
        Some(limits)
    }

    /// How often the clock of a machine was set since it started.
    pub fn clock_sets(&self, id: &ContainerId) -> Option<u32> {
        Some(self.lock().machines.get(id)?.guest.clock_sets.load(Ordering::Relaxed))
    }

    /// The processes in a machine hold so much memory from now on, and do not give it back.
    pub fn hold_memory(&self, id: &ContainerId, bytes: u64) {
        if let Some(machine) = self.lock().machines.get(id) {
            machine.guest.memory_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// What a machine has: thousandths of a vCPU, vCPUs, bytes of memory.
    pub fn size(&self, id: &ContainerId) -> Option<(u32, u32, u64)> {
        let world = self.lock();
        let spec = &world.machines.get(id)?.spec;
        Some((spec.cpu_milli, spec.vcpus, spec.memory_bytes))
    }

    /// Whether the processes of a machine stand still, and whether all of it does.
    pub fn stillness(&self, id: &ContainerId) -> Option<(bool, bool)> {
        let world = self.lock();
        let guest = &world.machines.get(id)?.guest;
        Some((*guest.still.borrow(), *guest.frozen.borrow()))
    }

    /// What the guest of a machine was last told of its networks.
    pub fn told_network(&self, id: &ContainerId) -> Option<bulkhead_guest_protocol::network::Network> {
        let guest = self.lock().machines.get(id)?.guest.clone();
        let network = guest.network.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(network)
    }

    /// The interfaces that a machine has.
    pub fn nics(&self, id: &ContainerId) -> Vec<crate::networks::Nic> {
        self.lock().machines.get(id).map(|machine| machine.spec.nics.clone()).unwrap_or_default()
    }

    /// The machine ends without a word, as when its hypervisor crashes.
    pub fn crash_machine(&self, id: &ContainerId) {
        self.end(id, "the simulated hypervisor crashed");
    }

    /// Its agent takes everything and answers nothing from now on.
    pub fn silence_agent(&self, id: &ContainerId) {
        self.lock().silent.insert(id.clone());
    }

    /// Its agent speaks another version of the protocol from the next greeting on.
    pub fn estrange_agent(&self, id: &ContainerId) {
        self.lock().estranged.insert(id.clone());
    }

    /// From now on these are the places that there are.
    pub fn set_places(&self, places: Places) {
        self.lock().places = places;
    }

    /// While held, agents do not come up.
    pub fn hold_boot(&self, hold: bool) {
        self.lock().hold_boot = hold;
    }

    /// Agents that are told to assemble disks or to start a process do not get done with it, as with a large copy.
    pub fn hold_start(&self, hold: bool) {
        self.lock().hold_start = hold;
    }

    /// Whether the agent of a machine is at what [`Self::hold_start`] holds up, or was.
    pub fn is_held(&self, id: &ContainerId) -> bool {
        self.lock().held.contains(id)
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call, and fails it if that was asked for.
    fn enter(&self, verb: Verb) -> Result<(), MachineError> {
        let (fault, hook, total) = {
            let mut world = self.lock();
            *world.calls.entry(verb).or_default() += 1;
            let total = world.calls.values().sum();
            let next = world.faults.get_mut(&verb).and_then(VecDeque::pop_front);
            (next.or_else(|| world.broken.get(&verb).cloned()), world.hook.clone(), total)
        };
        if let Some(hook) = hook {
            hook(verb, total);
        }
        match fault {
            None => Ok(()),
            Some(text) => {
                Err(MachineError::Io { doing: format!("{verb:?}"), source: std::io::Error::other(text) })
            }
        }
    }

    /// Ends a machine that runs.
    fn end(&self, id: &ContainerId, reason: &str) {
        let mut world = self.lock();
        let Some(machine) = world.machines.get_mut(id) else { return };
        machine.state = std::mem::replace(&mut machine.state, MachineState::Absent)
            .after(MachineEvent::Ended { reason: reason.into() });
        machine.power.cancel();
        machine.channel.cancel();
        drop(world);
        // Nobody listening is fine.
        let _ = self.0.changes.send(id.clone());
    }
}
