//! The machine as QEMU's command line: a pure function of numbers, hex digits and descriptors.
//!
//! **Invariant:** nothing that a user or an image chose has a way onto this line. What can vary is a number, a
//! container id (64 hex digits) or a path of the installation; everything the container asks for travels over the agent
//! channel. Files are descriptors that the server opened, so no path on the line can be raced or guessed.
//!
//! Every `addr=` is fixed: a snapshot of one machine loads into another only if their device lists are equal, so the
//! places must not depend on what else is attached.

use crate::drives::Drive;
use bulkhead_guest_protocol::{CHANNEL_PORT, JOURNAL_PORT};
use bulkhead_model::ContainerId;
use bulkhead_model::network::MacAddress;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Where the files of the guest lie in QEMU's own root.
pub(crate) const KERNEL_PATH: &str = "/guest/vmlinuz";
pub(crate) const INITRD_PATH: &str = "/guest/initrd";
/// The descriptors of QEMU itself, by number: for what it can open by a path only.
pub(crate) const DESCRIPTORS_PATH: &str = "/guest/fd";

/// Layer disks are LUNs of target 0, so this is bounded by what the overlay of the guest can stack.
pub(crate) const LAYERS_MAX: usize = 127;

/// Disks of volumes are LUNs of target 2.
pub(crate) const VOLUMES_MAX: usize = 64;

/// Hot-plug ports for network interfaces, each of which may come and go while the machine runs.
pub(crate) const SPARE_PORTS: usize = bulkhead_model::network::NETWORKS_PER_CONTAINER_MAX;

/// Places for memory that comes to a running machine; a module each time.
pub(crate) const MEMORY_SLOTS: usize = 16;
/// What the guest's kernel takes memory in.
pub(crate) const MEMORY_BLOCK_BYTES: u64 = 128 << 20;
/// Most memory that can come: as addresses it costs nothing, and it has to fit in those of a processor.
pub(crate) const MEMORY_GROWTH_MIB: u64 = 128 << 10;

/// What executes guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// Software emulation: works everywhere, and is no security boundary.
    Tcg,
}

impl Accelerator {
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

/// Where the state of a guest comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It boots, in memory of its own.
    Boot,
    /// It goes on from a captured state, in a private view of the captured memory.
    Capture,
    /// It goes on from a captured state, in a copy of the captured memory: it is to be captured in its turn.
    Copy,
}

/// Everything that the command line depends on.
#[derive(Debug, Clone)]
pub struct LaunchPlan {
    pub qemu_binary: PathBuf,
    pub accelerator: Accelerator,
    pub id: ContainerId,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub origin: Origin,
    /// The file that is the guest's memory.
    pub memory: RawFd,
    /// The state that it goes on from; loaded by command.
    pub state: Option<RawFd>,
    pub drives: Vec<(Drive, RawFd)>,
    /// Opened for appending.
    pub journal: RawFd,
    /// Listening sockets.
    pub agent_socket: RawFd,
    pub qmp_socket: RawFd,
    /// Hardware addresses and taps, a port each.
    pub nics: Vec<(MacAddress, RawFd)>,
}

impl LaunchPlan {
    /// The descriptors that QEMU inherits.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut all = vec![self.memory, self.journal, self.agent_socket, self.qmp_socket];
        all.extend(self.drives.iter().map(|(_, fd)| *fd).chain(self.state));
        all.extend(self.nics.iter().map(|(_, tap)| *tap));
        all
    }
}

/// The whole argument vector, the program's name included.
pub fn command_line(plan: &LaunchPlan) -> Vec<OsString> {
    let mut line = Line(vec![plan.qemu_binary.clone().into_os_string()]);
    machine(plan, &mut line);
    match plan.origin {
        Origin::Boot => boot(&mut line),
        Origin::Capture | Origin::Copy => line.option("-incoming", "defer"),
    }
    ports(plan, &mut line);
    disks(plan, &mut line);
    for port in 1..=SPARE_PORTS {
        line.option(
            "-device",
            format!("pcie-root-port,id=rp{port},chassis={port},slot={port},addr={:#x}", port + 7),
        );
    }
    for (place, (mac, tap)) in plan.nics.iter().enumerate() {
        let port = place + 1;
        line.option("-netdev", format!("tap,id=net{port},fd={tap}"));
        // No option ROM: nobody boots from it.
        line.option(
            "-device",
            format!("virtio-net-pci,id=nic{port},netdev=net{port},mac={mac},bus=rp{port},romfile="),
        );
    }
    line.0
}

struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn option(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }
}

