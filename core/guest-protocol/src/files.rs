//! Work on a container's files, which the agent does: nobody else ever reads what a guest wrote as a file system.
//!
//! A task is a process of the agent's own beside the container's, with a stream like any other. What it says on stdout
//! depends on the task, on stderr it says why it failed, and its exit code is a [`Failed`].

use crate::frame::FrameError;
use crate::volumes::Volumes;
use serde::{Deserialize, Serialize};

/// A task and the stream for it. Answered as [`crate::message::RequestBody::Exec`] is, and ends as that does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Not in use by another process.
    pub stream: u32,
    pub task: FileTask,
    /// Credit to begin with.
    pub window: u32,
}

/// Paths are taken as the container sees them, from its root, whether they begin with a slash or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileTask {
    /// Says a [`PathStat`].
    Stat { path: String },
    /// Says a [`PathStat`], then a tar archive of what is there, named after the path's last part.
    Read { path: String },
    /// Takes a tar archive, bare or gzipped, and unpacks it into the folder.
    Write {
        path: String,
        /// A folder and something else never replace each other.
        keep_kinds: bool,
        /// All that is written belongs to this user, as [`crate::message::Process::user`] has it; else to whom the
        /// archive says.
        owner: Option<String>,
        /// Refused once the folder was found.
        read_only: bool,
    },
    /// Says a tar archive of the whole root, without what is mounted in it.
    Export,
    /// Says a [`Change`] for each path that differs from the image, parents first.
    Changes { mounts: Vec<String> },
    /// Says the same as a layer: a tar archive with whiteouts (OCI image-spec, layer.md). The container's processes
    /// stand still meanwhile if `freeze`.
    Layer { mounts: Vec<String>, freeze: bool },
}

impl FileTask {
    pub fn reads_input(&self) -> bool {
        matches!(self, Self::Write { .. })
    }
}

/// What disks a machine has that runs no process, only file tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assemble {
    /// As [`crate::message::Start::token`].
    pub token: [u8; 32],
    pub unix_ns: u64,
    /// As [`crate::message::Start::layer_count`].
    pub layer_count: u32,
    pub volumes: Volumes,
}

/// What is at a path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// The last part of the path as it was asked for.
    pub name: String,
    pub size: u64,
    /// As stat(2) has it.
    pub mode: u32,
    pub mtime_seconds: i64,
    pub mtime_nanoseconds: u32,
    /// Where a symbolic link leads in the end, from the container's root; empty: it is none.
    pub link_target: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub kind: ChangeKind,
    #[serde(with = "serde_bytes")]
    pub path: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// Why a task failed, as its exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    Other = 1,
    /// There is nothing at the path.
    NotFound = 2,
    /// There is something else than a folder.
    NotFolder = 3,
    ReadOnly = 4,
    /// The archive is at fault.
    BadArchive = 5,
    /// Of two kinds that must not replace each other.
    OtherKind = 6,
}

impl Failed {
    pub fn code(self) -> i32 {
        self as i32
    }

    /// Of a code that is not 0.
    pub fn of(code: i32) -> Self {
        [Self::NotFound, Self::NotFolder, Self::ReadOnly, Self::BadArchive, Self::OtherKind]
            .into_iter()
            .find(|failed| failed.code() == code)
            .unwrap_or(Self::Other)
    }
}

/// Longest item: a path is at most a page.
const ITEM_BYTES_MAX: usize = 64 << 10;
const LENGTH_BYTES: usize = 4;

/// An item with its length before it, for a stream of them.
pub fn encode_item<T: Serialize>(item: &T) -> Result<Vec<u8>, FrameError> {
    let body = postcard::to_stdvec(item).map_err(FrameError::Encode)?;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    Ok([length.to_le_bytes().as_slice(), &body].concat())
}

/// The item at the beginning, and how many bytes it has; `None`: more bytes are needed.
pub fn decode_item<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<Option<(T, usize)>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > ITEM_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: length });
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    Ok(Some((crate::frame::decode(body)?, LENGTH_BYTES + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_whole_or_not_at_all() {
        let change = Change { kind: ChangeKind::Deleted, path: b"/a\xff".to_vec() };
        let bytes = [encode_item(&change).unwrap(), b"rest".to_vec()].concat();
        for short in 0..bytes.len() - 4 {
            assert_eq!(decode_item::<Change>(&bytes[..short]).unwrap(), None, "{short}");
        }
        assert_eq!(decode_item(&bytes).unwrap(), Some((change, bytes.len() - 4)));
        assert!(decode_item::<Change>(&u32::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn codes_are_told_apart() {
        assert_eq!(Failed::of(Failed::NotFolder.code()), Failed::NotFolder);
        assert_eq!(Failed::of(137), Failed::Other);
    }
}
