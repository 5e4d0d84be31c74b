//! Disks on the datastore, as plain files that only the server can open:
//!
//! ```text
//!   DATA/prepared/<bytes>.ext4              an empty file system of that size, made once
//!   DATA/vchs/<vch id>/layers/<hex>.erofs   0444
//!   DATA/vchs/<vch id>/disks/<container id>.ext4, without content until a machine gets it
//!   DATA/vchs/<vch id>/volumes/<volume id>.ext4
//!   FOLDER/<vch id>/<volume id>.ext4        volumes of a store that has a folder
//! ```
//!
//! Disks of containers are in `DATASTORE/disks/<vch id>` instead where an operator named datastores; see [`datastores`].
//!
//! Machines get descriptors, so nobody else ever needs a way to these files. A file has its name only once it is
//! whole and on the disk: until then it has none (O_TMPFILE), and a crash leaves nothing. `FOLDER/<vch id>` is made when
//! the store is set up and never later: where it is missing, what belongs there is not mounted.

mod datastores;
mod file;
mod folder;
mod prepared;
mod untouched;

pub use datastores::Datastore;
pub(crate) use datastores::Datastores;
pub(crate) use file::copy_sparse;

use async_trait::async_trait;
use bulkhead_machine::places::DatastoreFacts;
use bulkhead_machine::{Disks, MachineError, StagedLayer, VolumeDisk};
use bulkhead_model::placement::DiskPlace;
use bulkhead_model::volume::VolumePlace;
use bulkhead_model::{Digest, VchId, VolumeId};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;

#[derive(Debug, Clone)]
pub(crate) struct DiskStore {
    data_dir: PathBuf,
    datastores: Arc<Datastores>,
    prepared: Arc<prepared::Prepared>,
    layer_removed: Arc<Notify>,
}

impl DiskStore {
    pub(crate) fn new(data_dir: PathBuf, datastores: Datastores) -> Self {
        let prepared = Arc::new(prepared::Prepared::new(data_dir.join("prepared")));
        Self { data_dir, datastores: Arc::new(datastores), prepared, layer_removed: Arc::default() }
    }

    pub(crate) fn datastores(&self) -> Vec<DatastoreFacts> {
        self.datastores.facts()
    }

    /// Below those that an operator named, folders of the disks of a VCH each.
    pub(crate) fn disk_folders(&self) -> Vec<PathBuf> {
        self.datastores.all_disks().collect()
    }

    /// Wakes one who waits after a layer is gone.
    pub(crate) async fn layer_removed(&self) {
        self.layer_removed.notified().await;
    }

    fn vch(&self, vch: VchId) -> PathBuf {
        self.data_dir.join("vchs").join(vch.to_string())
    }

    fn layers(&self, vch: VchId) -> PathBuf {
        self.vch(vch).join("layers")
    }

    /// Where a layer is, or would be.
    pub(crate) fn layer_path(&self, vch: VchId, diff_id: &Digest) -> PathBuf {
        self.layers(vch).join(format!("{}.erofs", diff_id.hex()))
    }

    fn disk_path(&self, vch: VchId, at: DiskPlace<'_>) -> Result<PathBuf, MachineError> {
        Ok(self.datastores.disks(vch, at.datastore)?.join(format!("{}.ext4", at.id)))
    }

    /// `None`: its datastore is not there.
    fn disk_path_if_there(&self, vch: VchId, at: DiskPlace<'_>) -> Option<PathBuf> {
        self.disk_path(vch, at).ok()
    }

    fn volumes(&self, vch: VchId, folder: Option<&Path>) -> PathBuf {
        match folder {
            None => self.vch(vch).join("volumes"),
            Some(folder) => folder::of(vch, folder),
        }
    }

    /// Where the disk of a volume is, or would be.
    fn volume_path(&self, vch: VchId, at: &VolumePlace) -> Result<PathBuf, MachineError> {
        if let Some(folder) = &at.folder {
            folder::check(vch, folder)?;
        }
        Ok(self.volumes(vch, at.folder.as_deref()).join(format!("{}.ext4", at.id)))
    }

