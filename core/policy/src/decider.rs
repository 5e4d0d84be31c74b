//! The policy set in force, and its change while the server runs.

use crate::error::PolicyError;
use crate::query::{Outcome, Query, Settings};
use crate::set::{Difference, PolicySet};
use arc_swap::ArcSwap;
use bulkhead_model::Class;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often the folder is looked at. Two looks that see the same are needed before anything is read, so that an
/// editor is done with its file; a change is in force after two or three of them.
///
/// Looking, rather than being notified, works the same on bind mounts, network file systems, and when the whole
/// folder is replaced; a look is one `stat` per file.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks between two attempts at a set that was refused: what was unreadable may be readable now.
const LOOKS_UNTIL_RETRY: u32 = 50;
const ENTRIES_MAX: usize = 10_000;

/// Answers queries with the policy set in force.
#[derive(Debug)]
pub struct Decider {
    files: ArcSwap<Files>,
    settings: Settings,
}

/// What came of the files: one value, so that nobody sees a new set with an old problem.
#[derive(Debug)]
struct Files {
    /// In force.
    set: Arc<PolicySet>,
    /// Why the files as they are now are not.
    problem: Option<String>,
}

/// What is in force, and what is wrong with the files if they are newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Digest of the set in force.
    pub policy_set: String,
    pub policies: usize,
    pub classes: Vec<Class>,
    /// Why the files as they are now are not in force, with positions; several lines.
    pub problem: Option<String>,
}

impl Decider {
    pub fn new(set: PolicySet, settings: Settings) -> Self {
        Self { files: ArcSwap::from_pointee(Files { set: Arc::new(set), problem: None }), settings }
    }

    /// Takes some tens of microseconds to a millisecond; never blocks.
    pub fn decide(&self, query: &Query<'_>) -> Outcome {
        self.files.load().set.decide(&self.settings, query)
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn set(&self) -> Arc<PolicySet> {
        self.files.load().set.clone()
    }

    pub fn status(&self) -> Status {
        let files = self.files.load();
        let set = &files.set;
        Status {
            policy_set: set.digest().to_string(),
            policies: set.len(),
            classes: set.classes().cloned().collect(),
            problem: files.problem.clone(),
        }
    }

    /// Reads the folder again; what is wrong keeps the set in force and is kept in `status`. Blocks on files.
    pub fn reload(&self, dir: &Path) -> Result<Difference, PolicyError> {
        let before = look(dir);
        let result = PolicySet::load(dir);
        // Written to while it was read: the next look comes back to it.
        if look(dir) != before {
            return Ok(Difference::default());
        }
        let files = self.files.load();
        let set = files.set.clone();
        match result {
            Ok(newer) => {
                let difference = set.difference(&newer);
                let mut in_force = set.clone();
                if newer.digest() != set.digest() {
                    let (old, new) = (set.digest().to_string(), newer.digest().to_string());
                    let Difference { added, removed, changed } = &difference;
                    tracing::info!(
                        from = old,
                        to = new,
                        ?added,
                        ?removed,
                        ?changed,
                        "new policies are in force"
                    );
                    in_force = Arc::new(newer);
                } else if files.problem.is_some() {
                    tracing::info!("the policy files are those in force again");
                }
                self.files.store(Arc::new(Files { set: in_force, problem: None }));
                Ok(difference)
            }
            Err(error) => {
                let text = error.to_string();
                if files.problem.as_ref() != Some(&text) {
                    tracing::error!(folder = %dir.display(), "policies refused, the old ones stay in force: {text}");
                }
                self.files.store(Arc::new(Files { set, problem: Some(text) }));
                Err(error)
            }
        }
    }

    /// Follows the files until told to stop: a change is in force within a second, or refused with its position.
    pub async fn watch(self: Arc<Self>, dir: PathBuf, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watched = Watched::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let (this, dir) = (Arc::clone(&self), dir.clone());
            let looked = tokio::task::spawn_blocking(move || {
                watched.step(&this, &dir);
                watched
            });
            watched = match looked.await {
                Ok(watched) => watched,
                Err(error) => {
                    tracing::error!(%error, "the policy files could not be looked at");
                    Watched::default()
                }
            };
        }
    }
}

/// What was seen of the files, and what of it was acted on.
#[derive(Debug, Default)]
struct Watched {
    seen: Option<Looks>,
    acted_on: Option<Looks>,
    since: u32,
}

impl Watched {
    fn step(&mut self, decider: &Decider, dir: &Path) {
        let now = Some(look(dir));
        let still = now == self.seen;
        self.since = self.since.saturating_add(1);
        let retry = decider.files.load().problem.is_some() && self.since >= LOOKS_UNTIL_RETRY;
        if still && (now != self.acted_on || retry) {
            // A refusal is in the status and the log; there is nobody else to tell.
            let _ = decider.reload(dir);
            self.acted_on.clone_from(&now);
            self.since = 0;
        }
        self.seen = now;
    }
}

/// Path, inode, length and time of change of every policy file and folder: writing always moves the last.
type Looks = Vec<(PathBuf, u64, u64, i64, i64)>;

fn look(dir: &Path) -> Looks {
    let mut looks = Looks::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if looks.len() >= ENTRIES_MAX {
                return looks;
            }
            let Ok(facts) = fs::metadata(&path) else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // What editors keep beside (swap files, backups) is no change.
            let wanted = !name.starts_with('.') && (facts.is_dir() || name.ends_with(".cedar"));
            if !wanted {
                continue;
            }
            let (len, s, ns) =
                if facts.is_dir() { (0, 0, 0) } else { (facts.len(), facts.ctime(), facts.ctime_nsec()) };
            if facts.is_dir() && folder == dir {
                folders.push(path.clone());
            }
            looks.push((path, facts.ino(), len, s, ns));
        }
    }
    looks.sort();
    looks
}
