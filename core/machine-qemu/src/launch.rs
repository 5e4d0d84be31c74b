//! From a spec to a running QEMU: opens what it needs, writes it down, lets it go.

use crate::cgroups::{Share, Size};
use crate::plan::{self, LAYERS_MAX, LaunchPlan, SPARE_PORTS, VOLUMES_MAX};
use crate::process::{Pidfd, ProcessId};
use crate::record::{MachineFolder, Record};
use crate::root::{self, RootContents};
use crate::shared::Shared;
use crate::spawn::{self, Spawn};
use bulkhead_machine::{MachineError, MachineSpec};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;

/// What QEMU may say before nobody listens any more, in bytes.
const LOG_BYTES: usize = 64 * 1024;
/// Most that a journal may be behind its released beginning plus the largest disk: bounds every file of a QEMU.
const FILE_BYTES_SPAN: u64 = 1 << 44;

#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) record: Record,
    pub(crate) pidfd: Pidfd,
    /// QEMU's standard output and error.
    pub(crate) log: File,
}

/// Everything that QEMU inherits; open until it runs.
struct Inherited {
    layers: Vec<File>,
    disk: File,
    /// And whether each can only be read.
    volumes: Vec<(File, bool)>,
    journal: File,
    agent_socket: UnixListener,
    qmp_socket: UnixListener,
    taps: Vec<File>,
}

/// Starts the machine under `uid`. On an error nothing of it is left. Blocks for some ten milliseconds.
pub(crate) fn launch(shared: &Shared, spec: &MachineSpec, uid: u32) -> Result<Launched, MachineError> {
    check(spec)?;
    let folder = MachineFolder::of(&shared.machines_folder(), &spec.id);
    folder.create().map_err(MachineError::io("making the machine's folder"))?;
    let launched = launch_into(shared, spec, uid, &folder);
    if launched.is_err() {
        shared.cgroups.leave(&spec.id);
        if let Err(error) = folder.remove() {
            tracing::warn!(container.id = %spec.id, %error, "the folder of a failed start stays");
        }
    }
    launched
}

fn check(spec: &MachineSpec) -> Result<(), MachineError> {
    let refuse = |why: String| Err(MachineError::Start { id: spec.id.clone(), why });
    if spec.layers.len() > LAYERS_MAX {
        return refuse(format!(
            "{} layers are more than the {LAYERS_MAX} that a machine can carry",
            spec.layers.len()
        ));
    }
    if spec.volumes.len() > VOLUMES_MAX {
        return refuse(format!(
            "{} volumes are more than the {VOLUMES_MAX} that a machine can carry",
            spec.volumes.len()
        ));
    }
    if spec.vcpus == 0 || spec.vcpus > 255 {
        return refuse(format!("{} vCPUs are not between 1 and 255", spec.vcpus));
    }
    if spec.nics.len() > SPARE_PORTS {
        return refuse(format!("{} networks are more than the {SPARE_PORTS} of a machine", spec.nics.len()));
    }
    if spec.memory_bytes < 64 << 20 {
        return refuse(format!(
            "{} bytes of memory are less than the 64 MiB that a guest needs",
            spec.memory_bytes
        ));
    }
    Ok(())
}

fn launch_into(
    shared: &Shared,
    spec: &MachineSpec,
    uid: u32,
    folder: &MachineFolder,
) -> Result<Launched, MachineError> {
    let inherited = open(shared, spec, folder)?;
    let log = spawn::log_file(LOG_BYTES).map_err(MachineError::io("making the hypervisor's log"))?;
    let waiting = fork(shared, spec, uid, folder, &inherited, &log)
        .map_err(MachineError::io("preparing the hypervisor process"))?;
    let process = ProcessId::of(waiting.pid).map_err(MachineError::io("finding the hypervisor process"))?;
    let size = Size { cpu_milli: spec.cpu_milli, memory_bytes: spec.memory_bytes };
    shared
        .cgroups
        .enter(&spec.id, Share::booting(spec, size), process.pid)
        .map_err(MachineError::io("limiting the hypervisor process"))?;
    let ports = spec.nics.iter().cloned().enumerate().map(|(place, nic)| (place + 1, nic)).collect();
    let record =
        Record { spec: spec.clone(), process, uid, since: chrono::Utc::now(), ports, modules: Vec::new() };
    let pidfd = Pidfd::open(&record.process)
        .and_then(|found| found.ok_or_else(|| io::Error::other("it ended before it was started")))
        .map_err(MachineError::io("watching the hypervisor process"))?;
    folder.write_record(&record).map_err(MachineError::io("writing the machine down"))?;
    waiting.go().map_err(|error| MachineError::Start { id: spec.id.clone(), why: error.to_string() })?;
    Ok(Launched { record, pidfd, log: File::from(log) })
}

