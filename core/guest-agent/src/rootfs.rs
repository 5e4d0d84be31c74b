//! The container's view: its root, its devices, its process list, and nothing of the agent's.
//!
//! All of this runs in the child that becomes the container's process, in its own mount, process, IPC and cgroup
//! namespaces, and resolves every path inside the container's root: an image whose `/dev` is a symbolic link
//! leads only itself astray.

use crate::disks::ROOT;
use crate::failure::{CODE_CANNOT_RUN, CODE_INTERNAL, Doing, Failure, reason};
use crate::own_files::{self, OWN_FILES};
use crate::{sys, volumes};
use bulkhead_guest_protocol::message::{Interior, Tmpfs};
use bulkhead_guest_protocol::volumes::VolumeMount;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

const NOTHING: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// As many symbolic links as the kernel follows.
const LINKS_MAX: usize = 40;

/// Character devices: name, major, minor. OCI runtime specification, default devices.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Moves this process into the container's root and completes it. It is in its cgroups already.
pub fn enter(interior: &Interior) -> Result<(), Failure> {
    sys::mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")
        .doing("part from the agent's mounts")?;
    let own_files = open_own_files()?;
    let volumes = volumes::open(&interior.volumes.mounts)?;
    std::env::set_current_dir(ROOT).doing("enter the container's root")?;
    sys::pivot_root_here().doing("change the root")?;
    // The old root lies on top of the new one and is at once out of reach of everything that follows.
    sys::unmount(Path::new("."), libc::MNT_DETACH).doing("leave the agent's root")?;
    std::env::set_current_dir("/").doing("enter the container's root")?;
    let writable = if interior.privileged { 0 } else { libc::MS_RDONLY };
    mount("proc", "/proc", "proc", NOTHING, "")?;
    mount("sysfs", "/sys", "sysfs", NOTHING | writable, "")?;
    sys::unshare(libc::CLONE_NEWCGROUP).doing("hide the agent's cgroups")?;
    mount("cgroup", "/sys/fs/cgroup", "cgroup2", NOTHING | writable, "")?;
    devices(interior.shm_bytes)?;
    crate::devices::make(interior)?;
    place(&interior.tmpfs, &volumes)?;
    for (name, tree) in own_files {
        let target = Path::new("/etc").join(name);
        ensure_file(&target)
            .and_then(|()| sys::attach(&tree, &target))
            .doing(format!("place /etc/{name}"))?;
    }
    // Before they cannot be written any more.
    interior.sysctls.iter().try_for_each(|(name, value)| set_sysctl(name, value))?;
    interior.read_only_paths.iter().try_for_each(|path| make_read_only(Path::new(path)))?;
    interior.masked_paths.iter().try_for_each(|path| mask(Path::new(path)))
}

/// Makes the container's root the root of this process alone, with its volumes in it and nothing else.
pub fn enter_files(mounts: &[VolumeMount]) -> Result<(), Failure> {
    sys::unshare(libc::CLONE_NEWNS).doing("part from the agent's mounts")?;
    sys::mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")
        .doing("part from the agent's mounts")?;
    let volumes = volumes::open(mounts)?;
    std::os::unix::fs::chroot(ROOT)
        .and_then(|()| std::env::set_current_dir("/"))
        .doing("enter the container's root")?;
    place(&[], &volumes)
}

/// Parents before what is below them.
fn place(tmpfs: &[Tmpfs], volumes: &[volumes::Opened<'_>]) -> Result<(), Failure> {
    let (mut tmpfs, mut volumes) = (tmpfs.iter().peekable(), volumes.iter().peekable());
    loop {
        match (tmpfs.peek(), volumes.peek()) {
            (Some(memory), Some(volume)) if memory.target < volume.mount.target => {
                mount_tmpfs(memory)?;
                tmpfs.next();
            }
            (_, Some(volume)) => {
                volume.place()?;
                volumes.next();
            }
            (Some(memory), None) => {
                mount_tmpfs(memory)?;
                tmpfs.next();
            }
            (None, None) => return Ok(()),
        }
    }
}

/// Makes the root read-only, once nothing has to be made in it any more. What is mounted in it is not concerned, but for
/// the files of ours.
pub fn seal(interior: &Interior) -> Result<(), Failure> {
    if !interior.read_only {
        return Ok(());
    }
    let own = OWN_FILES.map(|name| Path::new("/etc").join(name));
    for path in own.iter().map(|path| path.as_path()).chain([Path::new("/")]) {
        let again = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
        sys::mount("", path, "", again, "").doing(format!("make {} read-only", path.display()))?;
    }
    Ok(())
}

/// `make`: makes the working directory if there is none, as Docker does for a container's own process.
pub fn enter_working_dir(path: &str, make: bool) -> Result<(), Failure> {
    let path = if path.is_empty() { "/" } else { path };
    let made = if make { make_folder(Path::new(path)) } else { Ok(()) };
    let entered = made.and_then(|()| std::env::set_current_dir(path));
    let code = if make { CODE_INTERNAL } else { CODE_CANNOT_RUN };
    entered.doing(format!("chdir to cwd (\"{path}\")")).map_err(|failure| Failure::new(code, failure.message))
}

fn open_own_files() -> Result<Vec<(&'static str, OwnedFd)>, Failure> {
    let open = |name: &'static str| {
        let path = own_files::path(name);
        sys::detached_bind(&path).map(|tree| (name, tree)).doing(format!("open /etc/{name}"))
    };
    OWN_FILES.into_iter().map(open).collect()
}

