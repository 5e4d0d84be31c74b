//! The QEMU back end: one confined QEMU process for each machine, plain files for its disks and its journal.
//!
//! ```text
//!   server                                    host
//!     │ open files, sockets   ┌───────────────────────────────────────────┐
//!     ├──── descriptors ─────▶│ QEMU: uid of its own, no capabilities,    │
//!     │ fork, confine, exec   │ seccomp, own net/ipc/uts/mount namespaces │
//!     │                       │  ├ agent.sock  ◀── channel()              │
//!     │◀── pidfd: it ended ───│  ├ qmp.sock    ◀── why it ended, quit     │
//!     │                       │  └ journal     ──▶ appended file          │
//!     ▼                       └───────────────────────────────────────────┘
//!   DATA/machines/<id>/machine.json: which process it is
//! ```
//!
//! **Invariants:**
//! - A machine outlives the server: nothing of it depends on the server's memory or connections.
//! - QEMU opens no file of the host by name; whatever its guest makes of it, it holds only its own disks.
//! - No text of a user reaches QEMU's command line.

mod calm;
mod cgroups;
mod channel;
mod cost;
mod disks;
mod drives;
mod guest_image;
mod hosts;
mod hotplug;
mod idle;
mod inventory;
mod journals;
mod kvm;
mod launch;
mod machines;
mod memfd;
mod networks;
mod plan;
mod process;
mod qmp;
mod record;
mod root;
mod shared;
mod spares;
mod spawn;
mod templates;
mod unclaimed;
mod watch;

pub use disks::Datastore;
pub use hosts::HostSlice;
pub use kvm::{probe_kvm, probe_kvm_blocking};
pub use networks::probe_networks;
pub use plan::{Accelerator, LaunchPlan, command_line};

use bulkhead_machine::{BackEnd, Capabilities};
use bulkhead_model::ServerId;
use bulkhead_model::network::Subnet;
use disks::{Datastores, DiskStore};
use guest_image::GuestImage;
use inventory::QemuInventory;
use journals::QemuJournals;
use machines::QemuMachines;
use networks::QemuNetworks;
use shared::{Shared, Uids};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which accelerator to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorChoice {
    /// KVM if a guest really boots with it, else TCG.
    #[default]
    Auto,
    Kvm,
    Tcg,
}

#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// Machines, journals and disks are kept here.
    pub data_dir: PathBuf,
    /// Made by `cargo xtask guest-image`.
    pub guest_dir: PathBuf,
    /// `None`: `qemu-system-x86_64` on the search path.
    pub qemu_binary: Option<PathBuf>,
    pub accelerator: AcceleratorChoice,
    /// Machines run under user and group ids from here on, each under its own; nothing else on the host may use them.
    pub uid_base: u32,
    pub uid_count: u32,
    /// Uplinks of VCHs have addresses from here; nothing else that is to be reached may.
    pub uplinks: Subnet,
    /// Where containers run; none: on all CPUs.
    pub hosts: Vec<HostSlice>,
    /// Where their disks are; none: in the data folder.
    pub datastores: Vec<Datastore>,
    /// So many machines at most are cloned ahead of need.
    pub spares: usize,
    /// So many images at most have a template of their own.
    pub image_templates: usize,
}

