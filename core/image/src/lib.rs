//! Images: fetched from registries or archives, each layer turned into a read-only EROFS disk.
//!
//! ```text
//!  registry ──┐  compressed blob        pipe    ┌────────────────────────┐   EROFS disk + recipe
//!  archive  ──┼─▶ digest and size checked ────▶ │ child without rights:  │ ─▶ staged file ─▶ committed as diff_id
//!  import   ──┘  as it streams by               │ gunzip, tar, EROFS     │    only if everything agrees
//!                                               └────────────────────────┘
//! ```
//!
//! It knows nothing of the engine, the database or Docker's API. What a layer disk is called and where it lies is the
//! business of the [`LayerStore`] that the caller brings.
//!
//! **Invariant:** what a stranger made (archives, manifests, configs, compressed streams) is decompressed and unpacked
//! only in the child ([`convert`]); this process parses bounded JSON and uncompressed archive headers.
//! **Invariant:** nothing is ever written to a path that came out of an archive; trees exist in memory only.
//! **Invariant:** a layer disk is a function of its archive alone, never of the layers below it, so that images may share it.

pub mod archive;
pub mod compression;
pub mod convert;
mod erofs;
pub mod error;
pub mod image_config;
mod layer;
mod layer_error;
pub mod limits;
pub mod progress;
pub mod pull;
pub mod recipe;
pub mod registry;
pub mod store;
pub mod tar;
mod tree;

pub use error::ImageError;
pub use limits::LayerLimits;
pub use progress::{Progress, PullProgress, Stage};
pub use pull::Fetched;
pub use store::{LayerFacts, LayerStore, Staged, StoreError};
