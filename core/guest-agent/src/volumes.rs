//! Volumes: disks that outlive the container.
//!
//! ```text
//!   /volume/0            the file system: lost+found and what else is ours
//!   /volume/0/filling    what the image has at the mount, while it is copied
//!   /volume/0/data       what containers see; renamed to this once it is complete
//! ```
//!
//! A copy that was cut off is begun anew, so a volume is never seen half filled.

use crate::disks::{self, DISK, ROOT, has_ext4};
use crate::failure::{Doing, Failure};
use crate::files::path::follow;
use crate::{rootfs, sys, tree};
use bulkhead_guest_protocol::volumes::{VolumeMount, Volumes};
use std::fs::{self, File};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/volume";
/// On the container's own disk: its volumes were filled once, so that what it deletes later does not come back.
const FILLED: &str = "filled";

fn mounted(lun: u32) -> PathBuf {
    Path::new(FOLDER).join(lun.to_string())
}

fn content(lun: u32) -> PathBuf {
    mounted(lun).join("data")
}

/// Mounts the disk of a volume, and lets its file system have all of it.
pub fn mount(device: &Path, lun: u32, read_only: bool) -> Result<(), Failure> {
    let doing = |what: &str| format!("{what} volume {lun}");
    if !has_ext4(device).doing(doing("read"))? {
        return Err(Failure::internal(format!("the disk of volume {lun} has no ext4 file system")));
    }
    let target = mounted(lun);
    fs::create_dir_all(&target).doing("make a mount point")?;
    let (flags, options) = if read_only { (libc::MS_RDONLY, "") } else { (0, "discard") };
    sys::mount(&device.to_string_lossy(), &target, "ext4", flags, options).doing(doing("mount"))?;
    if !read_only {
        let grown = File::open(device)
            .and_then(|mut disk| disk.seek(SeekFrom::End(0)))
            .and_then(|bytes| sys::grow_ext4(&File::open(&target)?, bytes));
        // It can be used as it is.
        if let Err(error) = grown {
            eprintln!("bulkhead agent: grow volume {lun}: {error}");
        }
    }
    Ok(())
}

/// Lets the file system of a mounted volume have what its disk has grown by.
pub fn grow(lun: u32, bytes: u64) -> Result<(), Failure> {
    disks::await_size(lun, bytes)?;
    File::open(mounted(lun))
        .and_then(|volume| sys::grow_ext4(&volume, bytes))
        .doing(format!("grow volume {lun}"))
}

/// Completes the volumes that are new or empty. The container's root is there and nobody is in it.
pub fn fill(volumes: &Volumes) -> Result<(), Failure> {
    let marker = Path::new(DISK).join(FILLED);
    let was_filled = marker.exists();
    for mount in &volumes.mounts {
        let writable = usize::try_from(mount.disk)
            .ok()
            .and_then(|disk| volumes.disks.get(disk))
            .is_some_and(|disk| !disk.read_only);
        let fills = mount.fills && !was_filled;
        let empty = match fs::read_dir(content(mount.disk)) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            entries => Some(entries.doing("read a volume")?.next().is_none()),
        };
        if writable && (empty.is_none() || empty == Some(true) && fills) {
            let from = if fills { in_image(&mount.target)? } else { None };
            complete(&mounted(mount.disk), from.as_deref())
                .doing(format!("fill the volume at {}", mount.target))?;
        }
    }
    if !was_filled && !volumes.mounts.is_empty() {
        File::create(marker).and_then(|file| file.sync_all()).doing("write the container's disk")?;
    }
    Ok(())
}

/// The folder that the image has where a volume comes; none if there is nothing.
fn in_image(target: &str) -> Result<Option<PathBuf>, Failure> {
    let root = Path::new(ROOT);
    let found = follow(root, Path::new(target));
    let path = root.join(found.strip_prefix("/").unwrap_or(&found));
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => Ok(Some(path)),
        Ok(_) => {
            Err(Failure::internal(format!("cannot mount volume over existing file, file exists {target}")))
        }
        Err(_) => Ok(None),
    }
}

fn complete(volume: &Path, from: Option<&Path>) -> std::io::Result<()> {
    let filling = volume.join("filling");
    match fs::remove_dir_all(&filling) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o755).create(&filling)?;
    if let Some(from) = from {
        tree::copy(from, &filling)?;
    }
    let folder = File::open(volume)?;
    sys::sync_file_system(&folder)?;
    // In the place of an empty folder, if there is one.
    fs::rename(&filling, volume.join("data"))?;
    folder.sync_all()
}

/// A volume on its way into a root.
pub struct Opened<'a> {
    pub mount: &'a VolumeMount,
    tree: OwnedFd,
    is_folder: bool,
}

/// Takes hold of what is to be mounted, while the agent's files can be seen.
pub fn open(mounts: &[VolumeMount]) -> Result<Vec<Opened<'_>>, Failure> {
    mounts.iter().map(open_one).collect()
}

fn open_one(mount: &VolumeMount) -> Result<Opened<'_>, Failure> {
    let VolumeMount { disk, subpath, target, .. } = mount;
    let all = content(*disk);
    let inside = follow(&all, Path::new(subpath));
    let path = all.join(inside.strip_prefix("/").unwrap_or(&inside));
    let found = fs::symlink_metadata(&path).doing(format!("cannot access path {subpath} of the volume"))?;
    let tree = sys::detached_bind(&path).doing(format!("open the volume of {target}"))?;
    Ok(Opened { mount, tree, is_folder: found.is_dir() })
}

impl Opened<'_> {
    /// Mounts it, from inside the root.
    pub fn place(&self) -> Result<(), Failure> {
        let path = Path::new(&self.mount.target);
        let again = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
        let there = if self.is_folder { rootfs::make_folder(path) } else { rootfs::ensure_file(path) };
        there
            .and_then(|()| sys::attach(&self.tree, path))
            .and_then(|()| if self.mount.read_only { sys::mount("", path, "", again, "") } else { Ok(()) })
            .doing(format!("mount {}", self.mount.target))
    }
}

/// Unmounts them all; says which does not go.
pub fn release() -> Result<(), Failure> {
    let Ok(entries) = fs::read_dir(FOLDER) else { return Ok(()) };
    for entry in entries.flatten() {
        match sys::unmount(&entry.path(), 0) {
            // It is not mounted.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            done => done.doing(format!("unmount {}", entry.path().display()))?,
        }
    }
    Ok(())
}
