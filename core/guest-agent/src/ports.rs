//! The two virtio-serial ports, found by name.

use crate::failure::{Failure, reason};
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(30);

/// Ports are named by the device a moment after its driver was loaded.
pub fn open(name: &str) -> Result<File, Failure> {
    let start = Instant::now();
    loop {
        let opened = match find(name) {
            Some(path) => OpenOptions::new().read(true).write(true).open(path),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        match opened {
            Ok(port) => return Ok(port),
            Err(error) if start.elapsed() > WAIT_MAX => {
                return Err(Failure::internal(format!("port `{name}`: {}", reason(&error))));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn find(name: &str) -> Option<PathBuf> {
    fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find_map(|entry| {
        let named = fs::read_to_string(entry.path().join("name")).ok()?;
        (named.trim() == name).then(|| PathBuf::from("/dev").join(entry.file_name()))
    })
}
