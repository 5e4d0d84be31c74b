//! What engine and guest agent say to each other, and what the agent writes into the machine's journal.
//!
//! Two byte streams leave a machine: the *channel* (requests and replies, only while a server is connected) and the
//! *journal* (output and exit of the process, kept by the back end whether or not a server is there).
//!
//! **Invariant:** the agent's bytes are hostile. Every decoder here bounds what it takes, never recurses, and answers
//! an error instead of panicking.

#![forbid(unsafe_code)]

mod checksum;
pub mod files;
pub mod frame;
pub mod journal;
pub mod message;
pub mod network;
pub mod volumes;
pub mod watch;

/// Protocol versions that this build speaks, oldest and newest. Messages have no names of fields in them: the first
/// change of any after a release makes a new version. A server that takes over a machine with an agent of a version
/// that it does not speak leaves it alone: the journal's form never changes, so that output and exit are read all the
/// same, and all else is refused with the versions named, until the container starts anew. So [`message::RequestBody::Hello`],
/// [`message::Hello`], [`message::ReplyBody::Refused`] and their places among the others never change either.
pub const PROTOCOL_MIN: u16 = 3;
pub const PROTOCOL_MAX: u16 = 3;

/// Names of the two virtio-serial ports.
pub const CHANNEL_PORT: &str = "bulkhead.channel";
pub const JOURNAL_PORT: &str = "bulkhead.journal";
