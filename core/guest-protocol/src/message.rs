//! Requests of the engine and replies of the agent. Each travels in one [`crate::frame`], encoded with postcard.

use serde::{Deserialize, Serialize};

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
}

/// How to become a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub run: u32,
    /// Fresh entropy from the host.
    pub entropy: [u8; 32],
    pub unix_ns: u64,
    pub hostname: String,
    /// Layer disks are on SCSI target 0: LUN 0 is the bottom one. The writable disk is LUN 0 of target 1.
    pub layer_count: u32,
    pub process: Process,
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
    /// All capabilities and writable /sys; else Docker's default set.
    pub privileged: bool,
    /// Quota in thousandths of a vCPU, where it is less than the machine has; 0: none.
    pub cpu_quota_milli: u32,
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
    },
    /// It does not, and will not in this machine.
    StartFailed {
        code: i32,
        message: String,
    },
    Done,
    /// The request was understood and could not be carried out.
    Refused {
        message: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u16,
    pub nonce: [u8; 16],
    /// Package version of the agent.
    pub agent: String,
    pub kernel: String,
    /// The token that the back end put into this machine.
    pub token: [u8; 32],
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
