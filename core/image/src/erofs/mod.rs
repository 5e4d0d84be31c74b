//! Writing EROFS, the read-only filesystem of the Linux kernel (`fs/erofs/erofs_fs.h`, Documentation/filesystems/erofs.rst),
//! while an archive streams by.
//!
//! ```text
//!  block 0      1 …                          meta_blkaddr                       file end
//!  ┌──────────┬────────────────────────────┬─────────────────┬────────────────┬─────────────────┐
//!  │superblock│ contents of files, as they │ inodes, short   │ long           │ table of recipe │
//!  │(last)    │ came; recipe pieces between│ directories,    │ directories,   │ pieces, footer  │
//!  │          │                            │ symlinks        │ symlinks       │ (crate::recipe) │
//!  └──────────┴────────────────────────────┴─────────────────┴────────────────┴─────────────────┘
//! ```
//!
//! Uncompressed, 4 KiB blocks, no optional features: every kernel since 5.4 mounts it, and a file's content is one run of
//! bytes, so that it can be read without knowing the filesystem.

pub(crate) mod disk;
pub(crate) mod metadata;

pub(crate) const BLOCK: u64 = 4096;
