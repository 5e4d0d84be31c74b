//! The back-end port: what makes machines, disks and networks.
//!
//! Few idempotent verbs and plain facts. Nothing above this port knows QEMU, vSphere or a file name; what differs
//! between back ends is data in [`Capabilities`]. Events only wake: whoever hears one reads the facts again.
//!
//! ```text
//!             start            channel(): the agent's byte stream
//!   Absent ─────────▶ Running ──────────────┐       (pause, resume: it stays Running)
//!      ▲                 │ kill, poweroff   │ journal(): what the guest wrote, readable
//!      │ delete          ▼                  ▼ before and after the machine ended
//!      └────────────── Ended ◀──────────────┘
//! ```

pub mod agent;
pub mod conformance;
pub mod inventory;
pub mod networks;
pub mod places;
pub mod sim;
pub mod state;
pub mod templates;

use async_trait::async_trait;
use bulkhead_model::placement::{DatastoreName, DiskPlace, HostName, Placement};
use bulkhead_model::volume::VolumePlace;
use bulkhead_model::{Boot, ContainerId, Digest, EndpointId, ServerId, VchId, VolumeId};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;

/// What a back end is and can do, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// `qemu`, `vsphere`, `sim`.
    pub back_end: String,
    /// `kvm`, `tcg`, `sim`: what executes guest code.
    pub accelerator: String,
    /// Whether hardware separates guests from the host. TCG does not count.
    pub hardware_isolation: bool,
    /// Version of what runs the machines.
    pub version: String,
    /// Kernel release inside the guests.
    pub guest_kernel: String,
    pub host_name: String,
    pub host_cpus: u32,
    pub host_memory_bytes: u64,
    pub vcpus_max: u32,
    /// Layer disks that one machine can carry.
    pub layers_max: u32,
    /// Volumes that one machine can carry.
    pub volumes_max: u32,
    /// How CPU and memory of a machine are limited on the host: `cgroup-v2`, `cgroup-v1`, `none`.
    pub limits: String,
}

/// The disk of a volume as a machine gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDisk {
    #[serde(flatten)]
    pub at: VolumePlace,
    /// The machine cannot write it.
    pub read_only: bool,
}

/// Everything a machine is made of. Equal specs give equal machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// The container that it carries; one machine a container.
    pub id: ContainerId,
    pub vch: VchId,
    /// On whose CPUs it runs, and where its disk is.
    #[serde(default)]
    pub placement: Placement,
    /// Who made it: written on the machine itself, so that a lost row never means an orphan.
    pub server: ServerId,
    pub cpu_milli: u32,
    pub vcpus: u32,
    pub memory_bytes: u64,
    /// Layer disks, bottom first, attached read-only, then the container's own disk.
    pub layers: Vec<Digest>,
    /// Disks of volumes. Each is one machine's at a time, unless all of them only read it.
    #[serde(default)]
    pub volumes: Vec<VolumeDisk>,
    /// The agent is told, and proves by it to the next server that it is the one of this machine. Used once.
    pub token: [u8; 32],
    /// Which run of the container this is; kept on the machine.
    pub run: u32,
    /// Hard cap of what the guest may write into its journal beyond what was released, in bytes.
    pub journal_bytes_max: u64,
    /// At most as many as [`bulkhead_model::network::NETWORKS_PER_CONTAINER_MAX`]; their networks were applied.
    #[serde(default)]
    pub nics: Vec<networks::Nic>,
    #[serde(default)]
    pub boot: Boot,
}

/// A machine, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFacts {
    pub id: ContainerId,
    pub vch: VchId,
    pub placement: Placement,
    pub server: ServerId,
    pub run: u32,
    /// It was started with; it has no more.
    pub vcpus: u32,
    pub memory: MemoryFacts,
    pub token: [u8; 32],
    /// How it came to life; a back end that has nothing to clone from boots.
    pub boot: Boot,
    /// What it was cloned from.
    pub template: Option<String>,
    /// Of its interfaces.
    pub nics: Vec<EndpointId>,
    pub condition: Condition,
}

