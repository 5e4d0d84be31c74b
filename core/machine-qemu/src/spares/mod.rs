//! Spares: clones that were made ahead of need, for the size of machine that is asked for most. One has loaded its state
//! and rehearsed a start, and is nobody's. A container's first start takes one, gives it its disks and its place on the
//! network, and is done with what takes longest.
//!
//! ```text
//!   DATA/spares/<id>/     as a machine's folder, which it becomes by a change of name (see [`crate::unclaimed`])
//!     journal
//! ```
//!
//! They are made when it is calm ([`crate::calm`]), and given up when nobody has started anything for long.
//!
//! **Invariants:** nothing foreign ever ran in one; each is used once; a start never waits for one.

mod empty;
mod make;

pub(crate) use make::plug;

use crate::calm::{self, Calm};
use crate::record::{MachineFolder, Record};
use crate::shared::Shared;
use crate::templates::{Class, Template, Templates};
use crate::unclaimed::{self, Unclaimed};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Nobody has started anything for so long: spares are not worth their memory.
const IDLE: Duration = Duration::from_secs(900);
/// After a failure none is made for so long.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// Starts that say which size of machine is asked for most.
const STARTS_KEPT: usize = 8;

/// A machine that waits to be somebody's. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Spare {
    class: Class,
    pub(crate) template: Arc<Template>,
    pub(crate) machine: Unclaimed,
    /// The descriptor in the hypervisor that holds its memory.
    pub(crate) memory: RawFd,
}

impl Spare {
    /// Its folder and journal become those of a machine.
    pub(crate) fn become_machine(
        &mut self,
        record: &Record,
        folder: MachineFolder,
        journal: &Path,
    ) -> io::Result<()> {
        let own = &mut self.machine.folder;
        fs::rename(own.path().join(JOURNAL), journal)?;
        own.write_record(record)?;
        folder.remove()?;
        fs::rename(own.path(), folder.path())?;
        *own = folder;
        Ok(())
    }
}

const JOURNAL: &str = "journal";

#[derive(Debug)]
pub(crate) struct Spares {
    shared: Arc<Shared>,
    templates: Arc<Templates>,
    calm: Arc<Calm>,
    most: usize,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    ready: Vec<Spare>,
    /// Of the last starts.
    asked: VecDeque<Class>,
    not_before: Option<Instant>,
}

