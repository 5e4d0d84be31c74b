//! The machine's disks: found by their place on the SCSI bus, mounted, and stacked into the container's root.
//!
//! ```text
//!   target 0, LUN 0..n   layers, bottom first    EROFS, read-only    /layer/0 ..
//!   target 1, LUN 0      the container's own     ext4                /disk   upper, work
//!   target 2, LUN 0..n   volumes                 ext4                /volume/0 ..
//!                                                overlay of all      /root
//! ```
//!
//! **Invariant:** never by `sdX`: the kernel names disks in the order in which it happens to see them.

use crate::failure::{Doing, Failure};
use crate::{sys, volumes};
use bulkhead_guest_protocol::volumes::Volumes;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the container's root is put together.
pub const ROOT: &str = "/root";
/// The container's own disk.
pub const DISK: &str = "/disk";
/// More would not fit into the options of an overlay mount.
const LAYERS_MAX: u32 = 127;
/// SCSI target of volumes.
const VOLUMES: u32 = 2;
/// What is read ahead of an image, all together.
const READ_AHEAD_BYTES: u64 = 16 << 20;
const READ_AHEAD_ENTRIES: u32 = 4096;
const READ_AHEAD_PIECE_BYTES: usize = 64 << 10;
const WAIT_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// All else in the agent waits meanwhile.
const GROW_WAIT_MAX: Duration = Duration::from_secs(2);

/// Whose disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Container,
    Rehearsal,
}

impl Place {
    /// SCSI targets of the layers and of the writable disk.
    fn targets(self) -> (u32, u32) {
        match self {
            Place::Container => (0, 1),
            Place::Rehearsal => (8, 9),
        }
    }
}

/// Attaches and mounts everything; afterwards [`ROOT`] is what the image and earlier runs made of it.
pub fn assemble(place: Place, layer_count: u32, volumes: &Volumes) -> Result<(), Failure> {
    stack(place, layer_count)?;
    add_volumes(volumes)
}

/// Attaches, mounts and stacks the image's layers and the writable disk.
pub fn stack(place: Place, layer_count: u32) -> Result<(), Failure> {
    if layer_count > LAYERS_MAX {
        return Err(Failure::internal(format!("{layer_count} layers are more than {LAYERS_MAX}")));
    }
    let host = scsi_host()?;
    let (layers, own) = place.targets();
    let luns: Vec<(u32, u32)> = (0..layer_count).map(|lun| (layers, lun)).chain([(own, 0)]).collect();
    scan(host, &luns)?;
    for (target, lun) in luns {
        let device = wait_for_disk(host, target, lun)?;
        match target {
            _ if target == layers => mount_layer(&device, lun)?,
            _ => mount_own(&device)?,
        }
    }
    mount_overlay(layer_count)
}

/// Attaches and mounts the disks of volumes, and fills what is new. The container's root is stacked.
pub fn add_volumes(volumes: &Volumes) -> Result<(), Failure> {
    if volumes.disks.is_empty() {
        return Ok(());
    }
    let host = scsi_host()?;
    let luns: Vec<(u32, u32)> = (0..).zip(&volumes.disks).map(|(lun, _)| (VOLUMES, lun)).collect();
    scan(host, &luns)?;
    for ((target, lun), disk) in luns.into_iter().zip(&volumes.disks) {
        volumes::mount(&wait_for_disk(host, target, lun)?, lun, disk.read_only)?;
    }
    volumes::fill(volumes)
}

/// Lets the kernel find all of them before any is waited for.
fn scan(host: u32, luns: &[(u32, u32)]) -> Result<(), Failure> {
    for (target, lun) in luns {
        fs::write(format!("/sys/class/scsi_host/host{host}/scan"), format!("0 {target} {lun}"))
            .doing("scan for disks")?;
    }
    Ok(())
}

