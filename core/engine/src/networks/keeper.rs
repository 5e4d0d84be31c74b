//! Keeps the networks of all VCHs as the store says, one pass at a time: whoever changed something waits for a pass that
//! began after the change. Many changes at once share one.

use super::plan::plan;
use crate::{Engine, EngineError};
use bulkhead_guest_protocol::network::Name;
use bulkhead_model::{ContainerId, Endpoint, NetworkId, VchId};
use bulkhead_store::NetworkFacts;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Failed passes are repeated after this.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// Counts changes.
    wanted: AtomicU64,
    pass: tokio::sync::Mutex<Pass>,
    /// Of those who have an address, by network.
    names: Mutex<Names>,
}

type Names = BTreeMap<NetworkId, Arc<BTreeMap<String, BTreeSet<IpAddr>>>>;

impl Keeper {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All names that are to be found on the networks of these places, links among them.
    pub(super) fn names_at(&self, places: &[Endpoint]) -> Vec<Name> {
        let mut all: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut linked: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        let names = self.names();
        for (place, of) in places.iter().filter_map(|place| Some((place, names.get(&place.network)?))) {
            for (name, addresses) in of.iter() {
                all.entry(name.clone()).or_default().extend(addresses);
            }
            for link in &place.wish.links {
                let target = link.target.to_lowercase();
                let id = target.parse::<ContainerId>().ok();
                let addresses = of.get(id.as_ref().map_or(target.as_str(), ContainerId::short));
                linked.entry(link.alias.to_lowercase()).or_default().extend(addresses.into_iter().flatten());
            }
        }
        // A link is what the container itself means by a name.
        all.extend(linked.into_iter().filter(|(_, addresses)| !addresses.is_empty()));
        let name = |(name, addresses): (String, BTreeSet<_>)| Name {
            name,
            addresses: addresses.into_iter().collect(),
        };
        all.into_iter().map(name).collect()
    }
}

/// Names are those of containers, their short ids, and the aliases of their places.
fn names(facts: &NetworkFacts) -> Names {
    let mut networks: BTreeMap<NetworkId, BTreeMap<String, BTreeSet<IpAddr>>> = BTreeMap::new();
    for endpoint in &facts.endpoints {
        let Some(lease) = endpoint.lease else { continue };
        let own = facts.names.get(&endpoint.container).map(String::as_str);
        let all = own.into_iter().chain([endpoint.container.short()]);
        let of = networks.entry(endpoint.network.clone()).or_default();
        for name in all.chain(endpoint.wish.aliases.iter().map(String::as_str)) {
            of.entry(name.to_lowercase()).or_default().extend(lease.addresses());
        }
    }
    networks.into_iter().map(|(network, names)| (network, Arc::new(names))).collect()
}

/// The last one.
#[derive(Debug, Default)]
struct Pass {
    /// All changes up to this one are made.
    made: u64,
    /// VCHs whose networks could not be made.
    problems: BTreeMap<VchId, String>,
}

impl Engine {
    /// Returns when everything that the store says now is so on the host; the reason, where it could not be made so for
    /// `vch`.
    pub(crate) async fn keep_networks(&self, vch: Option<VchId>) -> Result<(), EngineError> {
        let keeper = &self.0.keeper;
        let change = keeper.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut pass = keeper.pass.lock().await;
        if pass.made < change {
            let made = keeper.wanted.load(Ordering::SeqCst);
            self.store().check_fence(self.0.fence).await?;
            let facts = self.store().network_facts().await?;
            let problems = self.back_end().networks.apply(&plan(&facts)).await?;
            for (vch, why) in &problems {
                tracing::error!(%vch, why, "the networks of a VCH could not be made");
            }
            self.tell_names(&facts);
            pass.problems = problems.into_iter().collect();
            pass.made = made;
        }
        match vch.and_then(|vch| pass.problems.get(&vch)) {
            Some(why) => Err(EngineError::Network(format!("networks of the VCH cannot be made: {why}"))),
            None => Ok(()),
        }
    }

    /// Wakes the drivers of those who see other names, or other places of their own, now.
    fn tell_names(&self, facts: &NetworkFacts) {
        let new = names(facts);
        let old = std::mem::replace(&mut *self.0.keeper.names(), new.clone());
        for endpoint in
            facts.endpoints.iter().filter(|place| old.get(&place.network) != new.get(&place.network))
        {
            if let Some(handle) = self.0.drivers.get(&endpoint.container) {
                handle.wake();
            }
        }
    }

    /// For changes that nobody waits for.
    pub(crate) fn networks_changed(&self) {
        let engine = self.clone();
        self.0.tasks.spawn(async move {
            if let Err(error) = engine.keep_networks(None).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "networks are not as they should be"
                );
            }
        });
    }

    /// Makes anew what somebody else on the host changed.
    pub(crate) async fn watch_networks(self) {
        let mut disturbed = self.back_end().networks.disturbed();
        loop {
            let changed = tokio::select! {
                () = self.0.stop.cancelled() => return,
                changed = disturbed.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            tracing::warn!("rules or links of networks were changed from outside: they are made anew");
            while let Err(error) = self.keep_networks(None).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "networks are not as they should be"
                );
                tokio::select! {
                    () = self.0.stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
            // A machine may have lost an interface.
            self.0.drivers.all().iter().for_each(|handle| handle.wake());
        }
    }
}
