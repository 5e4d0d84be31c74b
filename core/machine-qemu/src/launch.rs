//! From a spec to a running QEMU: opens what it needs, writes it down, lets it go.

use crate::cgroups::{Share, Size};
use crate::drives::Drive;
use crate::memfd;
use crate::networks::tap::Parked;
use crate::plan::{self, LAYERS_MAX, LaunchPlan, Origin, SPARE_PORTS, VOLUMES_MAX};
use crate::process::{Pidfd, ProcessId};
use crate::record::{Cloned, MachineFolder, Record};
use crate::root::{self, RootContents};
use crate::shared::Shared;
use crate::spawn::{self, Spawn};
use crate::templates::{Class, Template};
use bulkhead_guest_protocol::network::PARKED_MAC;
use bulkhead_machine::{MachineError, MachineSpec};
use bulkhead_model::network::MacAddress;
use bulkhead_model::{Digest, VchId};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;

/// What QEMU may say before nobody listens any more, in bytes.
pub(crate) const LOG_BYTES: u64 = 64 * 1024;
/// Most that a journal may be behind its released beginning plus the largest disk: bounds every file of a QEMU.
const FILE_BYTES_SPAN: u64 = 1 << 44;

#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) record: Record,
    pub(crate) pidfd: Pidfd,
    /// QEMU's standard output and error.
    pub(crate) log: File,
    /// Of a clone: the number of its descriptor with the state that it has to load.
    pub(crate) state: Option<RawFd>,
}

/// What the first interface of a machine is called before the machine is anybody's.
pub(crate) const PARKED: MacAddress = MacAddress(PARKED_MAC);

/// Everything that QEMU inherits; open until it runs.
struct Inherited {
    drives: Vec<(Drive, File)>,
    journal: File,
    agent_socket: UnixListener,
    qmp_socket: UnixListener,
    nics: Vec<(MacAddress, File)>,
    memory: File,
    state: Option<File>,
}

/// Starts the machine under `uid`, as a clone of a template or from its kernel on. On an error nothing of it is left.
/// Blocks for some ten milliseconds.
pub(crate) fn launch(
    shared: &Shared,
    spec: &MachineSpec,
    uid: u32,
    template: Option<&Template>,
) -> Result<Launched, MachineError> {
    check(spec)?;
    let folder = MachineFolder::of(&shared.machines_folder(), &spec.id);
    folder.create().map_err(MachineError::io("making the machine's folder"))?;
    let launched = launch_into(shared, spec, uid, template, &folder);
    if launched.is_err() {
        shared.cgroups.leave(&spec.id);
        if let Err(error) = folder.remove() {
            tracing::warn!(container.id = %spec.id, %error, "the folder of a failed start stays");
        }
    }
    launched
}

pub(crate) fn check(spec: &MachineSpec) -> Result<(), MachineError> {
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
    Ok(())
}

fn launch_into(
    shared: &Shared,
    spec: &MachineSpec,
    uid: u32,
    template: Option<&Template>,
    folder: &MachineFolder,
) -> Result<Launched, MachineError> {
    let inherited = open(shared, spec, template, folder)?;
    let log = spawn::log_file(LOG_BYTES).map_err(MachineError::io("making the hypervisor's log"))?;
    let waiting = fork(shared, spec, uid, folder, &inherited, &log)
        .map_err(MachineError::io("preparing the hypervisor process"))?;
    let process = ProcessId::of(waiting.pid).map_err(MachineError::io("finding the hypervisor process"))?;
    let size = Size { cpu_milli: spec.cpu_milli, memory_bytes: spec.memory_bytes };
    shared
        .cgroups
        .enter(&spec.id, Share::booting(spec, size), process.pid)
        .map_err(MachineError::io("limiting the hypervisor process"))?;
    shared.hosts.pin(&spec.placement.host, process.pid)?;
    let cloned = template
        .map(|template| Cloned { template: template.name.clone(), memory: inherited.memory.as_raw_fd() });
    let record = Record::new(spec, process, uid, inherited.nics.len(), cloned);
    let pidfd = Pidfd::open(&record.process)
        .and_then(|found| found.ok_or_else(|| io::Error::other("it ended before it was started")))
        .map_err(MachineError::io("watching the hypervisor process"))?;
    folder.write_record(&record).map_err(MachineError::io("writing the machine down"))?;
    waiting.go().map_err(|error| MachineError::Start { id: spec.id.clone(), why: error.to_string() })?;
    let state = inherited.state.as_ref().map(File::as_raw_fd);
    Ok(Launched { record, pidfd, log, state })
}