/// Reads files of the image, so that they are in memory: a machine that goes on from here need not read them from its disks.
/// Folders near the root come first; what is too large is left out.
pub fn read_ahead() {
    let (mut left, mut entries_left) = (READ_AHEAD_BYTES, READ_AHEAD_ENTRIES);
    let mut folders = VecDeque::from([PathBuf::from(ROOT)]);
    let mut buffer = vec![0; READ_AHEAD_PIECE_BYTES];
    while let Some(folder) = folders.pop_front() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entries_left == 0 {
                return;
            }
            entries_left -= 1;
            // Links are not followed: they would lead out of the image.
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push_back(entry.path()),
                Ok(found) if found.is_file() && found.len() <= left => {
                    left -= found.len();
                    let Ok(mut file) = File::open(entry.path()) else { continue };
                    while file.read(&mut buffer).is_ok_and(|length| length > 0) {}
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// Has the writable disk hold all that was written to it.
pub fn sync_own() -> Result<(), Failure> {
    File::open(DISK).and_then(|disk| sys::sync_file_system(&disk)).doing("write the container's disk")
}

/// Lets go of disks that are not mounted any more.
pub fn forget(place: Place, layer_count: u32) -> Result<(), Failure> {
    let host = scsi_host()?;
    let (layers, own) = place.targets();
    for (target, lun) in (0..layer_count).map(|lun| (layers, lun)).chain([(own, 0)]) {
        let device = format!("/sys/bus/scsi/devices/{host}:0:{target}:{lun}/delete");
        match fs::write(device, "1") {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
        .doing("let a disk go")?;
    }
    Ok(())
}

/// Unmounts what a container has used, so that its disks are clean; what does not go is left to the journal of ext4.
pub fn release() {
    if let Err(failure) = volumes::release() {
        eprintln!("bulkhead agent: {failure}");
    }
    for path in [ROOT, DISK] {
        if let Err(error) = sys::unmount(Path::new(path), 0)
            && error.raw_os_error() != Some(libc::EINVAL)
        {
            eprintln!("bulkhead agent: unmount {path}: {error}");
        }
    }
}

/// Makes a root in `stage`, for this process alone, with nothing but the container's own disk as `upper`, its image as
/// `lower` and what both make as `root`.
pub fn stage(stage: &Path, layer_count: u32) -> Result<(), Failure> {
    fs::create_dir_all(stage).doing("make a mount point")?;
    sys::unshare(libc::CLONE_NEWNS).doing("part from the agent's mounts")?;
    sys::mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")
        .doing("part from the agent's mounts")?;
    sys::mount("stage", stage, "tmpfs", libc::MS_NODEV | libc::MS_NOSUID, "mode=0700,size=65536")
        .doing("mount a root")?;
    let place = |name: &str| {
        let path = stage.join(name);
        fs::create_dir(&path).doing("make a mount point").map(|()| path)
    };
    for (source, name) in [(format!("{DISK}/upper"), "upper"), (ROOT.to_owned(), "root")] {
        sys::mount(&source, &place(name)?, "", libc::MS_BIND, "").doing(format!("place {name}"))?;
    }
    // An overlay that cannot be written needs two layers.
    let options = format!("lowerdir=/layer/none:{}", lower(layer_count));
    sys::mount("overlay", &place("lower")?, "overlay", libc::MS_RDONLY, &options).doing("stack the image")
}

fn scsi_host() -> Result<u32, Failure> {
    let start = Instant::now();
    loop {
        let hosts = fs::read_dir("/sys/class/scsi_host").into_iter().flatten().flatten();
        let found = hosts
            .filter(|host| {
                fs::read_to_string(host.path().join("proc_name"))
                    .is_ok_and(|name| name.trim() == "virtio_scsi")
            })
            .find_map(|host| host.file_name().to_str()?.strip_prefix("host")?.parse().ok());
        match found {
            Some(host) => return Ok(host),
            None if start.elapsed() > WAIT_MAX => {
                return Err(Failure::internal("there is no disk controller"));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// After the scan a disk comes bit by bit: its node, its size, and last that the node can be opened. One that does not
/// come is looked for again: the kernel gives up on a disk that was busy when it asked.
fn wait_for_disk(host: u32, target: u32, lun: u32) -> Result<PathBuf, Failure> {
    let start = Instant::now();
    let mut next_look = LOOK_AGAIN;
    let disk = format!("/sys/bus/scsi/devices/{host}:0:{target}:{lun}");
    loop {
        let device = fs::read_dir(format!("{disk}/block"))
            .ok()
            .and_then(|mut entries| entries.next()?.ok())
            .map(|entry| Path::new("/dev").join(entry.file_name()));
        if let Some(device) = device
            && File::open(&device)
                .and_then(|mut disk| disk.seek(SeekFrom::End(0)))
                .is_ok_and(|bytes| bytes != 0)
        {
            return Ok(device);
        }
        if start.elapsed() > WAIT_MAX {
            return Err(Failure::internal(format!("disk {} is not attached", disk_name(target, lun))));
        }
        if start.elapsed() > next_look {
            next_look += LOOK_AGAIN;
            // A disk that is known is asked for its size, one that is not is looked for.
            if fs::write(format!("{disk}/rescan"), "1").is_err() {
                scan(host, &[(target, lun)])?;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Looks at the size of a volume's disk until it is as large.
pub fn await_size(lun: u32, bytes: u64) -> Result<(), Failure> {
    let start = Instant::now();
    let device = format!("/sys/bus/scsi/devices/{}:0:{VOLUMES}:{lun}", scsi_host()?);
    let size = || -> std::io::Result<u64> {
        fs::write(format!("{device}/rescan"), "1")?;
        let block = fs::read_dir(format!("{device}/block"))?.next().ok_or(ErrorKind::NotFound)??;
        let sectors = fs::read_to_string(block.path().join("size"))?;
        Ok(sectors.trim().parse::<u64>().unwrap_or(0).saturating_mul(512))
    };
    while size().doing(format!("look at the disk of volume {lun}"))? < bytes {
        if start.elapsed() > GROW_WAIT_MAX {
            return Err(Failure::internal(format!("the disk of volume {lun} has not grown")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn disk_name(target: u32, lun: u32) -> String {
    match target {
        0 | 8 => format!("of layer {lun}"),
        1 | 9 => "of the container".to_owned(),
        _ => format!("of volume {lun}"),
    }
}

fn mount_layer(device: &Path, lun: u32) -> Result<(), Failure> {
    let target = PathBuf::from(format!("/layer/{lun}"));
    fs::create_dir_all(&target).doing("make a mount point")?;
    sys::mount(&device.to_string_lossy(), &target, "erofs", libc::MS_RDONLY, "")
        .doing(format!("mount layer {lun}"))
}

fn mount_own(device: &Path) -> Result<(), Failure> {
    if !has_ext4(device).doing("read the container's disk")? {
        return Err(Failure::internal("the container's disk has no ext4 file system"));
    }
    let target = Path::new(DISK);
    fs::create_dir_all(target).doing("make a mount point")?;
    // What the container deletes is given back to the datastore.
    sys::mount(&device.to_string_lossy(), target, "ext4", 0, "discard")
        .doing("mount the container's disk")?;
    // The upper folder is the container's `/`.
    for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
        match fs::DirBuilder::new().mode(mode).create(target.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
        .doing("prepare the container's disk")?;
    }
    Ok(())
}

/// The magic of an ext file system is 56 bytes into the superblock, which is at 1024.
pub fn has_ext4(device: &Path) -> std::io::Result<bool> {
    let mut file = File::open(device)?;
    file.seek(SeekFrom::Start(1024 + 56))?;
    let mut magic = [0; 2];
    file.read_exact(&mut magic)?;
    Ok(u16::from_le_bytes(magic) == 0xef53)
}

fn mount_overlay(layer_count: u32) -> Result<(), Failure> {
    let root = Path::new(ROOT);
    fs::create_dir_all(root).doing("make a mount point")?;
    // An image may have no layers at all; an overlay needs one.
    fs::create_dir_all("/layer/none").doing("make a mount point")?;
    sys::mount("overlay", root, "overlay", 0, &overlay_options(layer_count)).doing("stack the layers")
}

/// The top layer comes first.
fn overlay_options(layer_count: u32) -> String {
    format!("lowerdir={},upperdir={DISK}/upper,workdir={DISK}/work,index=off", lower(layer_count))
}

fn lower(layer_count: u32) -> String {
    match layer_count {
        0 => "/layer/none".to_owned(),
        _ => (0..layer_count).rev().map(|lun| format!("/layer/{lun}")).collect::<Vec<_>>().join(":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_layer_comes_first() {
        let rest = "upperdir=/disk/upper,workdir=/disk/work,index=off";
        assert_eq!(overlay_options(3), format!("lowerdir=/layer/2:/layer/1:/layer/0,{rest}"));
        assert_eq!(overlay_options(0), format!("lowerdir=/layer/none,{rest}"));
        assert!(overlay_options(LAYERS_MAX).len() < 4000, "the options of a mount are one page");
    }
}
