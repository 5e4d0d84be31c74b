//! Templates of images: machines whose agent has found an image's layers and a new disk, and has mounted and stacked them.
//! What a container's first start would do with its disks is done in their clones.
//!
//! One is made when an image was started twice within a while, when it is calm ([`crate::calm`]); at most so many are
//! kept, and one goes at once when a layer of it does.

use super::{Kind, Slot, Template, Templates, key, list};
use crate::calm::{self, Calm};
use crate::shared::Shared;
use chrono::{DateTime, Utc};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Two starts within so long ask for a template.
const WHILE: Duration = Duration::from_secs(900);
/// Starts that are remembered.
const STARTS_KEPT: usize = 64;
/// Nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) struct Images {
    shared: Arc<Shared>,
    templates: Arc<Templates>,
    calm: Arc<Calm>,
    most: usize,
    /// First starts, the last one at the end.
    asked: Mutex<VecDeque<(Instant, Kind)>>,
    wake: Notify,
}

/// When one was last cloned from: by this server, else it is older, and when it was made counts.
type Used = (Option<Instant>, Option<DateTime<Utc>>);

impl Images {
    /// There are `most` at a time.
    pub(crate) fn new(shared: Arc<Shared>, templates: Arc<Templates>, calm: Arc<Calm>, most: usize) -> Self {
        let (asked, wake) = (Mutex::default(), Notify::new());
        Self { shared, templates, calm, most, asked, wake }
    }

    fn asked(&self) -> MutexGuard<'_, VecDeque<(Instant, Kind)>> {
        // Whole after every statement.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container is being started for the first time: what it can be cloned from, if that is at hand.
    pub(crate) fn ask(&self, kind: &Kind) -> Option<Arc<Template>> {
        if self.most == 0 {
            return None;
        }
        let mut asked = self.asked();
        asked.push_back((Instant::now(), kind.clone()));
        if asked.len() > STARTS_KEPT {
            asked.pop_front();
        }
        drop(asked);
        self.wake.notify_one();
        self.templates.at_hand(kind)
    }

    /// What was asked for so far is no reason any more to make that one.
    pub(crate) fn forget(&self, name: &str) {
        let is_it = |kind: &Kind| key::name(&self.shared, kind).is_ok_and(|one| one == name);
        self.asked().retain(|(_, kind)| !is_it(kind));
    }

    /// Makes and gives up templates until the server stops.
    pub(crate) async fn tend(self: Arc<Self>, stop: CancellationToken) {
        let make = async {
            self.make_room(self.most, None).await;
            loop {
                self.wake.notified().await;
                loop {
                    let _turn = self.calm.turn().await;
                    let Some((kind, since)) = self.wanted() else { break };
                    if !self.make_room(self.most.saturating_sub(1), Some((&kind, since))).await {
                        break;
                    }
                    if let Err(error) = self.templates.prepare(&kind, PATIENCE).await {
                        tracing::warn!(%error, "no template of an image is made");
                        break;
                    }
                }
            }
        };
        let clear = async {
            loop {
                self.shared.disks.layer_removed().await;
                self.give_up_outdated().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = make => {}
            () = clear => {}
        }
    }

    /// What was asked for twice and is not there, or once if it only has to be loaded; and the first time of both.
    fn wanted(&self) -> Option<(Kind, Instant)> {
        let mut asked = self.asked();
        asked.retain(|(at, _)| at.elapsed() < WHILE);
        let asked = asked.clone();
        asked.iter().rev().find_map(|(_, kind)| {
            let times: Vec<Instant> =
                asked.iter().rev().filter(|(_, one)| one == kind).map(|(at, _)| *at).collect();
            let needed = if self.templates.is_durable(kind) { 1 } else { 2 };
            let since = times.get(needed - 1)?;
            let is_possible = self.templates.lacks(kind)
                && self.templates.at_hand(&kind.class.into()).is_some()
                && calm::has_room(kind.class.memory_mib << 20);
            is_possible.then(|| (kind.clone(), *since))
        })
    }

    /// Throws those away that were not used for longest, until there are only so many beside the newcomer. `false`: the
    /// others were all used after it was first asked for, so that it would not be worth it.
    async fn make_room(&self, most: usize, newcomer: Option<(&Kind, Instant)>) -> bool {
        let mut all = match self.templates.of_images() {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(%error, "templates of images cannot be listed");
                return false;
            }
        };
        let own = newcomer.and_then(|(kind, _)| key::name(&self.shared, kind).ok());
        all.retain(|(_, name)| Some(name) != own.as_ref());
        all.sort();
        let over = all.len().saturating_sub(most);
        for ((used, _), name) in all.into_iter().take(over) {
            if newcomer.is_some_and(|(_, since)| used >= Some(since)) {
                return false;
            }
            self.give_up(&name).await;
        }
        true
    }

    /// Those of which a layer is gone.
    async fn give_up_outdated(&self) {
        let outdated = match self.templates.outdated() {
            Ok(outdated) => outdated,
            Err(error) => return tracing::warn!(%error, "templates of images cannot be looked at"),
        };
        for name in outdated {
            self.give_up(&name).await;
        }
        self.asked().retain(|(_, kind)| key::name(&self.shared, kind).is_ok());
    }

    async fn give_up(&self, name: &str) {
        match self.templates.remove(name).await {
            Ok(_) => tracing::info!(template = name, "a template of an image is thrown away"),
            Err(error) => tracing::warn!(template = name, %error, "a template of an image stays"),
        }
    }
}

impl Templates {
    fn is_durable(&self, kind: &Kind) -> bool {
        key::name(&self.shared, kind).is_ok_and(|name| self.folder(&name).join("capture.json").exists())
    }

    /// It can be made, is not there, and did not fail just now.
    fn lacks(&self, kind: &Kind) -> bool {
        let Ok(name) = key::name(&self.shared, kind) else { return false };
        self.known().get(&name).is_none_or(|known| known.slot.borrow().is_over())
    }

    /// Those that there are, in memory or on the disk.
    fn of_images(&self) -> io::Result<Vec<(Used, String)>> {
        let durable = list::durable(&self.shared.templates_folder())?;
        let known = self.known();
        let is_there = |name: &String| {
            durable.contains_key(name)
                || known.get(name).is_some_and(|known| !matches!(*known.slot.borrow(), Slot::Failed { .. }))
        };
        let mut names: Vec<&String> = durable.keys().chain(known.keys()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| is_there(name) && key::parse(name).is_some_and(|named| named.of_image));
        let used = |name: &String| {
            (known.get(name).map(|known| known.used), durable.get(name).map(|(_, facts)| facts.at))
        };
        Ok(names.into_iter().map(|name| (used(name), name.clone())).collect())
    }

    /// Names of those that nothing can be cloned from any more, as a layer is gone.
    fn outdated(&self) -> io::Result<Vec<String>> {
        let durable = list::durable(&self.shared.templates_folder())?;
        let mut all: Vec<(String, Kind)> =
            self.known().iter().map(|(name, known)| (name.clone(), known.kind.clone())).collect();
        all.extend(durable.into_iter().filter_map(|(name, (_, facts))| {
            let kind = Kind { class: key::parse(&name)?.class, image: facts.image };
            Some((name, kind))
        }));
        let is_gone = |(name, kind): &(String, Kind)| {
            kind.image.is_some() && key::name(&self.shared, kind).ok().as_ref() != Some(name)
        };
        let mut names: Vec<String> = all.into_iter().filter(is_gone).map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }
}