fn open(
    shared: &Shared,
    spec: &MachineSpec,
    template: Option<&Template>,
    folder: &MachineFolder,
) -> Result<Inherited, MachineError> {
    let journal = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(shared.journal_path(&spec.id))
        .map_err(MachineError::io("opening the journal"))?;
    let listen = |name: &str| listen(folder, name).map_err(MachineError::io(format!("listening on {name}")));
    let tap = |nic| shared.networks.open_tap(spec.vch, nic).map_err(MachineError::io("joining a network"));
    // What was captured has one: the others come once it runs.
    let at_start = if template.is_some() { 1 } else { SPARE_PORTS };
    let joined = spec.nics.iter().take(at_start).map(|nic| Ok((nic.mac, tap(nic)?)));
    let mut nics = joined.collect::<Result<Vec<_>, MachineError>>()?;
    if template.is_some() && nics.is_empty() {
        let parked = Parked::make().map_err(MachineError::io("parking an interface"))?;
        nics.push((PARKED, parked.tap));
    }
    let memory = match template {
        Some(template) => template.capture.memory(),
        None => memfd::create(c"guest-memory", Class::of(spec).memory_mib << 20),
    };
    let state = template.map(|template| template.capture.state()).transpose();
    Ok(Inherited {
        nics,
        memory: memory.map_err(MachineError::io("making the guest's memory"))?,
        state: state.map_err(MachineError::io("opening what is to be cloned"))?,
        drives: drives(shared, spec)?,
        journal,
        agent_socket: listen("agent.sock")?,
        qmp_socket: listen("qmp.sock")?,
    })
}

/// Everything that the machine has of disks.
pub(crate) fn drives(shared: &Shared, spec: &MachineSpec) -> Result<Vec<(Drive, File)>, MachineError> {
    let own = shared.disks.open_disk(spec.vch, spec.placement.disk_of(&spec.id))?;
    let mut drives = root_drives(shared, spec.vch, &spec.layers, own)?;
    for (lun, disk) in spec.volumes.iter().enumerate() {
        drives.push((Drive::volume(lun, disk.read_only), shared.disks.open_volume(spec.vch, disk)?));
    }
    Ok(drives)
}

/// What a container's root is made of: an image's layers, and a writable disk.
pub(crate) fn root_drives(
    shared: &Shared,
    vch: VchId,
    layers: &[Digest],
    own: File,
) -> Result<Vec<(Drive, File)>, MachineError> {
    let layer = |(lun, diff_id)| Ok((Drive::layer(lun), shared.disks.open_layer_file(vch, diff_id)?));
    let layers = layers.iter().enumerate().map(layer);
    layers.chain([Ok((Drive::own(), own))]).collect()
}

/// The folder's own path may be longer than a socket address can hold; one through its descriptor is not.
pub(crate) fn listen(folder: &MachineFolder, name: &str) -> io::Result<UnixListener> {
    let directory = File::open(folder.path())?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

fn fork(
    shared: &Shared,
    spec: &MachineSpec,
    uid: u32,
    folder: &MachineFolder,
    inherited: &Inherited,
    log: &File,
) -> io::Result<spawn::Waiting> {
    let plan = LaunchPlan {
        qemu_binary: shared.qemu_binary.clone(),
        accelerator: shared.accelerator,
        id: spec.id.clone(),
        vcpus: spec.vcpus,
        memory_mib: Class::of(spec).memory_mib,
        origin: if inherited.state.is_some() { Origin::Capture } else { Origin::Boot },
        memory: inherited.memory.as_raw_fd(),
        state: inherited.state.as_ref().map(File::as_raw_fd),
        drives: inherited.drives.iter().map(|(drive, file)| (drive.clone(), file.as_raw_fd())).collect(),
        journal: inherited.journal.as_raw_fd(),
        agent_socket: inherited.agent_socket.as_raw_fd(),
        qmp_socket: inherited.qmp_socket.as_raw_fd(),
        nics: inherited.nics.iter().map(|(mac, tap)| (*mac, tap.as_raw_fd())).collect(),
    };
    confined(shared, &plan, uid, folder, log, inherited.journal.metadata()?.len())
}

/// A process that will be what is planned, waiting.
pub(crate) fn confined(
    shared: &Shared,
    plan: &LaunchPlan,
    uid: u32,
    folder: &MachineFolder,
    log: &File,
    journal_bytes: u64,
) -> io::Result<spawn::Waiting> {
    let null = File::open("/dev/null")?;
    let argv = plan::command_line(plan)
        .into_iter()
        .map(|argument| CString::new(argument.into_vec()).map_err(io::Error::other))
        .collect::<io::Result<_>>()?;
    let boots = (plan.origin == Origin::Boot).then_some((&*shared.guest.kernel, &*shared.guest.initrd));
    let root = root::plan(&RootContents {
        at: &folder.root(),
        qemu_binary: &shared.qemu_binary,
        accelerator: shared.accelerator,
        boots,
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
        file_bytes_max: journal_bytes.saturating_add(FILE_BYTES_SPAN),
    };
    spawn.fork()
}
