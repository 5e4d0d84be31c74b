//! Templates: machines that have booted and wait, kept to be cloned. One for each class of machine, made when it is first
//! needed, found again by the next server.
//!
//! ```text
//!   DATA/templates/<host>-<vcpus>x<MiB>/   durable; <host> stands for all that must be equal
//!   DATA/templates/.making-<…>/            while one boots
//! ```
//!
//! **Invariant:** a machine never needs one to start. Whatever goes wrong here costs time: it boots instead.

mod build;
mod capture;
mod key;

pub(crate) use build::capabilities;
pub(crate) use key::Class;

use crate::record::{Cloned, MachineFolder};
use crate::shared::Shared;
use crate::unclaimed;
use bulkhead_machine::templates::{TemplateFacts, TemplateState};
use capture::Capture;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What is in memory is at most so many; those that were not used for longest go.
const LOADED_MAX: usize = 8;
/// After a failure, machines boot for so long before another try.
const RETRY_AFTER: Duration = Duration::from_secs(600);
const MAKING: &str = ".making-";

#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) name: String,
    pub(crate) capture: Capture,
}

#[derive(Debug, Clone)]
enum Slot {
    Making,
    Ready(Arc<Template>),
    Failed { why: String, until: Instant },
}

#[derive(Debug)]
struct Known {
    slot: watch::Sender<Slot>,
    used: Instant,
}

#[derive(Debug)]
pub(crate) struct Templates {
    shared: Arc<Shared>,
    known: Mutex<HashMap<String, Known>>,
    /// One boots at a time.
    making: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Templates {
    /// Clears away what an earlier server was making, and what is of another host or installation.
    pub(crate) fn open(shared: Arc<Shared>, tasks: TaskTracker, stop: CancellationToken) -> io::Result<Self> {
        let host = key::of_host(&shared)?;
        for entry in fs::read_dir(shared.templates_folder())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(MAKING) {
                unclaimed::clear(&shared, &MachineFolder::at(entry.path()))?;
            } else if key::parse(&name).is_none_or(|(of, _)| of != host) {
                capture::discard(&entry.path())?;
            }
        }
        Ok(Self { shared, known: Mutex::default(), making: tokio::sync::Mutex::default(), tasks, stop })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.shared.templates_folder().join(name)
    }

    /// The template of the class, if it is at hand.
    pub(crate) fn at_hand(&self, class: Class) -> Option<Arc<Template>> {
        let name = key::name(&key::of_host(&self.shared).ok()?, class);
        let mut known = self.known();
        let known = known.get_mut(&name)?;
        known.used = Instant::now();
        match &*known.slot.borrow() {
            Slot::Ready(template) => Some(template.clone()),
            Slot::Making | Slot::Failed { .. } => None,
        }
    }

    /// Sees to it that there is one. Comes back after `patience`: `false` if it is still being made.
    pub(crate) async fn prepare(self: &Arc<Self>, class: Class, patience: Duration) -> io::Result<bool> {
        let mut slot = self.ensure(class)?;
        let made = tokio::time::timeout(patience, slot.wait_for(|slot| !matches!(slot, Slot::Making))).await;
        // A slot that is gone was thrown away.
        Ok(made.is_ok())
    }

    /// As [`Templates::prepare`], until it is there or why it is not.
    pub(crate) async fn make(self: &Arc<Self>, class: Class) -> io::Result<Result<String, String>> {
        self.forget_failure(class)?;
        let mut slot = self.ensure(class)?;
        match slot.wait_for(|slot| !matches!(slot, Slot::Making)).await.as_deref() {
            Ok(Slot::Ready(template)) => Ok(Ok(template.name.clone())),
            Ok(Slot::Failed { why, .. }) => Ok(Err(why.clone())),
            Ok(Slot::Making) | Err(_) => Ok(Err("it was thrown away meanwhile".into())),
        }
    }

    fn forget_failure(&self, class: Class) -> io::Result<()> {
        let name = key::name(&key::of_host(&self.shared)?, class);
        self.known().retain(|known, at| *known != name || !matches!(*at.slot.borrow(), Slot::Failed { .. }));
        Ok(())
    }

