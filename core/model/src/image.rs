//! Images: a list of layers and a config.

use crate::digest::Digest;
use crate::health::HealthAsk;
use crate::reference::Reference;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An image of a VCH's cache. Its id is the digest of its config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub id: Digest,
    pub layers: Vec<Layer>,
    /// The config file, byte for byte (its digest is the id).
    pub config_json: String,
    /// The parts of the config that the engine uses.
    pub config: ImageConfig,
    /// Where its manifest was fetched from: set at pull, never by tag, load, import or commit.
    pub origins: Vec<Origin>,
    /// Tags and names that point at it.
    pub references: Vec<Reference>,
    pub added_at: DateTime<Utc>,
}

/// One layer. Its disk is named by the digest of the uncompressed archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Of the uncompressed tar (OCI "DiffID").
    pub diff_id: Digest,
    /// Bytes of the files in it, as Docker counts a layer's size.
    pub size_bytes: u64,
    /// Bytes of the EROFS disk on the datastore.
    pub disk_bytes: u64,
}

/// Where a manifest came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    pub registry: String,
    pub repository: String,
    /// Of the manifest or index as it was asked for.
    pub digest: Digest,
}

/// What the engine reads in an image config (OCI image-spec, config.md). Everything in it is hostile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    pub architecture: String,
    pub os: String,
    pub created: Option<DateTime<Utc>>,
    pub author: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
    /// `80/tcp` and so on.
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
    #[serde(default)]
    pub health: HealthAsk,
    pub diff_ids: Vec<Digest>,
    pub history: Vec<History>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    pub created: Option<DateTime<Utc>>,
    #[serde(default)]
    pub created_by: String,
    #[serde(default)]
    pub comment: String,
    #[serde(default)]
    pub empty_layer: bool,
}

impl Image {
    pub fn size_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size_bytes).sum()
    }
}
