//! The disks of a [`Sim`]: layers are real files, since real code writes them; the rest is names.

use super::{Sim, Verb, World};
use crate::{Disks, MachineError, StagedLayer};
use async_trait::async_trait;
use bulkhead_model::placement::{DiskPlace, HostName, Placement};
use bulkhead_model::volume::VolumePlace;
use bulkhead_model::{Digest, VchId, VolumeId};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file without a name, so that a server killed with its simulated machines leaves nothing.
#[derive(Debug)]
pub(super) struct LayerFile(File);

impl LayerFile {
    fn new() -> Result<Self, MachineError> {
        tempfile::tempfile().map(Self).map_err(MachineError::io("stage a layer"))
    }

    /// With a position of its own.
    fn open(&self, write: bool) -> Result<File, MachineError> {
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        File::options().read(true).write(write).open(path).map_err(MachineError::io("open a layer"))
    }

    fn bytes(&self) -> Result<u64, MachineError> {
        self.0.metadata().map(|data| data.len()).map_err(MachineError::io("measure a layer"))
    }
}

pub(super) type VolumeKey = (VchId, Option<PathBuf>, VolumeId);

pub(super) fn key(vch: VchId, at: &VolumePlace) -> VolumeKey {
    (vch, at.folder.clone(), at.id)
}

impl World {
    pub(super) fn check_folder(&self, vch: VchId, at: &VolumePlace) -> Result<(), MachineError> {
        match &at.folder {
            Some(folder) if !self.folders.contains(&(vch, folder.clone())) => {
                Err(MachineError::NoFolder { folder: folder.clone() })
            }
            _ => Ok(()),
        }
    }
}

struct Staged {
    sim: Sim,
    vch: VchId,
    file: LayerFile,
}

#[async_trait]
impl StagedLayer for Staged {
    fn file(&self) -> Result<File, MachineError> {
        self.file.open(true)
    }

    async fn commit(self: Box<Self>, diff_id: &Digest) -> Result<u64, MachineError> {
        self.sim.enter(Verb::CommitLayer)?;
        let bytes = self.file.bytes()?;
        let key = (self.vch, diff_id.clone());
        let Staged { sim, file, .. } = *self;
        sim.lock().layers.entry(key).or_insert_with(|| Arc::new(file));
        Ok(bytes)
    }
}

#[async_trait]
impl Disks for Sim {
    async fn stage_layer(&self, vch: VchId) -> Result<Box<dyn StagedLayer>, MachineError> {
        Ok(Box::new(Staged { sim: self.clone(), vch, file: LayerFile::new()? }))
    }

    async fn layer(&self, vch: VchId, diff_id: &Digest) -> Result<Option<u64>, MachineError> {
        let file = self.lock().layers.get(&(vch, diff_id.clone())).cloned();
        file.map(|file| file.bytes()).transpose()
    }

    async fn layers(&self, vch: VchId) -> Result<Vec<Digest>, MachineError> {
        Ok(self
            .lock()
            .layers
            .keys()
            .filter(|(of, _)| *of == vch)
            .map(|(_, diff_id)| diff_id.clone())
            .collect())
    }

    async fn open_layer(&self, vch: VchId, diff_id: &Digest) -> Result<File, MachineError> {
        let file = self.lock().layers.get(&(vch, diff_id.clone())).cloned();
        let file = file.ok_or_else(|| MachineError::NoSuchLayer(diff_id.clone()))?;
        file.open(false)
    }

    async fn delete_layer(&self, vch: VchId, diff_id: &Digest) -> Result<(), MachineError> {
        self.enter(Verb::DeleteLayer)?;
        self.lock().layers.remove(&(vch, diff_id.clone()));
        Ok(())
    }

    async fn create_disk(&self, vch: VchId, at: DiskPlace<'_>, _bytes: u64) -> Result<(), MachineError> {
        self.enter(Verb::CreateDisk)?;
        let mut world = self.lock();
        let host = HostName::default();
        world.places.check(&Placement { host, datastore: at.datastore.clone() })?;
        world.disks.insert((vch, at.id.clone()), at.datastore.clone());
        Ok(())
    }

    async fn has_disk(&self, vch: VchId, at: DiskPlace<'_>) -> Result<bool, MachineError> {
        self.enter(Verb::HasDisk)?;
        Ok(self.lock().disks.get(&(vch, at.id.clone())) == Some(at.datastore))
    }

    async fn disk_used(&self, _vch: VchId, _at: DiskPlace<'_>) -> Result<u64, MachineError> {
        Ok(0)
    }

    async fn delete_disk(&self, vch: VchId, at: DiskPlace<'_>) -> Result<(), MachineError> {
        self.enter(Verb::DeleteDisk)?;
        self.lock().disks.remove(&(vch, at.id.clone()));
        Ok(())
    }

    async fn create_volume(&self, vch: VchId, at: &VolumePlace, bytes: u64) -> Result<(), MachineError> {
        self.enter(Verb::CreateVolume)?;
        let mut world = self.lock();
        world.check_folder(vch, at)?;
        world.volumes.entry(key(vch, at)).or_insert(bytes);
        Ok(())
    }

    async fn volumes(&self, vch: VchId, folder: Option<&Path>) -> Result<Vec<VolumeId>, MachineError> {
        let world = self.lock();
        if folder.is_some_and(|folder| !world.folders.contains(&(vch, folder.to_owned()))) {
            return Ok(Vec::new());
        }
        let here = world.volumes.keys().filter(|(of, at, _)| *of == vch && at.as_deref() == folder);
        Ok(here.map(|(_, _, id)| *id).collect())
    }

    async fn volume_used(&self, vch: VchId, at: &VolumePlace) -> Result<u64, MachineError> {
        self.lock().check_folder(vch, at)?;
        Ok(0)
    }

    async fn grow_volume(&self, vch: VchId, at: &VolumePlace, bytes: u64) -> Result<(), MachineError> {
        let mut world = self.lock();
        world.check_folder(vch, at)?;
        match world.volumes.get_mut(&key(vch, at)) {
            Some(size) => {
                *size = bytes.max(*size);
                Ok(())
            }
            None => Err(MachineError::NoSuchVolume(at.id)),
        }
    }

    async fn delete_volume(&self, vch: VchId, at: &VolumePlace) -> Result<(), MachineError> {
        self.enter(Verb::DeleteVolume)?;
        let mut world = self.lock();
        world.check_folder(vch, at)?;
        world.volumes.remove(&key(vch, at));
        Ok(())
    }

    async fn open_folder(&self, vch: VchId, folder: &Path) -> Result<(), MachineError> {
        self.lock().folders.insert((vch, folder.to_owned()));
        Ok(())
    }

    async fn leave_folder(&self, vch: VchId, folder: &Path) -> Result<(), MachineError> {
        let mut world = self.lock();
        if world.volumes.keys().any(|(of, at, _)| *of == vch && at.as_deref() == Some(folder)) {
            let source = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
            return Err(MachineError::Io { doing: format!("leave `{}`", folder.display()), source });
        }
        world.folders.remove(&(vch, folder.to_owned()));
        Ok(())
    }

    async fn forget_vch(&self, vch: VchId) -> Result<(), MachineError> {
        let world = self.lock();
        let left = world.disks.keys().any(|(of, _)| *of == vch)
            || world.layers.keys().any(|(of, _)| *of == vch)
            || world.volumes.keys().any(|(of, folder, _)| *of == vch && folder.is_none());
        if left {
            let source = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
            return Err(MachineError::Io { doing: format!("remove the folder of VCH {vch}"), source });
        }
        Ok(())
    }
}