    fn ensure(self: &Arc<Self>, class: Class) -> io::Result<watch::Receiver<Slot>> {
        let name = key::name(&key::of_host(&self.shared)?, class);
        let mut known = self.known();
        let is_over = |slot: &Slot| matches!(slot, Slot::Failed { until, .. } if *until < Instant::now());
        if let Some(known) = known.get_mut(&name).filter(|known| !is_over(&known.slot.borrow())) {
            known.used = Instant::now();
            return Ok(known.slot.subscribe());
        }
        let slot = watch::Sender::new(Slot::Making);
        let watching = slot.subscribe();
        known.insert(name.clone(), Known { slot, used: Instant::now() });
        drop(known);
        let templates = self.clone();
        self.tasks.spawn(async move {
            let made = tokio::select! {
                () = templates.stop.cancelled() => None,
                made = templates.bring(name, class) => made,
            };
            // Not cut off: half of it would be left.
            if let Some(template) = made {
                templates.save(template).await;
            }
        });
        Ok(watching)
    }

    /// Finds it, or makes it: then it is to be saved.
    async fn bring(&self, name: String, class: Class) -> Option<Arc<Template>> {
        let found = self.find(&name).await;
        let (made, is_new) = match found {
            Some(capture) => (Ok(capture), false),
            None => (self.build(&name, class).await, true),
        };
        let slot = match made {
            Ok(capture) => {
                tracing::info!(template = name, is_new, "machines are cloned from a template");
                Slot::Ready(Arc::new(Template { name: name.clone(), capture }))
            }
            Err(error) => {
                tracing::warn!(template = name, %error, "no template: machines of this class boot for now");
                Slot::Failed { why: error.to_string(), until: Instant::now() + RETRY_AFTER }
            }
        };
        if let Some(known) = self.known().get(&name) {
            known.slot.send_replace(slot.clone());
        }
        self.let_go();
        match slot {
            Slot::Ready(template) if is_new => Some(template),
            Slot::Ready(_) | Slot::Making | Slot::Failed { .. } => None,
        }
    }