fn open(shared: &Shared, spec: &MachineSpec, folder: &MachineFolder) -> Result<Inherited, MachineError> {
    let layers = spec
        .layers
        .iter()
        .map(|diff_id| shared.disks.open_layer_file(spec.vch, diff_id))
        .collect::<Result<_, _>>()?;
    let disk = shared.disks.open_disk(spec.vch, &spec.id)?;
    let volumes = spec
        .volumes
        .iter()
        .map(|disk| Ok((shared.disks.open_volume(spec.vch, disk)?, disk.read_only)))
        .collect::<Result<_, MachineError>>()?;
    let journal = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(shared.journal_path(&spec.id))
        .map_err(MachineError::io("opening the journal"))?;
    let listen = |name: &str| listen(folder, name).map_err(MachineError::io(format!("listening on {name}")));
    let tap = |nic| shared.networks.open_tap(spec.vch, nic).map_err(MachineError::io("joining a network"));
    let taps = spec.nics.iter().map(tap).collect::<Result<_, _>>()?;
    Ok(Inherited {
        taps,
        layers,
        disk,
        volumes,
        journal,
        agent_socket: listen("agent.sock")?,
        qmp_socket: listen("qmp.sock")?,
    })
}

/// The folder's own path may be longer than a socket address can hold; one through its descriptor is not.
fn listen(folder: &MachineFolder, name: &str) -> io::Result<UnixListener> {
    let directory = File::open(folder.path())?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

fn fork(
    shared: &Shared,
    spec: &MachineSpec,
    uid: u32,
    folder: &MachineFolder,
    inherited: &Inherited,
    log: &OwnedFd,
) -> io::Result<spawn::Waiting> {
    let null = File::open("/dev/null")?;
    let plan = LaunchPlan {
        qemu_binary: shared.qemu_binary.clone(),
        accelerator: shared.accelerator,
        id: spec.id.clone(),
        vcpus: spec.vcpus,
        memory_mib: spec.memory_bytes.div_ceil(1 << 20),
        layers: inherited.layers.iter().map(File::as_raw_fd).collect(),
        disk: inherited.disk.as_raw_fd(),
        volumes: inherited.volumes.iter().map(|(file, read_only)| (file.as_raw_fd(), *read_only)).collect(),
        journal: inherited.journal.as_raw_fd(),
        agent_socket: inherited.agent_socket.as_raw_fd(),
        qmp_socket: inherited.qmp_socket.as_raw_fd(),
        nics: spec.nics.iter().zip(&inherited.taps).map(|(nic, tap)| (nic.mac, tap.as_raw_fd())).collect(),
    };
    let argv = plan::command_line(&plan)
        .into_iter()
        .map(|argument| CString::new(argument.into_vec()).map_err(io::Error::other))
        .collect::<io::Result<_>>()?;
    let root = root::plan(&RootContents {
        at: &folder.root(),
        qemu_binary: &shared.qemu_binary,
        accelerator: shared.accelerator,
        kernel: &shared.guest.kernel,
        initrd: &shared.guest.initrd,
        token: spec.token,
    })?;
    let extra_group = match shared.accelerator {
        plan::Accelerator::Kvm => Some(std::fs::metadata("/dev/kvm")?.gid()),
        plan::Accelerator::Tcg => None,
    };
    let spawn = Spawn {
        argv,
        descriptors: plan.descriptors(),
        log: log.as_raw_fd(),
        null: null.as_raw_fd(),
        root,
        uid,
        extra_group,
        file_bytes_max: inherited.journal.metadata()?.len().saturating_add(FILE_BYTES_SPAN),
    };
    spawn.fork()
}
