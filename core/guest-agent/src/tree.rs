//! Copies of folders, with all that makes a file what it is: owner, mode, time, links, capabilities.

use crate::sys;
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink,
};
use std::path::{Path, PathBuf};

/// Of files that have several names: what is beyond becomes files of their own.
const LINKS_MAX: usize = 100_000;
const CAPABILITY: &CStr = c"security.capability";

/// Copies what is in a folder into another one, which becomes alike. Links are copied, not followed; sockets are left out.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut copy = Copy { linked: HashMap::new() };
    copy.folder(from, to)?;
    alike(&fs::symlink_metadata(from)?, to)
}

struct Copy {
    /// Names of files that have several, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    /// Deeper than a path can be long, there is nothing to be opened, so this ends.
    fn folder(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            self.one(&from.join(&name), &to.join(&name))?;
        }
        Ok(())
    }

    fn one(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(from)?;
        let kind = found.file_type();
        if kind.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(to)?;
            self.folder(from, to)?;
        } else if kind.is_file() {
            if found.nlink() > 1 {
                let id = (found.dev(), found.ino());
                if let Some(first) = self.linked.get(&id) {
                    return fs::hard_link(first, to);
                }
                if self.linked.len() < LINKS_MAX {
                    self.linked.insert(id, to.to_owned());
                }
            }
            content(from, to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
        } else if kind.is_socket() {
            return Ok(());
        } else {
            let (device, kind) = (found.rdev(), found.mode() & libc::S_IFMT);
            sys::make_node(to, kind | 0o600, libc::major(device), libc::minor(device))?;
        }
        alike(&found, to)?;
        match sys::attribute(from, CAPABILITY)? {
            Some(value) => sys::set_attribute(to, CAPABILITY, &value),
            None => Ok(()),
        }
    }
}

fn content(from: &Path, to: &Path) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut source = fs::OpenOptions::new().read(true).custom_flags(flags).open(from)?;
    let mut target = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut source, &mut target).map(drop)
}

/// Owner before mode, as a change of owner takes set-user-ID bits away; the time last.
fn alike(found: &Metadata, path: &Path) -> io::Result<()> {
    lchown(path, Some(found.uid()), Some(found.gid()))?;
    if !found.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    }
    match sys::set_mtime(path, found.mtime()) {
        // As of a link, on a file system that has no times for them.
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_alike() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("deep/file"), "content").unwrap();
        fs::set_permissions(from.join("deep/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(from.join("deep/file"), from.join("again")).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap());
        fs::set_permissions(from.join("deep"), fs::Permissions::from_mode(0o1770)).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o711)).unwrap();
        sys::set_mtime(&from.join("deep"), 1_000_000).unwrap();
        copy(&from, &to).unwrap();
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("deep/file"), mode("deep"), mode("")), (0o4751, 0o1770, 0o711));
        assert_eq!(fs::read_to_string(to.join("deep/file")).unwrap(), "content");
        assert_eq!(fs::metadata(to.join("again")).unwrap().nlink(), 2);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(fs::metadata(to.join("deep")).unwrap().mtime(), 1_000_000);
        assert!(to.join("deep/er").is_dir() && !to.join("socket").exists());
    }
}
