//! Candidates that have room, and their columns, made when they are asked for.

use bulkhead_machine::places::{DatastoreFacts, HostFacts, Places};
use bulkhead_model::placement::{Placement, Refusal};
use bulkhead_model::{Resources, VchId};
use bulkhead_plugin::{Candidates, Texts};
use bulkhead_store::Placed;
use std::collections::{BTreeMap, HashMap};

/// Hosts with datastores, by name: a tie is for the first.
#[derive(Debug, Default)]
pub(super) struct Table {
    hosts: Vec<(HostFacts, Used)>,
    datastores: Vec<(DatastoreFacts, Used)>,
    /// Places in both.
    candidates: Vec<(usize, usize)>,
    /// Labels of the VCH's containers, with the place of their host.
    containers: Vec<(usize, BTreeMap<String, String>)>,
    /// With those that have no room.
    pub(super) all: u32,
}

/// What containers have.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    containers: u32,
    /// Of those that run.
    cpu_milli: u64,
    memory_bytes: u64,
}

impl Used {
    fn add(&mut self, placed: &Placed) {
        self.containers += 1;
        if placed.runs {
            self.cpu_milli += u64::from(placed.cpu_milli);
            self.memory_bytes = self.memory_bytes.saturating_add(placed.memory_bytes);
        }
    }
}

impl Table {
    /// And why the others have no room.
    pub(super) fn new(
        places: Places,
        placed: &[Placed],
        vch: VchId,
        wanted: &Resources,
    ) -> (Self, Vec<Refusal>) {
        let mut hosts: Vec<_> = places.hosts.into_iter().map(|host| (host, Used::default())).collect();
        let mut datastores: Vec<_> = places.datastores.into_iter().map(|it| (it, Used::default())).collect();
        hosts.sort_by(|one, other| one.0.name.cmp(&other.0.name));
        datastores.sort_by(|one, other| one.0.name.cmp(&other.0.name));
        let at: HashMap<_, _> =
            hosts.iter().enumerate().map(|(at, (host, _))| (host.name.clone(), at)).collect();
        let mut containers = Vec::new();
        for one in placed {
            // Those of a place that is not there any more are nowhere.
            if let Some(at) = at.get(&one.placement.host).copied() {
                if let Some((_, used)) = hosts.get_mut(at) {
                    used.add(one);
                }
                if one.vch == vch {
                    containers.push((at, one.labels.clone()));
                }
            }
            if let Some((_, used)) = datastores.iter_mut().find(|(it, _)| it.name == one.placement.datastore)
            {
                used.add(one);
            }
        }
        let mut table = Self { hosts, datastores, containers, ..Self::default() };
        let mut refusals = Refusals::default();
        for (h, (host, used)) in table.hosts.iter().enumerate() {
            for (d, (datastore, _)) in table.datastores.iter().enumerate() {
                table.all += 1;
                match no_room(host, used, datastore, wanted) {
                    None => table.candidates.push((h, d)),
                    Some(why) => refusals.add(None, &why, || place(host, datastore)),
                }
            }
        }
        (table, refusals.into())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    pub(super) fn place(&self, candidate: usize) -> Option<Placement> {
        let (h, d) = self.candidates.get(candidate)?;
        Some(place(&self.hosts.get(*h)?.0, &self.datastores.get(*d)?.0))
    }

    /// What the engine prefers by itself: memory that is free, then that there are fewer containers, then space.
    pub(super) fn room(&self, candidate: usize) -> (u64, std::cmp::Reverse<u32>, u64) {
        let at = self.candidates.get(candidate);
        let host = at.and_then(|(h, _)| self.hosts.get(*h));
        let datastore = at.and_then(|(_, d)| self.datastores.get(*d));
        let free = host.map(|(host, used)| host.memory_bytes.saturating_sub(used.memory_bytes));
        let containers = host.map(|(_, used)| used.containers);
        let space = datastore.and_then(|(it, _)| it.space).map(|space| space.free_bytes);
        (free.unwrap_or(0), std::cmp::Reverse(containers.unwrap_or(0)), space.unwrap_or(0))
    }

    fn of_hosts(&self, value: impl Fn(&HostFacts, &Used) -> u64) -> Vec<u32> {
        let values: Vec<u32> = self.hosts.iter().map(|(host, used)| narrow(value(host, used))).collect();
        self.candidates.iter().map(|(h, _)| values.get(*h).copied().unwrap_or(0)).collect()
    }

    fn of_datastores(&self, value: impl Fn(&DatastoreFacts, &Used) -> u64) -> Vec<u32> {
        let values: Vec<u32> = self.datastores.iter().map(|(it, used)| narrow(value(it, used))).collect();
        self.candidates.iter().map(|(_, d)| values.get(*d).copied().unwrap_or(0)).collect()
    }

    /// `label`: `KEY=VALUE`.
    fn containers_with(&self, label: &str) -> Option<Vec<u32>> {
        let (key, value) = label.split_once('=')?;
        let mut counts = vec![0_u32; self.hosts.len()];
        for (at, labels) in &self.containers {
            if labels.get(key).is_some_and(|one| one == value)
                && let Some(count) = counts.get_mut(*at)
            {
                *count += 1;
            }
        }
        Some(self.candidates.iter().map(|(h, _)| counts.get(*h).copied().unwrap_or(0)).collect())
    }

    fn text_column<'a>(
        &'a self,
        values: impl Iterator<Item = Option<&'a str>>,
        at: fn(&(usize, usize)) -> usize,
    ) -> Texts {
        let mut texts = Texts::default();
        let mut known = HashMap::new();
        let codes: Vec<u32> = values
            .map(|value| match value {
                None => Texts::ABSENT,
                Some(value) => *known.entry(value).or_insert_with(|| {
                    texts.values.push(value.to_owned());
                    narrow(texts.values.len() as u64 - 1)
                }),
            })
            .collect();
        let code = |candidate: &(usize, usize)| codes.get(at(candidate)).copied().unwrap_or(Texts::ABSENT);
        texts.codes = self.candidates.iter().map(code).collect();
        texts
    }
}

