//! A folder of policies that is followed: what changed in it, once whoever writes is done.

use crate::error::PolicyError;
use crate::folder::read_folder;
use bulkhead_model::PolicyFiles;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the folder is to be looked at. Two looks that see the same are needed before anything is read, so that an
/// editor is done with its file; a change is read after two or three of them.
///
/// Looking, rather than being notified, works the same on bind mounts, network file systems, and when the whole
/// folder is replaced; a look is one `stat` per file.
pub const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Looks between two attempts at what was refused: what was unreadable may be readable now.
const LOOKS_UNTIL_RETRY: u32 = 67;
const ENTRIES_MAX: usize = 10_000;
/// Folders within the folder: `cases/TOPIC/ALLOW`.
const DEPTH_MAX: usize = 3;

/// What was seen of the files, and what of it was read.
#[derive(Debug)]
pub struct Watched {
    dir: PathBuf,
    seen: Option<Looks>,
    read: Option<Looks>,
    since: u32,
}

impl Watched {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, seen: None, read: None, since: 0 }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One look. The files, where they changed since they were read last and are not being changed now. `retry`: what
    /// was read last was refused. Blocks on files.
    pub fn look(&mut self, retry: bool) -> Option<Result<PolicyFiles, PolicyError>> {
        let now = Some(look(&self.dir));
        let still = now == self.seen;
        self.since = self.since.saturating_add(1);
        let wanted = still && (now != self.read || retry && self.since >= LOOKS_UNTIL_RETRY);
        let read = wanted.then(|| read_folder(&self.dir));
        self.seen.clone_from(&now);
        // Written to while it was read: the next look comes back to it.
        if read.is_none() || Some(look(&self.dir)) != now {
            return None;
        }
        self.read = now;
        self.since = 0;
        read
    }
}

/// Path, inode, length and time of change of every file and folder: writing always moves the last.
type Looks = Vec<(PathBuf, u64, u64, i64, i64)>;

fn look(dir: &Path) -> Looks {
    let mut looks = Looks::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if looks.len() >= ENTRIES_MAX {
                return looks;
            }
            let Ok(facts) = fs::metadata(&path) else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // What editors keep beside (swap files, backups) is no change.
            let is_file = name.ends_with(".cedar") || depth == DEPTH_MAX && name.ends_with(".json");
            if name.starts_with('.') || !(facts.is_dir() || is_file) {
                continue;
            }
            let (len, s, ns) =
                if facts.is_dir() { (0, 0, 0) } else { (facts.len(), facts.ctime(), facts.ctime_nsec()) };
            if facts.is_dir() && depth < DEPTH_MAX {
                folders.push((path.clone(), depth + 1));
            }
            looks.push((path, facts.ino(), len, s, ns));
        }
    }
    looks.sort();
    looks
}
