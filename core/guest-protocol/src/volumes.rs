//! Volumes in a machine: their disks, and where the container finds them.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volumes {
    /// On SCSI target 2, in the order of their LUNs.
    pub disks: Vec<VolumeDisk>,
    /// Parents before what is below them.
    pub mounts: Vec<VolumeMount>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDisk {
    /// It cannot be written, and has its file system complete.
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Which of the disks.
    pub disk: u32,
    /// From the container's root.
    pub target: String,
    pub read_only: bool,
    /// An empty volume is filled with what the image has there, once in a container's life.
    pub fills: bool,
    /// A folder in the volume; empty: all of it.
    pub subpath: String,
}