fn devices(shm_bytes: u64) -> Result<(), Failure> {
    mount("tmpfs", "/dev", "tmpfs", libc::MS_NOSUID | libc::MS_STRICTATIME, "mode=755,size=65536k")?;
    for (name, major, minor) in DEVICES {
        let path = Path::new("/dev").join(name);
        sys::make_node(&path, libc::S_IFCHR | 0o666, major, minor).doing(format!("make /dev/{name}"))?;
    }
    for (target, name) in LINKS {
        symlink(target, Path::new("/dev").join(name)).doing(format!("make /dev/{name}"))?;
    }
    let no_programs = libc::MS_NOSUID | libc::MS_NOEXEC;
    mount("devpts", "/dev/pts", "devpts", no_programs, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    if shm_bytes > 0 {
        mount("shm", "/dev/shm", "tmpfs", NOTHING, &format!("mode=1777,size={shm_bytes}"))?;
    }
    mount("mqueue", "/dev/mqueue", "mqueue", NOTHING, "")
}

fn mount_tmpfs(tmpfs: &Tmpfs) -> Result<(), Failure> {
    let unless = |granted, flag| if granted { 0 } else { flag };
    let flags = unless(tmpfs.executable, libc::MS_NOEXEC)
        | unless(tmpfs.set_user_id, libc::MS_NOSUID)
        | unless(tmpfs.devices, libc::MS_NODEV)
        | unless(!tmpfs.read_only, libc::MS_RDONLY);
    let mut options = tmpfs.options.clone();
    // The folder that is covered says who may enter it.
    if let Some(found) = fs::metadata(&tmpfs.target).ok().filter(|_| !options.contains("mode=")) {
        let comma = if options.is_empty() { "" } else { "," };
        options += &format!("{comma}mode={:o}", found.permissions().mode() & 0o7777);
    }
    mount("tmpfs", &tmpfs.target, "tmpfs", flags, &options)
}

/// A setting of the kernel, in the namespaces of this process.
fn set_sysctl(name: &str, value: &str) -> Result<(), Failure> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    fs::write(path, value).map_err(|error| match error.kind() {
        // In other words than those for a missing program.
        ErrorKind::NotFound => {
            Failure::internal(format!("sysctl \"{name}\": the guest's kernel has none of this name"))
        }
        _ => Failure::internal(format!("sysctl \"{name}\": set to \"{value}\": {}", reason(&error))),
    })
}

fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, options: &str) -> Result<(), Failure> {
    let path = Path::new(target);
    make_folder(path)
        .and_then(|()| sys::mount(source, path, kind, flags, options))
        .doing(format!("mount {target}"))
}

pub fn make_folder(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// An image may have a link there, to a file that only a running system would have.
pub fn ensure_file(path: &Path) -> std::io::Result<()> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        let parent = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        make_folder(&parent)?;
        match fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(_) => return fs::OpenOptions::new().append(true).create(true).open(&path).map(drop),
        }
    }
    Err(std::io::Error::from_raw_os_error(libc::ELOOP))
}

fn make_read_only(path: &Path) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let again = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | NOTHING;
    sys::mount(&path.to_string_lossy(), path, "", libc::MS_BIND, "")
        .and_then(|()| sys::mount("", path, "", again, ""))
        .doing(format!("make {} read-only", path.display()))
}

fn mask(path: &Path) -> Result<(), Failure> {
    let masked = match fs::metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if found.is_dir() => {
            sys::mount("tmpfs", path, "tmpfs", libc::MS_RDONLY | NOTHING, "size=0")
        }
        Ok(_) => sys::mount("/dev/null", path, "", libc::MS_BIND, ""),
    };
    masked.doing(format!("hide {}", path.display()))
}
