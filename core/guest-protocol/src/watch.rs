//! What the agent tells of a container that runs: its processes, and what it takes. Raw facts, as the kernel counts
//! them: what is made of them is the engine's business.

use serde::{Deserialize, Serialize};

/// Most processes in one answer.
pub const PROCESSES_MAX: usize = 1024;
/// Most bytes of command lines in one answer, and of one.
pub const COMMANDS_BYTES_MAX: usize = 256 << 10;
pub const COMMAND_BYTES_MAX: usize = 4 << 10;
/// Most figures of memory, devices, and interfaces.
pub const FIGURES_MAX: usize = 128;

/// The processes of a container, by their numbers in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    pub list: Vec<Process>,
    /// How many more there are.
    pub left_off: u32,
    /// Since the machine's start, in [`Processes::ticks_per_s`].
    pub uptime_ticks: u64,
    pub ticks_per_s: u32,
    /// When these were read.
    pub unix_ns: u64,
    /// Of the machine.
    pub memory_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// 0: it is not in the container.
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    /// Effective ones.
    pub uid: u32,
    pub gid: u32,
    /// Its terminal's device number; 0: none.
    pub terminal: u32,
    /// A letter of proc(5).
    pub state: u8,
    /// Whether it leads the foreground group of its terminal.
    pub foreground: bool,
    pub nice: i8,
    pub threads: u32,
    /// Ticks from the machine's start to its own.
    pub started_ticks: u64,
    pub cpu_ticks: u64,
    pub virtual_bytes: u64,
    pub resident_bytes: u64,
    /// Of the program.
    pub name: String,
    /// With its arguments; empty where it has none: a zombie.
    pub command: String,
}

/// What a container takes, all by the guest's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time of all CPUs of the machine, idle or not.
    pub system_ns: u64,
    pub cpus: u32,
    pub cpu_ns: u64,
    pub user_ns: u64,
    pub kernel_ns: u64,
    /// Of its CPU quota.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
    pub memory_bytes: u64,
    pub memory_limit_bytes: u64,
    /// `inactive_file` and the like, as the kernel names them.
    pub memory: Vec<(String, u64)>,
    pub pids: u64,
    /// 0: no limit.
    pub pids_limit: u64,
    pub devices: Vec<DeviceUsage>,
    /// On networks; what is only inside is not among them.
    pub interfaces: Vec<InterfaceUsage>,
}

/// Of a network interface, since the machine's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceUsage {
    /// `eth0`.
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// Of a block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceUsage {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}
