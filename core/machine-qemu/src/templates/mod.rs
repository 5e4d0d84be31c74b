//! Templates: machines that have booted and wait, kept to be cloned. One for each class of machine, made when it is first
//! needed, found again by the next server; and some for images ([`images`]), in which an image's disks are in place.
//!
//! ```text
//!   DATA/templates/<host>-<vcpus>x<MiB>/           durable; <host> stands for all that must be equal
//!   DATA/templates/<host>-<vcpus>x<MiB>-<image>/   <image> stands for the disks
//!   DATA/templates/.making-<…>/                    while one boots
//! ```
//!
//! **Invariants:** a machine never needs one to start: whatever goes wrong here costs time, as one that is worse, or none,
//! takes its place. No code of an image ever ran in one.

mod build;
mod capture;
mod images;
mod key;
mod list;

pub(crate) use build::{capabilities, load};
pub(crate) use images::Images;
pub(crate) use key::{Class, Kind};

use crate::record::MachineFolder;
use crate::shared::Shared;
use crate::unclaimed;
use capture::Capture;
use key::Named;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Of classes, at most so many are in memory; those that were not used for longest go.
const LOADED_MAX: usize = 8;
/// After a failure, machines boot for so long before another try.
const RETRY_AFTER: Duration = Duration::from_secs(600);
const MAKING: &str = ".making-";

#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) name: String,
    pub(crate) kind: Kind,
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
    kind: Kind,
    slot: watch::Sender<Slot>,
    used: Instant,
}

#[derive(Debug)]
pub(crate) struct Templates {
    shared: Arc<Shared>,
    known: Mutex<HashMap<String, Known>>,
    /// One boots at a time.
    making: tokio::sync::Mutex<()>,
    /// Of durable forms, one is changed at a time.
    saving: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Templates {
    /// Clears away what an earlier server was making, and what nothing can be cloned from any more.
    pub(crate) fn open(shared: Arc<Shared>, tasks: TaskTracker, stop: CancellationToken) -> io::Result<Self> {
        let host = key::of_host(&shared)?;
        for entry in fs::read_dir(shared.templates_folder())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(MAKING) {
                unclaimed::clear(&shared, &MachineFolder::at(entry.path()))?;
            } else if !is_current(&shared, &host, &name) {
                capture::discard(&entry.path())?;
            }
        }
        let (making, saving) = Default::default();
        Ok(Self { shared, known: Mutex::default(), making, saving, tasks, stop })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.shared.templates_folder().join(name)
    }

    /// The template, if it is at hand.
    pub(crate) fn at_hand(&self, kind: &Kind) -> Option<Arc<Template>> {
        let name = key::name(&self.shared, kind).ok()?;
        let mut known = self.known();
        let known = known.get_mut(&name).filter(|known| known.kind == *kind)?;
        known.used = Instant::now();
        match &*known.slot.borrow() {
            Slot::Ready(template) => Some(template.clone()),
            Slot::Making | Slot::Failed { .. } => None,
        }
    }

    /// Sees to it that there is one. Comes back after `patience`: `false` if it is still being made.
    pub(crate) async fn prepare(self: &Arc<Self>, kind: &Kind, patience: Duration) -> io::Result<bool> {
        let mut slot = self.ensure(kind)?;
        let made = tokio::time::timeout(patience, slot.wait_for(|slot| !matches!(slot, Slot::Making))).await;
        // A slot that is gone was thrown away.
        Ok(made.is_ok())
    }

    /// Waits for the template of a class, until it is there or why it is not.
    pub(crate) async fn make(self: &Arc<Self>, class: Class) -> io::Result<Result<String, String>> {
        let kind = Kind::from(class);
        self.forget_failure(&kind)?;
        let mut slot = self.ensure(&kind)?;
        match slot.wait_for(|slot| !matches!(slot, Slot::Making)).await.as_deref() {
            Ok(Slot::Ready(template)) => Ok(Ok(template.name.clone())),
            Ok(Slot::Failed { why, .. }) => Ok(Err(why.clone())),
            Ok(Slot::Making) | Err(_) => Ok(Err("it was thrown away meanwhile".into())),
        }
    }

    fn forget_failure(&self, kind: &Kind) -> io::Result<()> {
        let name = key::name(&self.shared, kind)?;
        self.known().retain(|known, at| *known != name || !matches!(*at.slot.borrow(), Slot::Failed { .. }));
        Ok(())
    }

    fn ensure(self: &Arc<Self>, kind: &Kind) -> io::Result<watch::Receiver<Slot>> {
        let name = key::name(&self.shared, kind)?;
        let mut known = self.known();
        if let Some(known) = known.get_mut(&name).filter(|known| !known.slot.borrow().is_over()) {
            known.used = Instant::now();
            return Ok(known.slot.subscribe());
        }
        let slot = watch::Sender::new(Slot::Making);
        let watching = slot.subscribe();
        known.insert(name.clone(), Known { kind: kind.clone(), slot, used: Instant::now() });
        drop(known);
        let (templates, kind) = (self.clone(), kind.clone());
        self.tasks.spawn(async move {
            let made = tokio::select! {
                () = templates.stop.cancelled() => None,
                made = templates.bring(name, kind) => made,
            };
            // Not cut off: half of it would be left.
            if let Some(template) = made {
                templates.save(template).await;
            }
        });
        Ok(watching)
    }

