//! Requests of the engine and replies of the agent. Each travels in one [`crate::frame`], encoded with postcard.
//!
//! A process beside the container's own has a *stream*: a number that the engine chose, input one way, output the
//! other. Both directions have a window, so that a process or a client that stops reading holds up only itself:
//!
//! ```text
//!   engine ── Input (at most INPUT_WINDOW unacknowledged) ─▶ agent      agent ── InputTaken ─▶ engine
//!   agent ── Output (costs output_cost) ─▶ engine                      engine ── Credit ─▶ agent
//! ```
//!
//! The container's own process is [`MAIN_STREAM`]; its output goes to the journal instead.

use crate::files::{Assemble, Files};
use crate::journal::{Exited, Stream};
use crate::network::Network;
use crate::volumes::Volumes;
use crate::watch::{Processes, Usage};
use serde::{Deserialize, Serialize};

/// Id of requests that get no reply, and of what the agent says unasked.
pub const NO_REPLY: u32 = u32::MAX;
/// The stream of the container's own process.
pub const MAIN_STREAM: u32 = 0;
/// Bytes of input that may be on their way to a process.
pub const INPUT_WINDOW: u32 = 256 << 10;
/// Most bytes in one piece of input or output.
pub const DATA_BYTES_MAX: usize = 64 << 10;

/// What a piece of output takes from the stream's credit: a limit of bytes then limits the number of pieces, too.
pub fn output_cost(bytes: usize) -> u32 {
    u32::try_from(bytes.max(256)).unwrap_or(u32::MAX)
}

/// Engine to agent. `id` comes back in the reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub id: u32,
    pub body: RequestBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody {
    /// First on every connection. What the agent sent before its reply to this nonce belongs to nobody.
    Hello {
        protocol_min: u16,
        protocol_max: u16,
        nonce: [u8; 16],
    },
    /// Identity, disks, process: everything that makes this machine this container. Accepted once; a repetition
    /// with the same run answers as the first did.
    Start(Box<Start>),
    Signal {
        number: u8,
    },
    /// The journal may grow to this offset.
    JournalLimit {
        offset: u64,
    },
    /// The wall clock, nanoseconds since 1970.
    SetClock {
        unix_ns: u64,
    },
    /// Flush disks and power the machine off.
    PowerOff,
    /// A process beside the container's own, in its namespaces and under its limits.
    Exec(Box<Exec>),
    /// The size of a stream's terminal.
    Resize {
        stream: u32,
        size: TerminalSize,
    },
    /// Input of a process. No reply.
    Input {
        stream: u32,
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// There is no more input; a terminal does not mind. No reply.
    InputEnd {
        stream: u32,
    },
    /// The agent may send output for so much more. No reply.
    Credit {
        stream: u32,
        bytes: u32,
    },
    /// Nobody reads or writes the stream any more; its process goes on. No reply.
    Leave {
        stream: u32,
    },
    /// Other limits for what runs. Refused as a whole while it holds more memory than it would be allowed.
    Limits(Limits),
    /// Ends a process beside the container's own, at once. No reply.
    Kill {
        stream: u32,
    },
    /// The container's processes.
    Processes,
    /// What the container takes.
    Usage,
    /// Work on the container's files, while its process runs or after [`RequestBody::Assemble`].
    Files(Box<Files>),
    /// Disks only: this machine runs no process. Answered when they are in place.
    Assemble(Assemble),
    /// The container's processes are to stand still, or to go on. What stands still takes signals once it goes on, but
    /// for SIGKILL.
    Freeze {
        still: bool,
    },
    /// Gives the volumes of such a machine up. Answered when their file systems are complete and clean.
    ReleaseVolumes,
    /// What is new about networks and names, whole. Answered when it is so; refused while an interface is not there yet.
    Network(Box<Network>),
    /// The disk of a volume became so large. Answered when its file system has all of it.
    GrowVolume {
        /// As [`crate::volumes::VolumeMount::disk`].
        disk: u32,
        bytes: u64,
    },
    /// A start as it could be, of a machine that is nobody's: everything is done as [`RequestBody::Start`] would do it,
    /// with other disks, and undone. Answered when it is. The process is [`REHEARSAL`], and brought along by the agent.
    Rehearse(Box<Start>),
    /// An image's layers and a new disk, of a machine that is nobody's and is to be captured: mounted and stacked, and
    /// nothing else. Answered when the disk has all that was written to it. What makes the machine a container's later
    /// finds them in place.
    Stack {
        layer_count: u32,
    },
}

/// The process of a rehearsal. Its layer disks are on SCSI target 8, the writable disk is LUN 0 of target 9.
pub const REHEARSAL: &str = "/rehearsal";

/// A process beside the container's own. Answered as [`RequestBody::Start`] is; its end is [`Event::Ended`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Not in use by another process.
    pub stream: u32,
    pub process: Process,
    pub stdio: Stdio,
    /// Credit to begin with.
    pub window: u32,
}