    /// What an earlier server had: the memory of a clone that still runs, else the durable form.
    async fn find(&self, name: &str) -> Option<Capture> {
        let shown = name;
        let (folder, name, machines) = (self.folder(name), name.to_owned(), self.shared.machines_folder());
        let found = tokio::task::spawn_blocking(move || {
            let running = running_memory(&machines, &name).ok().flatten();
            if running.is_some()
                && let Ok(Some(found)) = Capture::load(&folder, &name, running)
            {
                return Ok(Some(found));
            }
            Capture::load(&folder, &name, None)
        });
        match found.await.map_err(io::Error::other).flatten() {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(template = shown, %error, "a template is damaged and made anew");
                None
            }
        }
    }

    async fn build(&self, name: &str, class: Class) -> io::Result<Capture> {
        let _one = self.making.lock().await;
        let folder = self.folder(&format!("{MAKING}{name}"));
        build::build(&self.shared, class, name, &folder).await
    }

    async fn save(&self, template: Arc<Template>) {
        let folder = self.folder(&template.name);
        let name = template.name.clone();
        let saved = tokio::task::spawn_blocking(move || {
            let saved = template.capture.save(&folder);
            if saved.is_err() {
                // Half of one is worth nothing, and may be what filled the disk.
                let _ = capture::discard(&folder);
            }
            saved
        });
        if let Err(error) = saved.await.map_err(io::Error::other).flatten() {
            tracing::warn!(template = name, %error, "a template is not kept for the next server");
        }
    }

    /// Those beyond the limit, from memory; their durable forms stay.
    fn let_go(&self) {
        let mut known = self.known();
        let mut ready: Vec<(Instant, String)> = known
            .iter()
            .filter(|(_, known)| matches!(*known.slot.borrow(), Slot::Ready(_)))
            .map(|(name, known)| (known.used, name.clone()))
            .collect();
        ready.sort();
        for (_, name) in ready.iter().take(ready.len().saturating_sub(LOADED_MAX)) {
            known.remove(name);
        }
    }

    /// Throws one away, also its durable form. `true` if there was one. Machines that were cloned from it go on.
    pub(crate) async fn remove(&self, name: &str) -> io::Result<bool> {
        if key::parse(name).is_none() || name.contains('/') {
            return Ok(false);
        }
        let was_known = self.known().remove(name).is_some();
        let folder = self.folder(name);
        let removed = tokio::task::spawn_blocking(move || {
            let was_there = folder.exists();
            capture::discard(&folder).map(|()| was_there)
        });
        Ok(removed.await.map_err(io::Error::other).flatten()? || was_known)
    }

    /// A clone of it did not come to life.
    pub(crate) async fn distrust(&self, template: &Template, why: &str) {
        tracing::warn!(
            template = template.name,
            why,
            "a clone did not come to life: its template is thrown away"
        );
        let same = |slot: &Slot| matches!(slot, Slot::Ready(known) if std::ptr::eq(&**known, template));
        let is_current = self.known().get(&template.name).is_some_and(|known| same(&known.slot.borrow()));
        if is_current && let Err(error) = self.remove(&template.name).await {
            tracing::warn!(template = template.name, %error, "a template stays on the disk");
        }
    }

    /// All that there are, by name.
    pub(crate) async fn list(&self) -> io::Result<Vec<TemplateFacts>> {
        let (folder, machines) = (self.shared.templates_folder(), self.shared.machines_folder());
        let listed = tokio::task::spawn_blocking(move || Ok((durable(&folder)?, uses(&machines)?)));
        let (durable, uses) = listed.await.map_err(io::Error::other).flatten()?;
        let known = self.known();
        let mut names: Vec<&String> = durable.keys().chain(known.keys()).collect();
        names.sort();
        names.dedup();
        let facts = |name: &String| {
            let (_, class) = key::parse(name)?;
            let slot = known.get(name).map(|known| known.slot.borrow().clone());
            let (state, memory_used_bytes, made_at) = match &slot {
                None => (TemplateState::OnDisk, 0, None),
                Some(Slot::Making) => (TemplateState::Making, 0, None),
                Some(Slot::Failed { why, .. }) => (TemplateState::Failed { why: why.clone() }, 0, None),
                Some(Slot::Ready(template)) => {
                    let capture = &template.capture;
                    (TemplateState::Loaded, capture.used_bytes(), Some(capture.facts().at))
                }
            };
            let (disk_used_bytes, saved_at) = durable.get(name).copied().unwrap_or_default();
            Some(TemplateFacts {
                name: name.clone(),
                vcpus: class.vcpus,
                memory_bytes: class.memory_mib << 20,
                state,
                memory_used_bytes,
                disk_used_bytes,
                made_at: made_at.or(saved_at),
                clones: uses.get(name).copied().unwrap_or_default(),
                spares: 0,
            })
        };
        Ok(names.into_iter().filter_map(facts).collect())
    }
}

type Durable = HashMap<String, (u64, Option<chrono::DateTime<chrono::Utc>>)>;

fn durable(folder: &Path) -> io::Result<Durable> {
    let mut found = Durable::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if key::parse(&name).is_some()
            && let Ok(Some((bytes, at))) = capture::durable(&entry.path())
        {
            found.insert(name, (bytes, Some(at)));
        }
    }
    Ok(found)
}

/// The clones that there are, by what they were cloned from.
fn cloned(machines: &Path) -> io::Result<Vec<(u32, Cloned)>> {
    let mut found = Vec::new();
    for (_, folder) in MachineFolder::all(machines)? {
        if let Ok(Some(record)) = folder.record()
            && let Some(cloned) = record.cloned
            && record.process.alive()?
        {
            found.push((record.process.pid, cloned));
        }
    }
    Ok(found)
}

fn uses(machines: &Path) -> io::Result<HashMap<String, u32>> {
    let mut uses = HashMap::new();
    for (_, cloned) in cloned(machines)? {
        *uses.entry(cloned.template).or_default() += 1;
    }
    Ok(uses)
}

/// The memory that clones of the template run on. Whether it is what it should be is for others to judge.
fn running_memory(machines: &Path, name: &str) -> io::Result<Option<File>> {
    let of_template = |(pid, cloned): (u32, Cloned)| {
        let path = format!("/proc/{pid}/fd/{}", cloned.memory);
        let is_memory = fs::read_link(&path)
            .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"));
        (is_memory && cloned.template == name).then(|| File::open(path).ok()).flatten()
    };
    Ok(cloned(machines)?.into_iter().find_map(of_template))
}
