//! What the parts of the back end share.

use crate::cgroups::Cgroups;
use crate::disks::DiskStore;
use crate::guest_image::GuestImage;
use crate::networks::QemuNetworks;
use crate::plan::Accelerator;
use bulkhead_model::{ContainerId, ServerId};
use std::path::PathBuf;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) data_dir: PathBuf,
    pub(crate) server: ServerId,
    pub(crate) qemu_binary: PathBuf,
    pub(crate) accelerator: Accelerator,
    pub(crate) guest: GuestImage,
    pub(crate) cgroups: Cgroups,
    pub(crate) disks: DiskStore,
    pub(crate) networks: QemuNetworks,
    /// First of the user ids that machines run under, and how many there are.
    pub(crate) uid_base: u32,
    pub(crate) uid_count: u32,
}

impl Shared {
    pub(crate) fn machines_folder(&self) -> PathBuf {
        self.data_dir.join("machines")
    }

    pub(crate) fn journal_path(&self, id: &ContainerId) -> PathBuf {
        self.data_dir.join("journals").join(id.as_str())
    }
}
