//! What a layer may cost.

use serde::{Deserialize, Serialize};

/// Caps on one layer. Whoever made the archive is a stranger; each cap is checked while it streams, before the cost arises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerLimits {
    /// Entries of the archive, and separately nodes of the tree (missing parents count there).
    pub entries: u64,
    /// Bytes of the uncompressed archive, and separately of the files in it (sparse ones at full length).
    pub uncompressed_bytes: u64,
    /// Bytes of a name as the archive gives it, and of a link's target.
    pub name_bytes: usize,
    /// Bytes of one file's extended attributes, names included.
    pub xattr_bytes: usize,
    /// Bytes kept in memory for names, targets, attributes and nodes.
    pub metadata_bytes: u64,
    /// Uncompressed over compressed bytes, once [`LayerLimits::ratio_free_bytes`] have come out.
    pub ratio: u64,
    pub ratio_free_bytes: u64,
    /// Processor seconds of the child.
    pub cpu_seconds: u64,
    /// Address space of the child.
    pub memory_bytes: u64,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            uncompressed_bytes: 20 << 30,
            name_bytes: 4096,
            xattr_bytes: 64 << 10,
            metadata_bytes: 320 << 20,
            ratio: 200,
            ratio_free_bytes: 16 << 20,
            cpu_seconds: 1800,
            memory_bytes: 768 << 20,
        }
    }
}
