//! Where machines can be: slices of hosts' CPUs, and datastores for containers' own disks.

use crate::MachineError;
use bulkhead_model::placement::{DatastoreName, HostName, Placement};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of hosts and datastores, as many pairs at most.
pub const CANDIDATES_MAX: usize = 10_000;

/// What there is, as of now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    pub hosts: Vec<HostFacts>,
    pub datastores: Vec<DatastoreFacts>,
}

/// A slice of a host's CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    pub name: HostName,
    pub labels: BTreeMap<String, String>,
    pub cpus: u32,
    /// Of the host, which slices share, unless it is a limit.
    pub memory_bytes: u64,
    /// Nothing is placed there that would have more, with what runs there.
    pub is_limit: bool,
}

/// Where disks can be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatastoreFacts {
    pub name: DatastoreName,
    pub labels: BTreeMap<String, String>,
    /// None: what it lies on is not there now.
    pub space: Option<Space>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    pub bytes: u64,
    pub free_bytes: u64,
}

impl Places {
    /// Made up: zones `a`, `b` and `c`, and one datastore in three is `fast`.
    pub fn simulated(hosts: usize, datastores: usize) -> Self {
        let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let host = |number: usize| HostFacts {
            name: format!("host-{number:05}").parse().unwrap_or_default(),
            labels: label("zone", ["a", "b", "c"].get(number % 3).copied().unwrap_or_default()),
            ..one_host()
        };
        let datastore = |number: usize| DatastoreFacts {
            name: format!("datastore-{number:02}").parse().unwrap_or_default(),
            labels: label("tier", if number.is_multiple_of(3) { "fast" } else { "bulk" }),
            ..one_datastore()
        };
        let mut places = Self::simulated_default();
        if hosts > 0 {
            places.hosts = (0..hosts).map(host).collect();
        }
        if datastores > 0 {
            places.datastores = (0..datastores).map(datastore).collect();
        }
        places
    }

    /// One of each, which nobody named.
    pub fn simulated_default() -> Self {
        Self { hosts: vec![one_host()], datastores: vec![one_datastore()] }
    }

    /// Whether a placement is still there. What was made where nobody had named anything always is.
    pub fn check(&self, placement: &Placement) -> Result<(), MachineError> {
        let Placement { host, datastore } = placement;
        if !host.is_default() && !self.hosts.iter().any(|one| one.name == *host) {
            return Err(MachineError::NoSuchHost(host.clone()));
        }
        match self.datastores.iter().find(|one| one.name == *datastore) {
            Some(DatastoreFacts { space: None, .. }) => Err(MachineError::DatastoreAway(datastore.clone())),
            None if !datastore.is_default() => Err(MachineError::NoSuchDatastore(datastore.clone())),
            Some(_) | None => Ok(()),
        }
    }
}

fn one_host() -> HostFacts {
    HostFacts { cpus: 8, memory_bytes: 64 << 30, ..HostFacts::default() }
}

fn one_datastore() -> DatastoreFacts {
    let space = Space { bytes: 1 << 40, free_bytes: 1 << 39 };
    DatastoreFacts { space: Some(space), ..DatastoreFacts::default() }
}
