//! Empty file systems, one for each size of disk that was ever asked for: copying one takes milliseconds, making one a
//! hundred.

use super::file;
use bulkhead_machine::MachineError;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Mutex;

/// The smallest file system that makes sense as a container's disk, in bytes.
const BYTES_MIN: u64 = 16 << 20;
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Prepared {
    folder: PathBuf,
    /// One is made at a time.
    making: Mutex<()>,
}

impl Prepared {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, making: Mutex::new(()) }
    }

    /// The file of an empty ext4 of that size.
    pub(super) async fn of_size(&self, bytes: u64) -> Result<PathBuf, MachineError> {
        let doing = || MachineError::io(format!("preparing an empty file system of {bytes} bytes"));
        let _one = self.making.lock().await;
        let path = self.folder.join(format!("{bytes}.ext4"));
        if path.exists() {
            return Ok(path);
        }
        if bytes < BYTES_MIN {
            return Err(doing()(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("it is less than {BYTES_MIN}"),
            )));
        }
        self.make(bytes, &path).await.map_err(doing())?;
        Ok(path)
    }

    async fn make(&self, bytes: u64, path: &Path) -> io::Result<()> {
        file::make_folder(&self.folder)?;
        let draft = self.folder.join(format!(".{bytes}.ext4"));
        file::remove(&draft)?;
        std::fs::File::create_new(&draft)?.set_len(bytes)?;
        // Tables are written when the guest first uses them; no blocks are kept back for a root that is the only user.
        let made = Command::new(mkfs())
            .args(["-q", "-F", "-m0", "-E", "lazy_itable_init=1,nodiscard"])
            .arg(&draft)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let made = tokio::time::timeout(DEADLINE, made).await.map_err(|_| io::ErrorKind::TimedOut)?;
        let made =
            made.map_err(|error| io::Error::new(error.kind(), format!("running mkfs.ext4: {error}")))?;
        if !made.status.success() {
            return Err(io::Error::other(format!(
                "mkfs.ext4: {}",
                String::from_utf8_lossy(&made.stderr).trim()
            )));
        }
        std::fs::File::open(&draft)?.sync_all()?;
        std::fs::rename(&draft, path)?;
        std::fs::File::open(&self.folder)?.sync_all()
    }
}

/// Often not on the search path of a service.
fn mkfs() -> &'static str {
    ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("mkfs.ext4")
}
