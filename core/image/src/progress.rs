//! What a pull or a load says while it runs.

use std::sync::Arc;

/// Called with each step. Must not block: it runs between two pieces of a download.
pub type Progress = Arc<dyn Fn(PullProgress) + Send + Sync>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// The 12 digits that stand for the layer: of its blob at a pull, of its diff id at a load.
    pub layer: String,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    PullingFsLayer,
    Waiting,
    /// Bytes of the compressed blob. The conversion runs along with the download.
    Downloading {
        current: u64,
        total: u64,
    },
    VerifyingChecksum,
    DownloadComplete,
    /// All bytes are there; the disk's directories are being written.
    Extracting {
        current: u64,
        total: u64,
    },
    PullComplete,
    AlreadyExists,
}
