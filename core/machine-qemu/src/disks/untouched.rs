//! A container's disk that no machine has had yet: a file without content, which says by its permissions that it is none
//! yet. What a machine finds on a new disk is put there when the first one gets it, so that it can be what an image's
//! template knows of.

use super::file;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

const UNTOUCHED: u32 = 0o400;
const OWNED: u32 = 0o600;

/// Makes one; fine if there is a disk. Lost with the host's power, it is made again.
pub(super) fn make(path: &Path, bytes: u64) -> io::Result<()> {
    match File::options().write(true).create_new(true).mode(UNTOUCHED).open(path) {
        Ok(file) => file.set_len(bytes),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// How large it is to be; `None`: there is no such disk.
pub(super) fn bytes(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o777 == UNTOUCHED => {
            Ok(Some(found.len()))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Makes a disk of it, a copy of another; fine if it is one. Cut off, this leaves either, or none, and one that is missing
/// is made again.
pub(super) fn fill(path: &Path, from: &File) -> io::Result<()> {
    if bytes(path)?.is_none() {
        return Ok(());
    }
    let disk = file::unnamed(file::parent(path)?, OWNED)?;
    file::copy_sparse(from, &disk)?;
    // Waited for while the old one still has the name.
    disk.sync_data()?;
    file::remove(path)?;
    file::name(&disk, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn disk(text: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(text, 0).unwrap();
        file
    }

    #[test]
    fn it_is_filled_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        assert_eq!(bytes(&path).unwrap(), None);
        fill(&path, &disk(b"none")).unwrap();
        assert!(!path.exists());
        make(&path, 1 << 20).unwrap();
        make(&path, 2 << 20).unwrap();
        assert_eq!(bytes(&path).unwrap(), Some(1 << 20));
        fill(&path, &disk(b"first")).unwrap();
        assert_eq!(bytes(&path).unwrap(), None);
        fill(&path, &disk(b"second")).unwrap();
        make(&path, 1 << 20).unwrap();
        assert!(fs::read(&path).unwrap().starts_with(b"first"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
