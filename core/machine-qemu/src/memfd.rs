//! Files in memory (memfd_create(2)).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// What it holds can never be changed again by anybody.
const FOR_EVER: libc::c_int = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK;

/// A file of that size, all zeros.
pub(crate) fn create(name: &CStr, bytes: u64) -> io::Result<File> {
    // SAFETY: a string that ends in zero; returns a new descriptor or -1.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes)?;
    Ok(file)
}

/// Forbids what `seals` say, for ever.
pub(crate) fn seal(file: &File, seals: libc::c_int) -> io::Result<()> {
    // SAFETY: a descriptor and numbers.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals | libc::F_SEAL_SEAL) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Forbids every change. Fails while somebody has it mapped for writing.
pub(crate) fn freeze(file: &File) -> io::Result<()> {
    seal(file, FOR_EVER)
}

pub(crate) fn is_frozen(file: &File) -> bool {
    // SAFETY: a descriptor and a number.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals != -1 && seals & FOR_EVER == FOR_EVER
}

/// The same file with an offset of its own, to read.
pub(crate) fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_frozen_stays_as_it_is() {
        let file = create(c"test", 4096).unwrap();
        file.write_all_at(b"before", 0).unwrap();
        assert!(!is_frozen(&file));
        freeze(&file).unwrap();
        assert!(is_frozen(&file));
        assert!(file.write_all_at(b"after", 0).is_err());
        assert!(file.set_len(0).is_err());
        let mut read = [0; 6];
        reopen(&file).unwrap().read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"before");
    }
}
