//! Empty file systems, one for each size of disk that was ever asked for: copying one takes milliseconds, making one a
//! hundred.

use super::file;
use bulkhead_machine::MachineError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Mutex;

/// The smallest file system that makes sense, in bytes.
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
        self.make(bytes, &path).await.map_err(doing())?;
        Ok(path)
    }

    async fn make(&self, bytes: u64, path: &Path) -> io::Result<()> {
        file::make_folder(&self.folder)?;
        let draft = self.folder.join(format!(".{bytes}.ext4"));
        file::remove(&draft)?;
        let disk = std::fs::File::options().read(true).write(true).create_new(true).open(&draft)?;
        format(&disk, bytes).await?;
        disk.sync_all()?;
        std::fs::rename(&draft, path)?;
        std::fs::File::open(&self.folder)?.sync_all()
    }
}

/// Makes an empty file a disk of this size with an empty ext4.
pub(super) async fn format(disk: &std::fs::File, bytes: u64) -> io::Result<()> {
    if bytes < BYTES_MIN {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{bytes} bytes are less than {BYTES_MIN}"),
        ));
    }
    disk.set_len(bytes)?;
    // Tables and journal are written when the guest first uses them, as a file that was just made reads as zeros; no blocks
    // are kept back for a root that is the only user. The file may have no name, so it is handed over open.
    let made = Command::new(mkfs())
        .args([
            "-q",
            "-F",
            "-m0",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
            "/proc/self/fd/0",
        ])
        .stdin(disk.try_clone()?)
        .kill_on_drop(true)
        .output();
    let made = tokio::time::timeout(DEADLINE, made).await.map_err(|_| io::ErrorKind::TimedOut)?;
    let made = made.map_err(|error| io::Error::new(error.kind(), format!("running mkfs.ext4: {error}")))?;
    if !made.status.success() {
        return Err(io::Error::other(format!("mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr).trim())));
    }
    Ok(())
}

/// Often not on the search path of a service.
fn mkfs() -> &'static str {
    ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("mkfs.ext4")
}