impl Spares {
    /// Ends what an earlier server had. There are `most` at a time.
    pub(crate) fn open(
        shared: Arc<Shared>,
        templates: Arc<Templates>,
        calm: Arc<Calm>,
        most: usize,
    ) -> io::Result<Self> {
        clear(&shared)?;
        let state = State { ready: Vec::new(), asked: VecDeque::new(), not_before: None };
        Ok(Self { shared, templates, calm, most, state: Mutex::new(state), wake: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of that template.
    pub(crate) fn count(&self, template: &str) -> u32 {
        let count = self.state().ready.iter().filter(|spare| spare.template.name == template).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// A machine of the class is being started.
    pub(crate) fn asked(&self, class: Class) {
        let mut state = self.state();
        state.asked.push_back(class);
        if state.asked.len() > STARTS_KEPT {
            state.asked.pop_front();
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Something may have changed about what they are cloned from.
    pub(crate) fn look(&self) {
        self.wake.notify_one();
    }

    /// One of the class, if there is one.
    pub(crate) fn take(&self, class: Class) -> Option<Spare> {
        let mut over = Vec::new();
        let found = {
            let mut state = self.state();
            let current = self.templates.at_hand(&class.into());
            let is_current =
                |spare: &Spare| current.as_ref().is_some_and(|one| Arc::ptr_eq(one, &spare.template));
            let mut found = None;
            while let Some(at) = state.ready.iter().position(|spare| spare.class == class) {
                let spare = state.ready.swap_remove(at);
                if is_current(&spare) && spare.machine.alive() {
                    found = Some(spare);
                    break;
                }
                over.push(spare);
            }
            found
        };
        for spare in over {
            self.discard(spare);
        }
        found
    }

    pub(crate) fn discard(&self, spare: Spare) {
        discard(&self.shared, spare);
    }

    /// Makes and gives up spares until the server stops; then there are none.
    pub(crate) async fn tend(self: Arc<Self>, stop: CancellationToken) {
        let work = async {
            loop {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(IDLE) => {}
                }
                let mut turn = self.calm.turn().await;
                self.give_up_unwanted().await;
                while let Some((class, template)) = self.wanted() {
                    match make::make(&self.shared, class, &template).await {
                        Ok(spare) => self.state().ready.push(spare),
                        Err(error) => {
                            tracing::warn!(template = template.name, %error, "no machine is made ahead for now");
                            self.state().not_before = Some(Instant::now() + RETRY_AFTER);
                        }
                    }
                    // Others have theirs.
                    drop(turn);
                    turn = self.calm.turn().await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
        self.state().ready.clear();
        let shared = self.shared.clone();
        let cleared = tokio::task::spawn_blocking(move || clear(&shared)).await;
        if let Err(error) = cleared.map_err(io::Error::other).flatten() {
            tracing::error!(%error, "spare machines are left");
        }
    }

    /// What is not of the size that is asked for most, or of a template that is no more, or all when nobody asks.
    async fn give_up_unwanted(self: &Arc<Self>) {
        let unwanted: Vec<Spare> = {
            let mut state = self.state();
            let hot = state.hot(self.calm.last_start());
            let current = hot.and_then(|class| self.templates.at_hand(&class.into()));
            let is_wanted = |spare: &Spare| {
                Some(spare.class) == hot
                    && current.as_ref().is_some_and(|one| Arc::ptr_eq(one, &spare.template))
                    && spare.machine.alive()
            };
            let (wanted, unwanted) = state.ready.drain(..).partition(is_wanted);
            state.ready = wanted;
            unwanted
        };
        let own = self.clone();
        let ended = tokio::task::spawn_blocking(move || {
            for spare in unwanted {
                own.discard(spare);
            }
        });
        if let Err(error) = ended.await {
            tracing::error!(%error, "giving spare machines up was cut off");
        }
    }

    /// What the next one is to be cloned from.
    fn wanted(&self) -> Option<(Class, Arc<Template>)> {
        let class = {
            let state = self.state();
            let class = state.hot(self.calm.last_start())?;
            let is_full = state.ready.len() >= self.most;
            let must_wait = state.not_before.is_some_and(|at| Instant::now() < at);
            (!is_full && !must_wait).then_some(class)?
        };
        let template = self.templates.at_hand(&class.into())?;
        calm::has_room(class.memory_mib << 20).then_some((class, template))
    }
}

impl State {
    /// The class that is asked for most; none, when nobody asks any more.
    fn hot(&self, last_start: Option<Instant>) -> Option<Class> {
        let is_idle = last_start.is_none_or(|at| at.elapsed() >= IDLE);
        let count = |class: &Class| self.asked.iter().filter(|one| *one == class).count();
        self.asked.iter().max_by_key(|class| count(class)).copied().filter(|_| !is_idle)
    }
}

/// Ends one, and removes what it had.
fn discard(shared: &Shared, spare: Spare) {
    if let Err(error) = spare.machine.dismiss(shared) {
        tracing::error!(%error, "a spare machine is not gone");
    }
}

/// Their processes.
pub(crate) fn pids(shared: &Shared) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for (_, folder) in MachineFolder::all(&shared.spares_folder())? {
        pids.extend(unclaimed::pid(&folder)?);
    }
    Ok(pids)
}

/// Ends all that there are, whoever made them.
fn clear(shared: &Shared) -> io::Result<()> {
    for (id, folder) in MachineFolder::all(&shared.spares_folder())? {
        unclaimed::clear(shared, &folder)?;
        // It may have died before it was written down.
        shared.cgroups.leave(&id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spares_are_of_the_size_that_is_asked_for_most() {
        let class = |memory_mib| Class { vcpus: 1, memory_mib };
        let asked = [256, 1024, 256, 512].map(class).into();
        let state = State { ready: Vec::new(), asked, not_before: None };
        assert_eq!(state.hot(Some(Instant::now())), Some(class(256)));
        assert_eq!(state.hot(None), None);
    }
}