impl Candidates for Table {
    fn count(&self) -> u32 {
        narrow(self.candidates.len() as u64)
    }

    fn numbers(&self, column: &str) -> Option<Vec<u32>> {
        let mib = |bytes: u64| bytes >> 20;
        let space = |it: &DatastoreFacts| it.space.unwrap_or_default();
        Some(match column {
            "cpu-milli" => self.of_hosts(|host, _| u64::from(host.cpus) * 1000),
            "cpu-free-milli" => {
                self.of_hosts(|host, used| (u64::from(host.cpus) * 1000).saturating_sub(used.cpu_milli))
            }
            "memory-mib" => self.of_hosts(|host, _| mib(host.memory_bytes)),
            "memory-free-mib" => {
                self.of_hosts(|host, used| mib(host.memory_bytes.saturating_sub(used.memory_bytes)))
            }
            "containers" => self.of_hosts(|_, used| u64::from(used.containers)),
            "datastore-mib" => self.of_datastores(|it, _| mib(space(it).bytes)),
            "datastore-free-mib" => self.of_datastores(|it, _| mib(space(it).free_bytes)),
            "datastore-containers" => self.of_datastores(|_, used| u64::from(used.containers)),
            other => return self.containers_with(other.strip_prefix("containers-with:")?),
        })
    }

    fn texts(&self, column: &str) -> Option<Texts> {
        let (of_host, of_datastore) = (|it: &(usize, usize)| it.0, |it: &(usize, usize)| it.1);
        let hosts = self.hosts.iter().map(|(host, _)| host);
        let datastores = self.datastores.iter().map(|(datastore, _)| datastore);
        if column == "host" {
            return Some(self.text_column(hosts.map(|host| Some(host.name.as_str())), of_host));
        }
        if column == "datastore" {
            return Some(self.text_column(datastores.map(|it| Some(it.name.as_str())), of_datastore));
        }
        if let Some(key) = column.strip_prefix("host-label:") {
            let label = hosts.map(|host| host.labels.get(key).map(String::as_str));
            return Some(self.text_column(label, of_host));
        }
        let key = column.strip_prefix("datastore-label:")?;
        Some(self.text_column(datastores.map(|it| it.labels.get(key).map(String::as_str)), of_datastore))
    }
}

fn place(host: &HostFacts, datastore: &DatastoreFacts) -> Placement {
    Placement { host: host.name.clone(), datastore: datastore.name.clone() }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// In the words of a refusal: `2 have no room for 512 MiB`.
fn no_room(host: &HostFacts, used: &Used, datastore: &DatastoreFacts, wanted: &Resources) -> Option<String> {
    let taken = if host.is_limit { used.memory_bytes } else { 0 };
    if taken.saturating_add(wanted.memory_bytes) > host.memory_bytes {
        return Some(format!("have no room for {} MiB", wanted.memory_bytes.div_ceil(1 << 20)));
    }
    if wanted.vcpus() > host.cpus {
        return Some(format!("have fewer than {} CPUs", wanted.vcpus()));
    }
    datastore.space.is_none().then(|| "have a datastore that is not there".to_owned())
}

/// Counted by who and why.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<(Option<String>, String), Refusal>);

impl Refusals {
    pub(super) fn add(&mut self, by: Option<&str>, why: &str, example: impl FnOnce() -> Placement) {
        let key = (by.map(str::to_owned), why.to_owned());
        let (by, why) = key.clone();
        self.0.entry(key).or_insert_with(|| Refusal { by, why, count: 0, example: example() }).count += 1;
    }
}

impl From<Refusals> for Vec<Refusal> {
    fn from(refusals: Refusals) -> Self {
        let mut all: Vec<_> = refusals.0.into_values().collect();
        all.sort_by(|one, other| (other.count, &one.by, &one.why).cmp(&(one.count, &other.by, &other.why)));
        all
    }
}