/// What the container of a machine may take of its memory, and could while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryFacts {
    pub memory_bytes: u64,
    /// Of the machine's memory, what came since its start.
    pub plugged_bytes: u64,
    pub memory_bytes_max: u64,
}

/// What a machine takes of its host by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineCost {
    /// Its own pages, and its part of those that it shares with other machines.
    pub proportional_bytes: u64,
    /// Pages that are only its own.
    pub private_bytes: u64,
    /// Since it was started, in the guest and for it.
    pub cpu_time: Duration,
    /// How often something of it that waited was woken.
    pub wake_ups: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Running {
        /// Of the hypervisor process, where there is one on this host.
        pid: Option<u32>,
        since: DateTime<Utc>,
        /// Its vCPUs stand still.
        paused: bool,
    },
    Ended {
        /// For people: `guest powered off`, `guest panicked`, `killed by signal 9`.
        reason: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("no machine {0}")]
    NoSuchMachine(ContainerId),
    #[error("host slice `{0}`, on which the container was placed, is not in the configuration any more")]
    NoSuchHost(HostName),
    #[error("datastore `{0}`, on which the container's disk is, is not in the configuration any more")]
    NoSuchDatastore(DatastoreName),
    #[error("datastore `{0}` is not there: is what it lies on mounted?")]
    DatastoreAway(DatastoreName),
    #[error("layer disk {0} is not on the datastore")]
    NoSuchLayer(Digest),
    #[error("the disk of volume {0} is not on the datastore")]
    NoSuchVolume(VolumeId),
    /// Where volumes of the VCH are, or are to be. Tenants read this: it does not tell them where that is.
    #[error("the volume store has no place for this VCH: is what it lies on mounted?")]
    NoFolder { folder: PathBuf },
    #[error("the folder `{}` cannot hold volumes: {why}", folder.display())]
    BadFolder { folder: PathBuf, why: String },
    #[error("machine {id} could not be started: {why}")]
    Start { id: ContainerId, why: String },
    #[error("the agent of machine {id} cannot be reached: {why}")]
    Channel { id: ContainerId, why: String },
    #[error("no template can be made: {0}")]
    Template(String),
    #[error("the datastore is full: {0}")]
    Full(String),
    #[error("{doing}: {source}")]
    Io {
        doing: String,
        #[source]
        source: std::io::Error,
    },
}

impl MachineError {
    /// Names what was being done; a full disk is told apart.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                MachineError::Full(format!("{doing}: {source}"))
            }
            _ => MachineError::Io { doing, source },
        }
    }
}

/// A byte stream to the agent inside a machine. One at a time per machine: a new one ends the last.
pub trait Channel: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Channel for T {}

/// Machines: made, watched, ended, forgotten. Every verb may be repeated.
#[async_trait]
pub trait Machines: Send + Sync + fmt::Debug {
    fn capabilities(&self) -> &Capabilities;

    /// Where machines and their disks can be, with what is free there now.
    async fn places(&self) -> Result<places::Places, MachineError>;

    /// Makes what a machine like this one is cloned from, where that is not there yet. Comes back after `patience` at the
    /// latest: `false` means that it is not ready. A start does not need it, it may only take longer.
    async fn prepare(&self, spec: &MachineSpec, patience: Duration) -> Result<bool, MachineError>;

    /// Starts the machine, or finds it running already. Its layers must be on the datastore, its own disk made, and its
    /// volumes made and free.
    async fn start(&self, spec: &MachineSpec) -> Result<(), MachineError>;

    /// `None`: there is none, and nothing of it is left.
    async fn observe(&self, id: &ContainerId) -> Result<Option<MachineFacts>, MachineError>;

    /// Every machine that this server made and has not deleted.
    async fn list(&self) -> Result<Vec<MachineFacts>, MachineError>;

    /// What it takes of the host; `None` where it does not run, or its host does not tell.
    async fn cost(&self, id: &ContainerId) -> Result<Option<MachineCost>, MachineError>;