    /// The disk of a volume, to hand to a machine.
    pub(crate) fn open_volume(&self, vch: VchId, disk: &VolumeDisk) -> Result<File, MachineError> {
        let path = self.volume_path(vch, &disk.at)?;
        match open_regular(OpenOptions::new().read(true).write(!disk.read_only), &path) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(MachineError::NoSuchVolume(disk.at.id)),
            Err(error) => Err(MachineError::io("opening the disk of a volume")(error)),
        }
    }

    /// A layer disk, to read.
    pub(crate) fn open_layer_file(&self, vch: VchId, diff_id: &Digest) -> Result<File, MachineError> {
        match open_regular(OpenOptions::new().read(true), &self.layer_path(vch, diff_id)) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(MachineError::NoSuchLayer(diff_id.clone())),
            Err(error) => Err(MachineError::io("opening a layer disk")(error)),
        }
    }

    /// The writable disk of a container, to hand to its machine.
    pub(crate) fn open_disk(&self, vch: VchId, at: DiskPlace<'_>) -> Result<File, MachineError> {
        match open_regular(OpenOptions::new().read(true).write(true), &self.disk_path(vch, at)?) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(MachineError::Start {
                id: at.id.clone(),
                why: "its own disk is not on the datastore".into(),
            }),
            Err(error) => Err(MachineError::io("opening the container's disk")(error)),
        }
    }

    /// Bytes of the container's disk, if no machine ever had it.
    pub(crate) fn untouched(&self, vch: VchId, at: DiskPlace<'_>) -> Result<Option<u64>, MachineError> {
        let bytes = untouched::bytes(&self.disk_path(vch, at)?);
        bytes.map_err(MachineError::io("looking at the container's disk"))
    }

    /// Puts a copy of another disk onto such a one. Fine if it has something.
    pub(crate) fn fill(&self, vch: VchId, at: DiskPlace<'_>, from: &File) -> Result<(), MachineError> {
        let filled = untouched::fill(&self.disk_path(vch, at)?, from);
        filled.map_err(MachineError::io("making the container's disk"))
    }

    /// An empty file system of that size, to be copied.
    pub(crate) async fn prepared(&self, bytes: u64) -> Result<File, MachineError> {
        let path = self.prepared.of_size(bytes).await?;
        File::open(path).map_err(MachineError::io("opening an empty file system"))
    }

    /// A disk with an empty file system that is gone with its last descriptor.
    pub(crate) async fn empty(&self, bytes: u64) -> Result<File, MachineError> {
        let prepared = self.prepared(bytes).await?;
        self.blocking("making an empty disk", move |store| {
            let disk = file::unnamed(&store.data_dir.join("prepared"), 0o600)?;
            file::copy_sparse(&prepared, &disk)?;
            Ok(disk)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, MachineError> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(io::Error::other).flatten().map_err(MachineError::io(doing))
    }
}

/// `None` if it is not there. Anything but a plain file of ours is refused: a disk is never somebody's device.
fn open_regular(options: &mut OpenOptions, path: &std::path::Path) -> io::Result<Option<File>> {
    match options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a plain file", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Disks for DiskStore {
    async fn stage_layer(&self, vch: VchId) -> Result<Box<dyn StagedLayer>, MachineError> {
        let file = self
            .blocking("making a layer disk", move |store| {
                let layers = store.layers(vch);
                file::make_folder(&layers)?;
                file::unnamed(&layers, 0o444)
            })
            .await?;
        Ok(Box::new(Staged { store: self.clone(), vch, file }))
    }

    async fn layer(&self, vch: VchId, diff_id: &Digest) -> Result<Option<u64>, MachineError> {
        let path = self.layer_path(vch, diff_id);
        self.blocking("looking for a layer disk", move |_| file::size(&path)).await
    }

    async fn layers(&self, vch: VchId) -> Result<Vec<Digest>, MachineError> {
        self.blocking("listing layer disks", move |store| {
            let names = file::names(&store.layers(vch))?;
            let digest = |name: &String| format!("sha256:{}", name.strip_suffix(".erofs")?).parse().ok();
            Ok(names.iter().filter_map(digest).collect())
        })
        .await
    }

    async fn open_layer(&self, vch: VchId, diff_id: &Digest) -> Result<File, MachineError> {
        self.open_layer_file(vch, diff_id)
    }

    async fn delete_layer(&self, vch: VchId, diff_id: &Digest) -> Result<(), MachineError> {
        let path = self.layer_path(vch, diff_id);
        let removed = self.blocking("removing a layer disk", move |_| file::remove(&path)).await;
        self.layer_removed.notify_one();
        removed
    }

    async fn create_disk(&self, vch: VchId, at: DiskPlace<'_>, bytes: u64) -> Result<(), MachineError> {
        let path = self.disk_path(vch, at)?;
        if self.has_disk(vch, at).await? {
            return Ok(());
        }
        // Told now, and not at the first start, if there can be none.
        self.prepared.of_size(bytes).await?;
        self.blocking("making the container's disk", move |_| {
            file::make_folder(file::parent(&path)?)?;
            untouched::make(&path, bytes)
        })
        .await
    }

    async fn has_disk(&self, vch: VchId, at: DiskPlace<'_>) -> Result<bool, MachineError> {
        let Some(path) = self.disk_path_if_there(vch, at) else { return Ok(false) };
        Ok(self.blocking("looking for the container's disk", move |_| file::size(&path)).await?.is_some())
    }

    async fn disk_used(&self, vch: VchId, at: DiskPlace<'_>) -> Result<u64, MachineError> {
        let Some(path) = self.disk_path_if_there(vch, at) else { return Ok(0) };
        self.blocking("measuring the container's disk", move |_| file::used(&path)).await
    }

    async fn delete_disk(&self, vch: VchId, at: DiskPlace<'_>) -> Result<(), MachineError> {
        let path = self.disk_path(vch, at)?;
        self.blocking("removing the container's disk", move |_| file::remove(&path)).await
    }

    async fn create_volume(&self, vch: VchId, at: &VolumePlace, bytes: u64) -> Result<(), MachineError> {
        let path = self.volume_path(vch, at)?;
        let (folder, ours) = (self.volumes(vch, at.folder.as_deref()), at.folder.is_none());
        let disk = self
            .blocking("making the disk of a volume", move |_| {
                if ours {
                    file::make_folder(&folder)?;
                }
                file::unnamed(&folder, 0o600)
            })
            .await?;
        // Any size may be asked for: what was prepared of each would fill the datastore.
        prepared::format(&disk, bytes)
            .await
            .map_err(MachineError::io("making the file system of a volume"))?;
        self.blocking("making the disk of a volume", move |_| file::name(&disk, &path)).await
    }

    async fn volumes(&self, vch: VchId, folder: Option<&Path>) -> Result<Vec<VolumeId>, MachineError> {
        let folder = self.volumes(vch, folder);
        self.blocking("listing volumes", move |_| {
            let names = file::names(&folder)?;
            Ok(names.iter().filter_map(|name| name.strip_suffix(".ext4")?.parse().ok()).collect())
        })
        .await
    }

    async fn volume_used(&self, vch: VchId, at: &VolumePlace) -> Result<u64, MachineError> {
        let path = self.volume_path(vch, at)?;
        self.blocking("measuring a volume", move |_| file::used(&path)).await
    }

    async fn grow_volume(&self, vch: VchId, at: &VolumePlace, bytes: u64) -> Result<(), MachineError> {
        let file = self.open_volume(vch, &VolumeDisk { at: at.clone(), read_only: false })?;
        self.blocking("making a volume larger", move |_| {
            if file.metadata()?.len() < bytes {
                file.set_len(bytes)?;
                file.sync_all()?;
            }
            Ok(())
        })
        .await
    }

    async fn delete_volume(&self, vch: VchId, at: &VolumePlace) -> Result<(), MachineError> {
        let path = self.volume_path(vch, at)?;
        self.blocking("removing a volume", move |_| file::remove(&path)).await
    }

    async fn open_folder(&self, vch: VchId, folder: &Path) -> Result<(), MachineError> {
        let folder = folder.to_owned();
        let made = tokio::task::spawn_blocking(move || folder::open(vch, &folder)).await;
        made.map_err(|error| MachineError::io("making a folder for volumes")(io::Error::other(error)))?
    }

    async fn leave_folder(&self, vch: VchId, folder: &Path) -> Result<(), MachineError> {
        let ours = folder::of(vch, folder);
        self.blocking("leaving a folder for volumes", move |_| match fs::remove_dir(ours) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    async fn forget_vch(&self, vch: VchId) -> Result<(), MachineError> {
        self.blocking("removing the folder of a VCH", move |store| {
            let folder = store.vch(vch);
            let named = store.datastores.all_disks().map(|disks| disks.join(vch.to_string()));
            let own = [folder.join("layers"), folder.join("disks"), folder.join("volumes"), folder];
            for part in named.chain(own) {
                match fs::remove_dir(part) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }
}

struct Staged {
    store: DiskStore,
    vch: VchId,
    file: File,
}

#[async_trait]
impl StagedLayer for Staged {
    fn file(&self) -> Result<File, MachineError> {
        self.file.try_clone().map_err(MachineError::io("opening a new layer disk"))
    }

    async fn commit(self: Box<Self>, diff_id: &Digest) -> Result<u64, MachineError> {
        let Self { store, vch, file } = *self;
        let path = store.layer_path(vch, diff_id);
        store
            .blocking("keeping a layer disk", move |_| {
                file::name(&file, &path)?;
                Ok(file::size(&path)?.unwrap_or_default())
            })
            .await
    }
}
