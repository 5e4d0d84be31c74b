//! A machine at one moment, kept: what its memory held, the state of its processors and devices, and its writable disk,
//! if it had one.
//!
//! ```text
//!   FOLDER/memory         sparse
//!   FOLDER/state          as QEMU writes it
//!   FOLDER/disk           sparse; who goes on from the capture gets a copy
//!   FOLDER/capture.json   what it is of, and the digests of all; written last
//! ```
//!
//! Loaded, memory and state are files in memory that nobody can change any more, not even a hypervisor in the hands of its
//! guest: a clone that gave pages back would otherwise take them from all others. The disk no hypervisor has any more.

use super::key::Image;
use crate::disks;
use crate::memfd;
use crate::record;
use bulkhead_model::Digest;
use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::unistd::Whence;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 4096;
const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
const PIECE_BYTES: usize = 256 * BLOCK_BYTES;

#[derive(Debug)]
pub(crate) struct Capture {
    memory: File,
    state: File,
    disk: Option<File>,
    facts: Facts,
}

/// What a machine left that is over.
pub(super) struct Remains {
    pub(super) memory: File,
    pub(super) state: File,
    /// What its disks were, and the writable one.
    pub(super) disks: Option<(Image, File)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Everything that has to be equal in who goes on from it.
    pub(crate) key: String,
    pub(crate) memory: Digest,
    pub(crate) state: Digest,
    #[serde(default)]
    pub(crate) disk: Option<Digest>,
    /// What it has of disks.
    #[serde(default)]
    pub(crate) image: Option<Image>,
    pub(crate) at: DateTime<Utc>,
}

impl Capture {
    /// Fails while anybody could still write the memory.
    pub(super) fn seal(key: String, remains: Remains) -> io::Result<Self> {
        let Remains { memory, state, disks } = remains;
        for file in [&memory, &state] {
            memfd::freeze(file)?;
        }
        let (image, disk) = disks.unzip();
        let facts = Facts {
            key,
            memory: digest(&memory)?,
            state: digest(&state)?,
            disk: disk.as_ref().map(digest).transpose()?,
            image,
            at: Utc::now(),
        };
        Ok(Self { memory, state, disk, facts })
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The memory, for a clone to map.
    pub(crate) fn memory(&self) -> io::Result<File> {
        self.memory.try_clone()
    }

    /// The state, to be read once.
    pub(crate) fn state(&self) -> io::Result<File> {
        memfd::reopen(&self.state)
    }

    /// The memory once more, for a machine that is to be captured in its turn.
    pub(crate) fn memory_copy(&self) -> io::Result<File> {
        let to = memfd::create(c"guest-memory", self.memory.metadata()?.len())?;
        copy(&self.memory, &to)?;
        Ok(to)
    }

    /// The writable disk, to be copied.
    pub(crate) fn disk(&self) -> io::Result<File> {
        self.disk.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn used_bytes(&self) -> u64 {
        [&self.memory, &self.state].iter().filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
    }

    /// Makes it durable. What was there of that name is replaced.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        discard(folder)?;
        let draft = draft(folder);
        DirBuilder::new().recursive(true).mode(0o700).create(&draft)?;
        for (name, from) in [("memory", &self.memory), ("state", &self.state)] {
            let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft.join(name))?;
            copy(from, &to)?;
            to.sync_all()?;
        }
        if let Some(disk) = &self.disk {
            // Blocks are shared where the file system can do that.
            let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft.join("disk"))?;
            disks::copy_sparse(disk, &to)?;
            to.sync_all()?;
        }
        record::write(&draft, "capture.json", &self.facts)?;
        fs::rename(&draft, folder)?;
        File::open(folder.parent().unwrap_or(folder))?.sync_all()
    }

    /// What was made durable; `None` if there is nothing, an error if it is not what it was. `running`: its memory, from
    /// a clone that runs; believed only if it can never change and is what it has to be.
    pub(crate) fn load(folder: &Path, key: &str, running: Option<File>) -> io::Result<Option<Self>> {
        let Some(facts) = facts(folder, key)? else { return Ok(None) };
        let memory = match running {
            Some(memory) if memfd::is_frozen(&memory) => memory,
            Some(_) => return Err(damaged("memory")),
            None => read(&folder.join("memory"))?,
        };
        let state = read(&folder.join("state"))?;
        let disk = facts.disk.as_ref().map(|_| File::open(folder.join("disk"))).transpose()?;
        let parts = [
            ("memory", Some(&memory), Some(&facts.memory)),
            ("state", Some(&state), Some(&facts.state)),
            ("disk", disk.as_ref(), facts.disk.as_ref()),
        ];
        for (name, file, expected) in parts {
            if file.map(digest).transpose()?.as_ref() != expected {
                return Err(damaged(name));
            }
        }
        Ok(Some(Self { memory, state, disk, facts }))
    }
}