/// Where a process reads and writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// Its input comes over the stream; else there is none.
    pub stdin: bool,
    /// It has a terminal: all its output is one.
    pub terminal: Option<TerminalSize>,
}

/// In characters; zeros: not known yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// How to become a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub run: u32,
    /// Whose machine this is from now on: what [`Hello::token`] proves.
    pub token: [u8; 32],
    /// Fresh entropy from the host.
    pub entropy: [u8; 32],
    pub unix_ns: u64,
    pub hostname: String,
    /// May be empty.
    pub domain_name: String,
    /// Layer disks are on SCSI target 0: LUN 0 is the bottom one. The writable disk is LUN 0 of target 1.
    pub layer_count: u32,
    pub process: Process,
    pub interior: Interior,
    pub network: Network,
    pub stdio: Stdio,
    /// The journal's end as the back end has it; the agent counts on from there.
    pub journal_offset: u64,
    /// The journal may grow to this offset; beyond, the agent stops reading the process's output.
    pub journal_limit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    /// `user[:group]`, names or numbers, looked up in the image's own passwd and group files.
    pub user: String,
    /// Groups beside the user's, names or numbers.
    pub groups: Vec<String>,
    /// The bounding set, bit by number as in capabilities(7).
    pub capabilities: u64,
    /// System calls are filtered, with regard to the capabilities.
    pub filtered: bool,
    pub no_new_privileges: bool,
    pub limits: Vec<Limit>,
    pub oom_score_adj: i16,
}

/// A limit of setrlimit(2), by its number; `u64::MAX`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub resource: u8,
    pub soft: u64,
    pub hard: u64,
}

/// What is around the processes of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interior {
    /// Every device, and a writable /sys.
    pub privileged: bool,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// Parents before what is below them.
    pub tmpfs: Vec<Tmpfs>,
    pub volumes: Volumes,
    /// Beside those that every container has.
    pub devices: Vec<Device>,
    /// Size of /dev/shm; 0: there is none.
    pub shm_bytes: u64,
    /// `net.core.somaxconn` and its value.
    pub sysctls: Vec<(String, String)>,
    pub masked_paths: Vec<String>,
    pub read_only_paths: Vec<String>,
    pub limits: Limits,
    /// The agent's own program reaps and forwards signals, with the container's process as its child.
    pub init: bool,
}

/// What all processes of a container may take together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Quota in thousandths of a vCPU, where it is less than the machine has; 0: none.
    pub cpu_quota_milli: u32,
    /// Never more than the machine has, less what its kernel and the agent need; 0: all of that.
    pub memory_bytes: u64,
    /// 0: no limit.
    pub pids_max: u32,
    /// Of the machine's memory, what came since its start: such limits are refused until the kernel has all of it.
    pub plugged_bytes: u64,
}

/// A device of the guest that a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// As the guest has it: `/dev/fuse`.
    pub source: String,
    /// Where the container finds it.
    pub target: String,
    /// Letters of `rwm`: to read, to write, to make nodes of it.
    pub access: String,
}

/// A file system in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub target: String,
    pub read_only: bool,
    pub executable: bool,
    pub set_user_id: bool,
    pub devices: bool,
    /// As tmpfs(5) has them. Without a mode it gets that of the folder below.
    pub options: String,
}

/// Agent to engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub id: u32,
    pub body: ReplyBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyBody {
    Hello(Hello),
    /// The process runs.
    Started {
        pid: u32,
        unix_ns: u64,
        took: Took,
    },
    /// It does not, and will not in this machine.
    StartFailed {
        code: i32,
        message: String,
    },
    Done,
    Processes(Box<Processes>),
    Usage(Box<Usage>),
    /// The request was understood and could not be carried out.
    Refused {
        message: String,
    },
    /// Not an answer; the id is [`NO_REPLY`].
    Event(Event),
}

/// What the answer to [`Start`] took in the guest, by the guest's word; nothing for processes beside the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// To become this machine, its name and its place on networks.
    pub network_us: u32,
    /// To find, mount and stack its disks.
    pub disks_us: u32,
    /// Limits, the container's root, and its program.
    pub process_us: u32,
}

/// What the agent says unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Output {
        stream: u32,
        of: Stream,
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// So much input was taken, or thrown away because the process reads no more.
    InputTaken { stream: u32, bytes: u32 },
    /// The process is over, and all its output is before this.
    Ended { stream: u32, exited: Exited },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u16,
    pub nonce: [u8; 16],
    /// Package version of the agent.
    pub agent: String,
    pub kernel: String,
    /// As [`Start`] or [`Assemble`] brought it. `None`: this machine is nobody's yet, and nothing foreign ever ran in it.
    pub token: Option<[u8; 32]>,
    pub state: AgentState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentState {
    /// Waits for `Start`.
    Ready,
    Running {
        run: u32,
        pid: u32,
        started_unix_ns: u64,
    },
    /// Start failed or the process ended; the journal has the record. The machine powers off by itself.
    Over {
        run: u32,
    },
}