impl QemuConfig {
    pub fn new(data_dir: impl Into<PathBuf>, guest_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            guest_dir: guest_dir.into(),
            qemu_binary: None,
            accelerator: AcceleratorChoice::Auto,
            uid_base: 2_000_000_000,
            uid_count: 10_000,
            uplinks: Subnet::FOR_BENCHMARKS,
            hosts: Vec::new(),
            datastores: Vec::new(),
            spares: 0,
            image_templates: 0,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    #[error("no guest image in `{}`: make it with `cargo xtask guest-image`", folder.display())]
    GuestImage {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{name}` is not on the search path: install QEMU (Debian: qemu-system-x86)")]
    NoQemu { name: String },
    #[error("machines need root, to give each one a user of its own; this server runs as user {uid}")]
    NotRoot { uid: u32 },
    #[error("KVM is asked for and does not work: {why}")]
    NoKvm { why: String },
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> QemuError {
    let doing = doing.into();
    move |source| QemuError::Io { doing, source }
}

/// The back end, open. Dropped, it stops watching; machines run on.
#[derive(Debug, Clone)]
pub struct QemuBackEnd {
    machines: QemuMachines,
    journals: Arc<QemuJournals>,
    disks: DiskStore,
    networks: QemuNetworks,
    inventory: QemuInventory,
}

impl QemuBackEnd {
    /// Opens the data folder and finds the machines that run. Where it is not known whether KVM works, this takes some
    /// seconds.
    pub async fn open(config: QemuConfig, server: ServerId) -> Result<Self, QemuError> {
        let qemu_binary = find_qemu(config.qemu_binary.as_deref())?;
        GuestImage::open(&config.guest_dir)?;
        make_folders(&config.data_dir).map_err(failed("making the folders for machines"))?;
        let version = qemu_version(&qemu_binary).await.map_err(failed("asking QEMU for its version"))?;
        let accelerator = kvm::choose(&config, &qemu_binary, &version).await?;
        Self::open_with(config, server, qemu_binary, version, accelerator)
    }

    fn open_with(
        config: QemuConfig,
        server: ServerId,
        qemu_binary: PathBuf,
        version: String,
        accelerator: Accelerator,
    ) -> Result<Self, QemuError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(QemuError::NotRoot { uid: nix::unistd::geteuid().as_raw() });
        }
        let guest = GuestImage::open(&config.guest_dir)?;
        make_folders(&config.data_dir).map_err(failed("making the folders for machines"))?;
        let datastores = Datastores::open(&config.data_dir, config.datastores, server);
        let datastores = datastores.map_err(failed("opening datastores"))?;
        let disks = DiskStore::new(config.data_dir.clone(), datastores);
        let networks = QemuNetworks::open(&config.data_dir, server, config.uplinks);
        let shared = Arc::new(Shared {
            data_dir: config.data_dir,
            server,
            qemu_binary,
            accelerator,
            guest,
            cgroups: cgroups::Cgroups::detect(Path::new("/sys/fs/cgroup")),
            hosts: hosts::Hosts::new(config.hosts).map_err(failed("looking at host slices"))?,
            disks: disks.clone(),
            networks: networks.clone(),
            uids: Uids::new(config.uid_base, config.uid_count),
        });
        let capabilities = capabilities(&shared, version).map_err(failed("looking at this host"))?;
        let ahead = machines::Ahead { spares: config.spares, image_templates: config.image_templates };
        let machines =
            QemuMachines::open(shared.clone(), capabilities, &ahead).map_err(failed("finding machines"))?;
        let inventory = QemuInventory { shared: shared.clone(), networks: networks.clone() };
        let journals = QemuJournals::open(shared, machines.clone()).map_err(failed("watching journals"))?;
        machines.look_after(&networks);
        Ok(Self { machines, journals: Arc::new(journals), disks, networks, inventory })
    }

    pub fn back_end(&self) -> BackEnd {
        BackEnd {
            machines: Arc::new(self.machines.clone()),
            journals: self.journals.clone(),
            disks: Arc::new(self.disks.clone()),
            networks: Arc::new(self.networks.clone()),
            inventory: Arc::new(self.inventory.clone()),
        }
    }

    /// Stops watching and waits until nothing of it is active. Machines run on.
    pub async fn close(&self) {
        self.journals.close().await;
        self.machines.close().await;
    }
}

fn make_folders(data_dir: &Path) -> io::Result<()> {
    for folder in ["machines", "journals", "prepared", "spares", "templates", "vchs"] {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir.join(folder))?;
    }
    Ok(())
}

fn find_qemu(asked: Option<&Path>) -> Result<PathBuf, QemuError> {
    const NAME: &str = "qemu-system-x86_64";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = match asked {
        Some(asked) => Some(asked.to_path_buf()),
        None => std::env::split_paths(&path).map(|folder| folder.join(NAME)).find(|file| file.is_file()),
    };
    let name = || asked.map_or_else(|| NAME.into(), |asked| asked.display().to_string());
    found.and_then(|path| path.canonicalize().ok()).ok_or_else(|| QemuError::NoQemu { name: name() })
}

/// `7.2.22` of `QEMU emulator version 7.2.22 (Debian …)`.
async fn qemu_version(binary: &Path) -> io::Result<String> {
    let run = tokio::process::Command::new(binary).arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(20), run).await??;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    version.map(str::to_owned).ok_or_else(|| io::Error::other("its answer is not understood"))
}

fn capabilities(shared: &Shared, version: String) -> io::Result<Capabilities> {
    let host_cpus = std::thread::available_parallelism()?.get().try_into().unwrap_or(u32::MAX);
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let total_kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    let total_kib: u64 = total_kib.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
    Ok(Capabilities {
        back_end: "qemu".into(),
        accelerator: shared.accelerator.name().into(),
        hardware_isolation: shared.accelerator == Accelerator::Kvm,
        version,
        guest_kernel: shared.guest.kernel_release.clone(),
        host_name: nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        host_cpus,
        host_memory_bytes: total_kib * 1024,
        vcpus_max: host_cpus,
        layers_max: u32::try_from(plan::LAYERS_MAX).unwrap_or(u32::MAX),
        volumes_max: u32::try_from(plan::VOLUMES_MAX).unwrap_or(u32::MAX),
        limits: shared.cgroups.name().into(),
    })
}