/// Into memory, never to change.
fn read(path: &Path) -> io::Result<File> {
    let from = File::open(path)?;
    let to = memfd::create(c"capture", from.metadata()?.len())?;
    copy(&from, &to)?;
    memfd::freeze(&to)?;
    Ok(to)
}

/// Removes what is durable; fine if there is nothing.
pub(crate) fn discard(folder: &Path) -> io::Result<()> {
    for path in [folder.to_path_buf(), draft(folder)] {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What is durable, and the bytes that it takes.
pub(crate) fn durable(folder: &Path) -> io::Result<Option<(u64, Facts)>> {
    let Some(facts) = record::read::<Facts>(&folder.join("capture.json"))? else { return Ok(None) };
    let used = |name: &str| fs::metadata(folder.join(name)).map(|found| found.blocks() * 512);
    let of_disk = if facts.disk.is_some() { used("disk")? } else { 0 };
    Ok(Some((used("memory")? + used("state")? + of_disk, facts)))
}

/// Where it is written before it has its name.
fn draft(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".draft-{name}"))
}

/// `None`: there is nothing, or it is of something else.
fn facts(folder: &Path, key: &str) -> io::Result<Option<Facts>> {
    Ok(record::read::<Facts>(&folder.join("capture.json"))?.filter(|facts| facts.key == key))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its {what} is not what was captured"))
}

/// Of the size, and of all blocks that are not zeros, with their places: however sparse the file is.
fn digest(file: &File) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    hash.update(file.metadata()?.len().to_le_bytes());
    each_piece(file, |at, piece| {
        for (number, block) in (0_u64..).zip(piece.chunks(BLOCK_BYTES)) {
            if block != ZEROS.get(..block.len()).unwrap_or_default() {
                hash.update((at / BLOCK_BYTES as u64 + number).to_le_bytes());
                hash.update(block);
            }
        }
        Ok(())
    })?;
    Ok(Digest::sha256(hash.finalize().into()))
}

fn copy(from: &File, to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    each_piece(from, |at, piece| to.write_all_at(piece, at))
}

