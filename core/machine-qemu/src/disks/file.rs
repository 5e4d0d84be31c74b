//! Files that have a name only once they are whole.

use nix::errno::Errno;
use nix::unistd::Whence;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// A file without a name: it is gone with its last descriptor.
pub(super) fn unnamed(folder: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).mode(mode).custom_flags(libc::O_TMPFILE).open(folder)
}

/// Makes an unnamed file durable under a name; fine if that name is taken already: equal names hold equal contents.
pub(super) fn name(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let here = nix::fcntl::AT_FDCWD;
    match nix::unistd::linkat(here, own.as_str(), here, path, nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    File::open(parent(path)?)?.sync_all()
}

/// Fine if it is not there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn size(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes that it takes; 0 if it is not there.
pub(super) fn used(path: &Path) -> io::Result<u64> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.blocks() * 512),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Names of the files in a folder; none if it is not there.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Copies what is not a hole. File systems that can share the blocks do so.
pub(crate) fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let size = i64::try_from(size).map_err(io::Error::other)?;
    let mut at = 0;
    while at < size {
        let data = match nix::unistd::lseek(from, at, Whence::SeekData) {
            Ok(data) => data,
            // A hole up to the end.
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        at = nix::unistd::lseek(from, data, Whence::SeekHole)?;
        copy_range(from, to, data, at)?;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, start: i64, end: i64) -> io::Result<()> {
    let (mut source, mut target) = (start, start);
    while source < end {
        let left = usize::try_from(end - source).map_err(io::Error::other)?;
        match nix::fcntl::copy_file_range(from, Some(&mut source), to, Some(&mut target), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            // They are on file systems of different kinds.
            Err(Errno::EXDEV | Errno::EOPNOTSUPP) => return copy_bytes(from, to, source, end),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Through memory of our own.
fn copy_bytes(from: &File, to: &File, start: i64, end: i64) -> io::Result<()> {
    let mut piece = vec![0; 1 << 20];
    let (mut at, end) = (start.unsigned_abs(), end.unsigned_abs());
    while at < end {
        let most = usize::try_from(end - at).map_or(piece.len(), |left| left.min(piece.len()));
        let piece = piece.get_mut(..most).unwrap_or_default();
        from.read_exact_at(piece, at)?;
        to.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_equal_and_as_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let from = unnamed(dir.path(), 0o600).unwrap();
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"beginning", 0).unwrap();
        from.write_all_at(b"middle", 20 << 20).unwrap();
        let to = unnamed(dir.path(), 0o600).unwrap();
        copy_sparse(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 64 << 20);
        assert!(to.metadata().unwrap().blocks() <= from.metadata().unwrap().blocks());
        let mut read = [0; 6];
        to.read_exact_at(&mut read, 20 << 20).unwrap();
        assert_eq!(&read, b"middle");
        let other = unnamed(dir.path(), 0o600).unwrap();
        copy_bytes(&from, &other, 20 << 20, (20 << 20) + 4096).unwrap();
        other.read_exact_at(&mut read, 20 << 20).unwrap();
        assert_eq!(&read, b"middle");
    }

    #[test]
    fn an_unnamed_file_leaves_nothing_and_a_name_is_given_once() {
        let dir = tempfile::tempdir().unwrap();
        drop(unnamed(dir.path(), 0o444).unwrap());
        assert!(names(dir.path()).unwrap().is_empty());
        let path = dir.path().join("x");
        name(&unnamed(dir.path(), 0o444).unwrap(), &path).unwrap();
        name(&unnamed(dir.path(), 0o444).unwrap(), &path).unwrap();
        assert_eq!(names(dir.path()).unwrap(), ["x"]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444);
    }
}
