//! What the parts of the back end share.

use crate::cgroups::Cgroups;
use crate::disks::DiskStore;
use crate::guest_image::GuestImage;
use crate::hosts::Hosts;
use crate::networks::QemuNetworks;
use crate::plan::Accelerator;
use bulkhead_model::{ContainerId, ServerId};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) data_dir: PathBuf,
    pub(crate) server: ServerId,
    pub(crate) qemu_binary: PathBuf,
    pub(crate) accelerator: Accelerator,
    pub(crate) guest: GuestImage,
    pub(crate) cgroups: Cgroups,
    pub(crate) hosts: Hosts,
    pub(crate) disks: DiskStore,
    pub(crate) networks: QemuNetworks,
    pub(crate) uids: Uids,
}

/// The user ids that hypervisor processes run under.
#[derive(Debug)]
pub(crate) struct Uids {
    first: u32,
    count: u32,
    taken: Mutex<BTreeSet<u32>>,
}

impl Uids {
    pub(crate) fn new(first: u32, count: u32) -> Self {
        Self { first, count, taken: Mutex::default() }
    }

    /// One that nobody else has, not even a machine that ended and was not deleted.
    pub(crate) fn take(&self) -> Result<u32, String> {
        let mut taken = self.taken();
        let free = (self.first..self.first.saturating_add(self.count)).find(|uid| !taken.contains(uid));
        let uid = free.ok_or_else(|| format!("all {} user ids for machines are taken", self.count))?;
        taken.insert(uid);
        Ok(uid)
    }

    /// Found in use.
    pub(crate) fn note(&self, uid: u32) {
        self.taken().insert(uid);
    }

    pub(crate) fn give_back(&self, uid: u32) {
        self.taken().remove(&uid);
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(crate) fn machines_folder(&self) -> PathBuf {
        self.data_dir.join("machines")
    }

    pub(crate) fn templates_folder(&self) -> PathBuf {
        self.data_dir.join("templates")
    }

    pub(crate) fn spares_folder(&self) -> PathBuf {
        self.data_dir.join("spares")
    }

    pub(crate) fn journal_path(&self, id: &ContainerId) -> PathBuf {
        self.data_dir.join("journals").join(id.as_str())
    }

    /// Nothing was ever written to it.
    pub(crate) fn has_no_journal(&self, id: &ContainerId) -> bool {
        std::fs::metadata(self.journal_path(id)).map_or(true, |found| found.len() == 0)
    }
}