/// All data of a file, from the beginnings of blocks on.
fn each_piece(file: &File, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    // The offset is this description's own: others may be reading the same file.
    let file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let start = match nix::unistd::lseek(&file, at, Whence::SeekData) {
            Ok(start) => start - start % i64::try_from(BLOCK_BYTES).unwrap_or(1),
            // A hole up to the end.
            Err(Errno::ENXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = nix::unistd::lseek(&file, start, Whence::SeekHole)?;
        let (mut from, end) = (start.unsigned_abs(), end.unsigned_abs());
        while from < end {
            let most = usize::try_from(end - from).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let piece = buffer.get_mut(..most).unwrap_or_default();
            file.read_exact_at(piece, from)?;
            take(from, piece)?;
            from += piece.len() as u64;
        }
        at = i64::try_from(end).map_err(io::Error::other)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::VchId;

    fn memory(bytes: u64, content: &[(u64, &[u8])]) -> File {
        let file = memfd::create(c"test", bytes).unwrap();
        for (at, data) in content {
            file.write_all_at(data, *at).unwrap();
        }
        file
    }

    fn capture() -> Capture {
        let memory = memory(8 << 20, &[(0, b"first"), (5 << 20, &[7; 9000])]);
        let state = self::memory(5, &[(0, b"state")]);
        Capture::seal("key".into(), Remains { memory, state, disks: None }).unwrap()
    }

    #[test]
    fn what_is_saved_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("t");
        assert!(Capture::load(&folder, "key", None).unwrap().is_none());
        let made = capture();
        made.save(&folder).unwrap();
        made.save(&folder).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft stays");
        assert!(Capture::load(&folder, "another key", None).unwrap().is_none());
        let loaded = Capture::load(&folder, "key", None).unwrap().unwrap();
        assert_eq!(loaded.facts(), made.facts());
        assert!(memfd::is_frozen(&loaded.memory) && memfd::is_frozen(&loaded.state));
        assert!(fs::metadata(folder.join("memory")).unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
        let adopted = Capture::load(&folder, "key", Some(made.memory().unwrap())).unwrap().unwrap();
        assert_eq!(adopted.facts(), made.facts());
        discard(&folder).unwrap();
        assert!(Capture::load(&folder, "key", None).unwrap().is_none());
    }

    #[test]
    fn what_was_damaged_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("t");
        for (name, change) in [("memory", 5 << 20), ("memory", 0), ("state", 1)] {
            capture().save(&folder).unwrap();
            let file = OpenOptions::new().write(true).open(folder.join(name)).unwrap();
            file.write_all_at(b"!", change).unwrap();
            assert!(Capture::load(&folder, "key", None).is_err(), "{name} at {change}");
            let file = OpenOptions::new().write(true).open(folder.join(name)).unwrap();
            file.set_len(4096).unwrap();
            assert!(Capture::load(&folder, "key", None).is_err(), "{name} truncated");
            fs::remove_file(folder.join(name)).unwrap();
            assert!(Capture::load(&folder, "key", None).is_err(), "{name} gone");
        }
        capture().save(&folder).unwrap();
        let other = memory(8 << 20, &[(0, b"other")]);
        assert!(
            Capture::load(&folder, "key", Some(other.try_clone().unwrap())).is_err(),
            "it could still change"
        );
        memfd::freeze(&other).unwrap();
        assert!(Capture::load(&folder, "key", Some(other)).is_err(), "it is another's");
    }

    #[test]
    fn a_disk_is_kept_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("t");
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(64 << 20).unwrap();
        disk.write_all_at(b"disk", 3 << 20).unwrap();
        let image = Image { vch: VchId(uuid::Uuid::nil()), layers: Vec::new(), disk_bytes: 64 << 20 };
        let (memory, state) = (memory(1 << 20, &[]), self::memory(5, &[(0, b"state")]));
        let remains = Remains { memory, state, disks: Some((image.clone(), disk)) };
        let made = Capture::seal("key".into(), remains).unwrap();
        made.save(&folder).unwrap();
        let loaded = Capture::load(&folder, "key", None).unwrap().unwrap();
        assert_eq!((loaded.facts(), &loaded.facts().image), (made.facts(), &Some(image)));
        assert_eq!(digest(&loaded.disk().unwrap()).unwrap(), digest(&made.disk().unwrap()).unwrap());
        assert!(durable(&folder).unwrap().unwrap().0 < 1 << 20, "holes stay holes");
        let file = OpenOptions::new().write(true).open(folder.join("disk")).unwrap();
        file.write_all_at(b"!", 7 << 20).unwrap();
        assert!(Capture::load(&folder, "key", None).is_err());
        fs::remove_file(folder.join("disk")).unwrap();
        assert!(Capture::load(&folder, "key", None).is_err());
    }

    #[test]
    fn a_digest_is_of_what_is_read_not_of_how_it_is_stored() {
        let sparse = memory(1 << 20, &[(500_000, b"x")]);
        let dense = memory(1 << 20, &[(0, &[0; 1 << 20]), (500_000, b"x")]);
        assert_eq!(digest(&sparse).unwrap(), digest(&dense).unwrap());
        assert_ne!(digest(&sparse).unwrap(), digest(&memory(1 << 20, &[(500_001, b"x")])).unwrap());
        assert_ne!(digest(&sparse).unwrap(), digest(&memory(2 << 20, &[(500_000, b"x")])).unwrap());
    }
}