fn machine(plan: &LaunchPlan, line: &mut Line) {
    line.option("-name", plan.id.as_str());
    line.flag("-nodefaults");
    line.flag("-no-user-config");
    line.option("-display", "none");
    line.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    line.option("-machine", "q35,usb=off,vmport=off,smbus=off,sata=off,memory-backend=ram");
    match plan.accelerator {
        Accelerator::Kvm => {
            line.option("-accel", "kvm");
            line.option("-cpu", "host,-vmx,-svm,pmu=off");
        }
        Accelerator::Tcg => {
            // The translation buffer holds what a start translates, and little more (decision 0014). With one of these
            // two features the guest copies with `rep movsb`, which is emulated byte by byte. SVM stays: taken away,
            // the guest's programs read wrong bytes (QEMU 7.2), and an emulated one gives a guest nothing that it had
            // not already. A fifth level of page tables is one more step for each of the many misses of the emulated TLB.
            line.option("-accel", "tcg,tb-size=64");
            line.option("-cpu", "max,-erms,-fsrm,-la57");
        }
    }
    // No maxcpus: each possible CPU costs the guest memory. Places for memory cost it none, as long as its kernel makes
    // no bounce buffers (`swiotlb`, below). Both are part of what a snapshot depends on.
    line.option("-smp", plan.vcpus.to_string());
    let most_mib = plan.memory_mib + MEMORY_GROWTH_MIB;
    line.option("-m", format!("{}M,slots={MEMORY_SLOTS},maxmem={most_mib}M", plan.memory_mib));
    // Memory is a file in any case: what a machine was captured with is what its clones must have.
    let share = match plan.origin {
        Origin::Boot | Origin::Copy => "on",
        Origin::Capture => "off",
    };
    line.option(
        "-object",
        format!(
            "memory-backend-file,id=ram,size={}M,mem-path={DESCRIPTORS_PATH}/{},share={share}",
            plan.memory_mib, plan.memory
        ),
    );
    // A restart from inside is an end: whether it starts again is decided by the server. A panicked guest stands still
    // until its last words were read; without a server that waits for the next one.
    line.option("-action", "reboot=shutdown,shutdown=poweroff,panic=pause");
}

fn boot(line: &mut Line) {
    line.option("-kernel", KERNEL_PATH);
    line.option("-initrd", INITRD_PATH);
    // All devices reach all memory, so that 64 MiB of bounce buffers would serve nobody: without `swiotlb` the kernel
    // sets them aside wherever there could be memory above 4 GiB. Nothing in a guest loads AppArmor's policies or reads
    // pressure, and both take part in every system call or change of context; what programs use of their own accord
    // (Landlock, Yama) stays. A guest that has nothing to do sleeps: its kernel compares clocks, of which there is one, and
    // looks for processors that hang no more often than never.
    line.option(
        "-append",
        "console=ttyS0 quiet cryptomgr.notests nokaslr no_timer_check noreplace-smp swiotlb=noforce tsc=reliable nowatchdog lsm=landlock,yama psi=0 panic=-1",
    );
}

fn ports(plan: &LaunchPlan, line: &mut Line) {
    line.option("-chardev", format!("socket,id=qmp,fd={},server=on,wait=off", plan.qmp_socket));
    line.option("-mon", "chardev=qmp,mode=control");
    // The console is for last words: a guest that floods it overwrites only its own.
    line.option("-chardev", "ringbuf,id=console,size=65536");
    line.option("-serial", "chardev:console");
    line.option("-device", "pvpanic-pci,addr=0x6");
    line.option("-device", "virtio-serial-pci,id=serial0,addr=0x2,max_ports=8");
    line.option("-chardev", format!("socket,id=channel,fd={},server=on,wait=off", plan.agent_socket));
    line.option("-device", format!("virtserialport,bus=serial0.0,nr=1,chardev=channel,name={CHANNEL_PORT}"));
    file_set(line, 1, plan.journal);
    line.option("-chardev", "file,id=journal,path=/dev/fdset/1,append=on");
    line.option("-device", format!("virtserialport,bus=serial0.0,nr=2,chardev=journal,name={JOURNAL_PORT}"));
}

fn disks(plan: &LaunchPlan, line: &mut Line) {
    // The agent looks for disks itself. With events of QEMU's the guest's kernel looks for each too, while others still come:
    // and a disk whose size it asks for just then may be refused as often as it asks, and has none.
    line.option("-device", "virtio-scsi-pci,id=scsi0,num_queues=1,hotplug=off,addr=0x5");
    for (drive, fd) in &plan.drives {
        file_set(line, drive.set, *fd);
        line.option("-blockdev", drive.blockdev());
        line.option("-device", drive.device());
    }
}

fn file_set(line: &mut Line, set: usize, fd: RawFd) {
    line.option("-add-fd", format!("fd={fd},set={set}"));
}

#[cfg(test)]
mod tests;
