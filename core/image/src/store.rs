//! Where layer disks go: brought by the caller, one per VCH.

use async_trait::async_trait;
use bulkhead_model::Digest;
use std::fs::File;

/// What a store says when it fails; shown to the user as the source of [`crate::ImageError::Store`].
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// What is known of a layer disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerFacts {
    /// Bytes of the files in it, as Docker counts.
    pub size_bytes: u64,
    /// Bytes of the disk.
    pub disk_bytes: u64,
}

/// The layer disks of one VCH.
#[async_trait]
pub trait LayerStore: Send + Sync {
    /// `None`: not there. An implementation that knows no sizes reads them with [`crate::recipe::facts`].
    async fn layer(&self, diff_id: &Digest) -> Result<Option<LayerFacts>, StoreError>;

    /// An empty file to write a disk into; dropped without [`Staged::commit`], it leaves nothing.
    async fn stage(&self) -> Result<Box<dyn Staged>, StoreError>;

    /// A layer disk to read, for `save`.
    async fn open(&self, diff_id: &Digest) -> Result<File, StoreError>;
}

#[async_trait]
pub trait Staged: Send + Sync {
    /// A handle on the empty, seekable, writable file.
    fn file(&self) -> Result<File, StoreError>;

    /// Makes it durable under its id. Fine if an equal one is there already.
    async fn commit(self: Box<Self>, diff_id: &Digest) -> Result<(), StoreError>;
}