    /// Ends it at once, as if power was cut. Returns when it has ended; fine if it had.
    async fn kill(&self, id: &ContainerId) -> Result<(), MachineError>;

    /// Makes its vCPUs stand still: nothing in it goes on, nobody in it answers. Returns when they do; fine if they
    /// did. A machine that is not running is [`MachineError::NoSuchMachine`].
    async fn pause(&self, id: &ContainerId) -> Result<(), MachineError>;

    /// Lets them go on from where they were. The guest's clock has missed the time.
    async fn resume(&self, id: &ContainerId) -> Result<(), MachineError>;

    /// Another share of CPU time for a machine that runs, in thousandths of a vCPU; it has the vCPUs that it was started
    /// with. Holds until its end or the server's. A machine that is not running is [`MachineError::NoSuchMachine`].
    async fn set_cpu_share(&self, id: &ContainerId, cpu_milli: u32) -> Result<(), MachineError>;

    /// Lets the container of a running machine have so much memory: what is missing for that is plugged in, and the guest
    /// sees it a moment later. None is taken away. More than [`MemoryFacts::memory_bytes_max`] is an error.
    async fn grow_memory(&self, id: &ContainerId, bytes: u64) -> Result<(), MachineError>;

    /// Lets a running machine see the disk of a volume as large as it was made, by and by. Fine if the machine has none
    /// such.
    async fn volume_grown(&self, id: &ContainerId, volume: VolumeId, bytes: u64) -> Result<(), MachineError>;

    /// Gives a running machine one more interface, or finds that it has it. Its network was applied. The guest sees it
    /// a moment later.
    async fn plug(&self, id: &ContainerId, nic: &networks::Nic) -> Result<(), MachineError>;

    /// Takes an interface away. Fine if the machine has none of that endpoint.
    async fn unplug(&self, id: &ContainerId, endpoint: &EndpointId) -> Result<(), MachineError>;

    /// Removes what is left of an ended machine, except its journal. Fine if there is nothing.
    async fn delete(&self, id: &ContainerId) -> Result<(), MachineError>;

    async fn channel(&self, id: &ContainerId) -> Result<Box<dyn Channel>, MachineError>;

    /// What machines are cloned from; nothing, where they are not.
    async fn templates(&self) -> Result<Vec<templates::TemplateFacts>, MachineError>;

    /// Makes the template of machines like that, or finds it, and returns its name.
    async fn build_template(&self, vcpus: u32, memory_bytes: u64) -> Result<String, MachineError>;

    /// Throws a template away; the next machine of its class has a new one made. `false`: there was none. Machines that
    /// were cloned from it go on.
    async fn remove_template(&self, name: &str) -> Result<bool, MachineError>;

    /// Wakes when a machine may have changed; lagging behind loses nothing but wake-ups.
    fn changes(&self) -> broadcast::Receiver<ContainerId>;
}

/// What a guest wrote and the back end kept: bytes at growing offsets, readable while no server was there.
/// One journal a container, over all its runs.
#[async_trait]
pub trait Journals: Send + Sync + fmt::Debug {
    /// The first offset still kept and the end.
    async fn extent(&self, id: &ContainerId) -> Result<Extent, MachineError>;

    /// Up to `max` bytes from `offset`; fewer, or none, at the end. An offset before the start reads from the start.
    async fn read(&self, id: &ContainerId, offset: u64, max: usize) -> Result<JournalChunk, MachineError>;

    /// Gives up everything before `offset`.
    async fn release(&self, id: &ContainerId, offset: u64) -> Result<(), MachineError>;

    /// Resolves when the journal is longer than `beyond`, or after a short while in any case.
    async fn grown(&self, id: &ContainerId, beyond: u64);

