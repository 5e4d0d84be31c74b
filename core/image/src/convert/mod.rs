//! Layer archives to disks and back, in a child without rights.
//!
//! The child is this same program, started again with a hidden subcommand. Before it reads a byte it gives up its user,
//! its namespaces and nearly all system calls; it holds three descriptors: the archive's stream (0), a line to answer on (1),
//! and the disk's file (3). What a hostile archive could reach there is a file that will be thrown away.
//!
//! The parent hashes the compressed bytes as they pass, and believes the child's digest of the uncompressed ones only if
//! it is the one that the image's config names.

mod child;
mod parent;

pub use child::child_main;
pub use parent::{Blob, ConvertSpec, ConvertedLayer, Converter, ConverterConfig, chunks};

use crate::compression::Compression;
use crate::layer::Written;
use crate::layer_error::ToldError;
use crate::limits::LayerLimits;
use bulkhead_sandbox::Bounds;
use serde::{Deserialize, Serialize};

/// Where the child finds its [`Job`].
const JOB_VARIABLE: &str = "BULKHEAD_LAYER_JOB";
/// The descriptor of the disk's file.
const DISK_FD: i32 = 3;

#[derive(Debug, Serialize, Deserialize)]
struct Job {
    task: Task,
    limits: LayerLimits,
    bounds: Bounds,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Task {
    /// Archive from 0 to a disk on 3.
    Convert { compression: Option<Compression> },
    /// Disk on 3 to an archive on 0.
    Restore,
    /// Compressed stream from 0 to a plain file on 3.
    Inflate,
}

/// The line that the child answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Converted(Written),
    Restored,
    Inflated(u64),
    Failed(ToldError),
}
