//! One server per data folder.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The right to use a data folder. Ends with this value, or with the process, however that ends.
#[derive(Debug)]
pub struct DataDirLock {
    _file: Flock<File>,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("the data folder `{}` is in use by another server (pid {})", dir.display(), pid.as_deref().unwrap_or("unknown"))]
    Held { dir: PathBuf, pid: Option<String> },
    #[error("cannot lock `{}`", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl DataDirLock {
    /// Takes the lock (`server.lock` in the folder, which must exist), or says who has it. Does not wait.
    pub fn acquire(data_dir: &Path) -> Result<Self, LockError> {
        let path = data_dir.join("server.lock");
        let io = |source| LockError::Io { path: path.clone(), source };
        // The file stays when the lock goes: deleting it would let two servers lock two files of the same name.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(io)?;
                file.rewind().map_err(io)?;
                writeln!(file, "{}", std::process::id()).map_err(io)?;
                Ok(Self { _file: file })
            }
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                // Only for the message; the holder may not have written it yet.
                let read = file.take(20).read_to_string(&mut pid);
                let pid = read.ok().map(|_| pid.trim().to_owned()).filter(|pid| !pid.is_empty());
                Err(LockError::Held { dir: data_dir.into(), pid })
            }
            Err((_, errno)) => Err(io(errno.into())),
        }
    }
}