    /// Removes the journal. Fine if there is none.
    async fn delete(&self, id: &ContainerId) -> Result<(), MachineError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    pub start: u64,
    pub end: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalChunk {
    /// Where `data` begins.
    pub offset: u64,
    pub data: Bytes,
}

/// Disks on datastores: read-only layers that images share, a writable one for each container, and volumes.
#[async_trait]
pub trait Disks: Send + Sync + fmt::Debug {
    /// An empty file to write a layer disk into; dropped without [`StagedLayer::commit`], it leaves nothing.
    async fn stage_layer(&self, vch: VchId) -> Result<Box<dyn StagedLayer>, MachineError>;

    /// Bytes of the layer disk, `None` if it is not there.
    async fn layer(&self, vch: VchId, diff_id: &Digest) -> Result<Option<u64>, MachineError>;

    async fn layers(&self, vch: VchId) -> Result<Vec<Digest>, MachineError>;

    /// A layer disk as a file to read (for `save`). The host reads it as bytes; it never mounts it.
    async fn open_layer(&self, vch: VchId, diff_id: &Digest) -> Result<std::fs::File, MachineError>;

    /// Fine if it is not there.
    async fn delete_layer(&self, vch: VchId, diff_id: &Digest) -> Result<(), MachineError>;

    /// The container's writable disk, made or found.
    async fn create_disk(&self, vch: VchId, at: DiskPlace<'_>, bytes: u64) -> Result<(), MachineError>;

    /// One on a datastore that is not there is not.
    async fn has_disk(&self, vch: VchId, at: DiskPlace<'_>) -> Result<bool, MachineError>;

    /// Bytes that it takes on the datastore.
    async fn disk_used(&self, vch: VchId, at: DiskPlace<'_>) -> Result<u64, MachineError>;

    /// Fine if it is not there.
    async fn delete_disk(&self, vch: VchId, at: DiskPlace<'_>) -> Result<(), MachineError>;

    /// The disk of a volume with an empty file system, made or found.
    async fn create_volume(&self, vch: VchId, at: &VolumePlace, bytes: u64) -> Result<(), MachineError>;

    /// All that there are in a folder for volumes, `None` being the data folder; none if the VCH has nothing there.
    async fn volumes(&self, vch: VchId, folder: Option<&Path>) -> Result<Vec<VolumeId>, MachineError>;

    /// Bytes that it takes on the datastore; 0 if it is not there.
    async fn volume_used(&self, vch: VchId, at: &VolumePlace) -> Result<u64, MachineError>;

    /// Makes the disk larger, for the next machine that gets it; fine if it is as large.
    async fn grow_volume(&self, vch: VchId, at: &VolumePlace, bytes: u64) -> Result<(), MachineError>;

    /// Fine if it is not there.
    async fn delete_volume(&self, vch: VchId, at: &VolumePlace) -> Result<(), MachineError>;

    /// Makes a folder of the host ready for volumes of a VCH; fine if it is. It must be there, and nobody but the server
    /// be able to change what is in it.
    async fn open_folder(&self, vch: VchId, folder: &Path) -> Result<(), MachineError>;

    /// Leaves such a folder. Fails if a volume is left in it; fine if it was left.
    async fn leave_folder(&self, vch: VchId, folder: &Path) -> Result<(), MachineError>;

    /// Removes the folder of a VCH that is gone. Fails if a layer, a disk or a volume is left in it.
    async fn forget_vch(&self, vch: VchId) -> Result<(), MachineError>;
}

#[async_trait]
pub trait StagedLayer: Send + Sync {
    /// A handle on the empty, seekable, writable file.
    fn file(&self) -> Result<std::fs::File, MachineError>;

    /// Makes it durable under its id, read-only from now on. Fine if an equal one is there already.
    async fn commit(self: Box<Self>, diff_id: &Digest) -> Result<u64, MachineError>;
}

/// A back end: the same object behind each of the port's traits.
#[derive(Debug, Clone)]
pub struct BackEnd {
    pub machines: Arc<dyn Machines>,
    pub journals: Arc<dyn Journals>,
    pub disks: Arc<dyn Disks>,
    pub networks: Arc<dyn networks::Networks>,
    pub inventory: Arc<dyn inventory::Inventory>,
}
