//! What machines are cloned from, as operators see it.

use bulkhead_model::VchId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A machine that has booted and waits, kept to be cloned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateFacts {
    pub name: String,
    /// It has the disks of an image; `None`: it has none.
    pub image: Option<ImageFacts>,
    pub vcpus: u32,
    /// Of each clone; a container may take less.
    pub memory_bytes: u64,
    pub state: TemplateState,
    /// On this host, once for all clones.
    pub memory_used_bytes: u64,
    pub disk_used_bytes: u64,
    pub made_at: Option<DateTime<Utc>>,
    /// Machines that run and were cloned from it.
    pub clones: u32,
    /// Further clones that wait to be somebody's.
    pub spares: u32,
}

/// What a template has of an image's disks. Only first starts of containers of that image, with such a disk, are clones of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    pub vch: VchId,
    pub layers: u32,
    /// Size of the writable disk.
    pub disk_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum TemplateState {
    Making,
    Loaded,
    /// Loaded when it is next needed.
    OnDisk,
    /// Machines of this class boot; those of this image are cloned from the template of their class.
    Failed {
        why: String,
    },
}
