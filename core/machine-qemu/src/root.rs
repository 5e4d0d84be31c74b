//! The file system that QEMU sees: its own program and libraries, read-only, and the boot files of its guest.
//!
//! ```text
//!   /            tmpfs, read-only once built, in a mount namespace of its own
//!   /usr /lib …  the host's, read-only
//!   /guest/      vmlinuz and initrd of the installation, read-only, for who boots them; fd: its own descriptors
//!   /dev/        null, and kvm where it is used
//! ```
//!
//! No `/etc`, no `/proc`, no data folder: a guest that took over its QEMU finds nothing of the host or of others.
//! This is planned in the server, where memory may be allocated, and built in the forked child, where it may not.

use crate::plan::{Accelerator, DESCRIPTORS_PATH, INITRD_PATH, KERNEL_PATH};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Steps that build the root, in their order; paths are relative to it.
#[derive(Debug)]
pub(crate) struct RootPlan {
    /// An empty folder of the host.
    pub(crate) at: CString,
    pub(crate) folders: Vec<CString>,
    pub(crate) symlinks: Vec<(CString, CString)>,
    pub(crate) binds: Vec<Bind>,
}

#[derive(Debug)]
pub(crate) struct Bind {
    pub(crate) source: CString,
    pub(crate) target: CString,
    /// The target is made as an empty file first.
    pub(crate) file: bool,
    pub(crate) device: bool,
}

/// What belongs into the root.
#[derive(Debug)]
pub(crate) struct RootContents<'a> {
    pub(crate) at: &'a Path,
    pub(crate) qemu_binary: &'a Path,
    pub(crate) accelerator: Accelerator,
    /// Kernel and initramfs, where they are booted.
    pub(crate) boots: Option<(&'a Path, &'a Path)>,
}

pub(crate) fn plan(contents: &RootContents<'_>) -> io::Result<RootPlan> {
    let mut folders = BTreeSet::from(["/guest", DESCRIPTORS_PATH, "/dev"].map(PathBuf::from));
    let mut symlinks = Vec::new();
    let mut binds = Vec::new();
    for path in ["/usr", "/lib", "/lib32", "/lib64"]
        .map(Path::new)
        .into_iter()
        .chain(foreign_prefix(contents.qemu_binary))
    {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => {
                symlinks.push((c_string(&fs::read_link(path)?)?, inside(path)?))
            }
            Ok(found) if found.is_dir() => {
                folders.extend(path.ancestors().filter(|p| p.parent().is_some()).map(PathBuf::from));
                binds.push(Bind {
                    source: c_string(path)?,
                    target: inside(path)?,
                    file: false,
                    device: false,
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let loader_cache = Path::new("/etc/ld.so.cache");
    if loader_cache.is_file() {
        folders.insert("/etc".into());
        binds.push(Bind {
            source: c_string(loader_cache)?,
            target: inside(loader_cache)?,
            file: true,
            device: false,
        });
    }
    // Of whoever mounts it, which is the process that becomes QEMU.
    binds.push(Bind {
        source: c"/proc/self/fd".into(),
        target: inside(Path::new(DESCRIPTORS_PATH))?,
        file: false,
        device: false,
    });
    // By path: a file that was opened in another mount namespace cannot be mounted in this one.
    let boots = contents.boots.map(|(kernel, initrd)| [(kernel, KERNEL_PATH), (initrd, INITRD_PATH)]);
    for (file, target) in boots.into_iter().flatten() {
        binds.push(Bind {
            source: c_string(file)?,
            target: inside(Path::new(target))?,
            file: true,
            device: false,
        });
    }
    // QEMU tries out on /dev/null whether locks belong to open files; without it, it locks in a way that gets lost.
    let kvm = (contents.accelerator == Accelerator::Kvm).then_some("/dev/kvm");
    for device in ["/dev/null"].into_iter().chain(kvm).map(Path::new) {
        binds.push(Bind { source: c_string(device)?, target: inside(device)?, file: true, device: true });
    }
    Ok(RootPlan {
        at: c_string(contents.at)?,
        // Sorted: parents come before what is in them.
        folders: folders.iter().map(|path| inside(path)).collect::<io::Result<_>>()?,
        symlinks,
        binds,
    })
}

/// `/opt/qemu` of `/opt/qemu/bin/qemu-system-x86_64`; nothing for what the host's own folders hold.
fn foreign_prefix(binary: &Path) -> Option<&Path> {
    let prefix = binary.parent()?.parent()?;
    let own = ["/usr", "/lib", "/lib32", "/lib64"].iter().any(|own| prefix.starts_with(own));
    (!own && prefix != Path::new("/")).then_some(prefix)
}

fn inside(path: &Path) -> io::Result<CString> {
    let relative: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    c_string(&relative)
}

pub(crate) fn c_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_of_its_own_brings_its_folder() {
        assert_eq!(foreign_prefix(Path::new("/usr/bin/qemu-system-x86_64")), None);
        assert_eq!(foreign_prefix(Path::new("/opt/q/bin/qemu-system-x86_64")), Some(Path::new("/opt/q")));
        assert_eq!(foreign_prefix(Path::new("/bin/qemu")), None);
    }

    #[test]
    fn parents_are_made_before_what_is_in_them() {
        let contents = RootContents {
            at: Path::new("/tmp"),
            qemu_binary: Path::new("/usr/bin/qemu-system-x86_64"),
            accelerator: Accelerator::Tcg,
            boots: Some((Path::new("/k"), Path::new("/i"))),
        };
        let plan = plan(&contents).unwrap();
        let folders: Vec<_> = plan.folders.iter().map(|f| f.to_str().unwrap().to_owned()).collect();
        assert!(folders.contains(&"usr".into()) && folders.contains(&"guest".into()));
        assert!(folders.is_sorted());
        let devices: Vec<_> = plan.binds.iter().filter(|bind| bind.device).map(|bind| &bind.target).collect();
        assert_eq!(devices, [c"dev/null"]);
        let sources = |plan: &RootPlan| plan.binds.iter().map(|bind| bind.source.clone()).collect::<Vec<_>>();
        assert!(sources(&plan).contains(&c"/k".into()));
        let cloned = super::plan(&RootContents { boots: None, ..contents }).unwrap();
        assert!(!sources(&cloned).contains(&c"/k".into()), "what is not booted is not shown");
    }
}