    /// Finds it, or makes it: then it is to be saved.
    async fn bring(&self, name: String, kind: Kind) -> Option<Arc<Template>> {
        let found = self.find(&name, &kind).await;
        let (made, is_new) = match found {
            Some(capture) => (Ok(capture), false),
            None => (self.build(&name, &kind).await, true),
        };
        let slot = match made {
            Ok(capture) => {
                tracing::info!(template = name, is_new, "machines are cloned from a template");
                Slot::Ready(Arc::new(Template { name: name.clone(), kind, capture }))
            }
            Err(error) => {
                let instead = if kind.image.is_some() { "are those of any image" } else { "boot" };
                tracing::warn!(template = name, %error, "no template: its machines {instead} for now");
                Slot::failed(error.to_string())
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
    async fn find(&self, name: &str, kind: &Kind) -> Option<Capture> {
        let shown = name;
        let (folder, name, machines) = (self.folder(name), name.to_owned(), self.shared.machines_folder());
        let found = tokio::task::spawn_blocking(move || {
            let running = list::running_memory(&machines, &name).ok().flatten();
            if running.is_some()
                && let Ok(Some(found)) = Capture::load(&folder, &name, running)
            {
                return Ok(Some(found));
            }
            Capture::load(&folder, &name, None)
        });
        match found.await.map_err(io::Error::other).flatten() {
            Ok(found) => found.filter(|found| found.facts().image == kind.image),
            Err(error) => {
                tracing::warn!(template = shown, %error, "a template is damaged and made anew");
                None
            }
        }
    }

    async fn build(&self, name: &str, kind: &Kind) -> io::Result<Capture> {
        let _one = self.making.lock().await;
        let folder = self.folder(&format!("{MAKING}{name}"));
        match &kind.image {
            None => build::boot(&self.shared, kind.class, name, &folder).await,
            Some(image) => {
                let base = self.at_hand(&kind.class.into());
                let base = base.ok_or_else(|| io::Error::other("there is no template of its class"))?;
                build::stack(&self.shared, base, image, name, &folder).await
            }
        }
    }

    async fn save(&self, template: Arc<Template>) {
        let _one = self.saving.lock().await;
        if !self.is_current(&template) {
            return;
        }
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

    /// Nobody has thrown it away.
    fn is_current(&self, template: &Template) -> bool {
        let is_same = |slot: &Slot| matches!(slot, Slot::Ready(known) if std::ptr::eq(&**known, template));
        self.known().get(&template.name).is_some_and(|known| is_same(&known.slot.borrow()))
    }

    /// Those beyond the limit, from memory; their durable forms stay.
    fn let_go(&self) {
        let mut known = self.known();
        let mut ready: Vec<(Instant, String)> = known
            .iter()
            .filter(|(_, known)| known.kind.image.is_none() && matches!(*known.slot.borrow(), Slot::Ready(_)))
            .map(|(name, known)| (known.used, name.clone()))
            .collect();
        ready.sort();
        for (_, name) in ready.iter().take(ready.len().saturating_sub(LOADED_MAX)) {
            known.remove(name);
        }
    }

    /// Throws one away, also its durable form. `true` if there was one. Machines that were cloned from it go on.
    pub(crate) async fn remove(&self, name: &str) -> io::Result<bool> {
        if key::parse(name).is_none() {
            return Ok(false);
        }
        let was_known = self.known().remove(name).is_some();
        let _one = self.saving.lock().await;
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
        if !self.is_current(template) {
            return;
        }
        if let Err(error) = self.remove(&template.name).await {
            tracing::warn!(template = template.name, %error, "a template stays on the disk");
        }
        if template.kind.image.is_some() {
            // That of its class does as well: no other try soon.
            let slot = watch::Sender::new(Slot::failed(why.into()));
            let known = Known { kind: template.kind.clone(), slot, used: Instant::now() };
            self.known().insert(template.name.clone(), known);
        }
    }
}

impl Slot {
    fn failed(why: String) -> Self {
        Slot::Failed { why, until: Instant::now() + RETRY_AFTER }
    }

    fn is_over(&self) -> bool {
        matches!(self, Slot::Failed { until, .. } if *until < Instant::now())
    }
}

/// Whether anything can be cloned from what is durable under that name: it is of this host and installation, and of layers
/// that are still there.
fn is_current(shared: &Shared, host: &str, name: &str) -> bool {
    let Some(Named { host: of, class, of_image }) = key::parse(name) else { return false };
    if of != host || !of_image {
        return of == host;
    }
    let saved = capture::durable(&shared.templates_folder().join(name)).ok().flatten();
    let kind = |image| Kind { class, image: Some(image) };
    let image = saved.and_then(|(_, facts)| facts.image);
    image.is_some_and(|image| key::name(shared, &kind(image)).is_ok_and(|current| current == name))
}

/// Processes of machines that are being made.
pub(crate) fn pids(shared: &Shared) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(shared.templates_folder())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(MAKING) {
            pids.extend(unclaimed::pid(&MachineFolder::at(entry.path()))?);
        }
    }
    Ok(pids)
}
