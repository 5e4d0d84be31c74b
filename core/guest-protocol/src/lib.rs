//! What engine and guest agent say to each other, and what the agent writes into the machine's journal.
//!
//! Two byte streams leave a machine: the *channel* (requests and replies, only while a server is connected) and the
//! *journal* (output and exit of the process, kept by the back end whether or not a server is there).
//!
//! **Invariant:** the agent's bytes are hostile. Every decoder here bounds what it takes, never recurses, and answers
//! an error instead of panicking.

#![forbid(unsafe_code)]

pub mod files;
pub mod frame;
pub mod journal;
pub mod message;
pub mod volumes;
pub mod watch;

/// Protocol versions that this build speaks, oldest and newest.
pub const PROTOCOL_MIN: u16 = 1;
pub const PROTOCOL_MAX: u16 = 1;

/// Names of the two virtio-serial ports.
pub const CHANNEL_PORT: &str = "bulkhead.channel";
pub const JOURNAL_PORT: &str = "bulkhead.journal";
