//! Where a container is: a slice of a host's CPUs, and the datastore of its disk.

use crate::ids::ContainerId;
use crate::vch::NameError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A slice of a host's CPUs, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);
crate::vch::strict_name!(HostName, "host slice's name");

/// A folder for disks of containers, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatastoreName(String);
crate::vch::strict_name!(DatastoreName, "datastore's name");

/// What there is where an operator names none: all CPUs, and the data folder. Nothing else is called that.
const DEFAULT: &str = "default";

macro_rules! with_default {
    ($name:ident) => {
        impl Default for $name {
            fn default() -> Self {
                Self(DEFAULT.into())
            }
        }

        impl $name {
            pub fn is_default(&self) -> bool {
                self.0 == DEFAULT
            }
        }
    };
}
with_default!(HostName);
with_default!(DatastoreName);

/// Decided when a container is made, and kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placement {
    pub host: HostName,
    pub datastore: DatastoreName,
}

impl Placement {
    /// An operator named no others.
    pub fn is_default(&self) -> bool {
        self.host.is_default() && self.datastore.is_default()
    }
}

/// The disk of a container, and the datastore that it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskPlace<'a> {
    pub id: &'a ContainerId,
    pub datastore: &'a DatastoreName,
}

impl Placement {
    pub fn disk_of<'a>(&'a self, id: &'a ContainerId) -> DiskPlace<'a> {
        DiskPlace { id, datastore: &self.datastore }
    }
}

/// `host/datastore`.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.datastore)
    }
}

/// How a place was chosen, as it is kept with the decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementReport {
    /// All that there were.
    pub candidates: u32,
    /// Those that nothing refused.
    pub eligible: u32,
    /// None: nothing was left.
    pub chosen: Option<Placement>,
    /// The bindings whose scores counted, in order. None: the engine chose by itself, what has most free memory.
    pub scored_by: Vec<String>,
    /// The best, at most [`BEST_KEPT`].
    pub best: Vec<RatedPlace>,
    /// Who refused how many, the most first; at most [`REFUSALS_KEPT`].
    pub refusals: Vec<Refusal>,
    /// Of all of it, in microseconds.
    pub took_us: u64,
}

/// Candidates that a decision keeps by name.
pub const BEST_KEPT: usize = 20;
/// Reasons that a decision keeps.
pub const REFUSALS_KEPT: usize = 20;

/// A candidate and its score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatedPlace {
    #[serde(flatten)]
    pub place: Placement,
    pub score: i64,
    /// What each of `scored_by` gave.
    pub scores: Vec<i16>,
}

/// Candidates that were refused for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A binding. None: the engine itself.
    pub by: Option<String>,
    /// Why, lower case, no full stop.
    pub why: String,
    pub count: u32,
    /// One of them.
    pub example: Placement,
}

impl PlacementReport {
    /// Why there is no place: `0 of 4 candidates: 2 have no room for 512 MiB, 2 refused by tiers: …`.
    pub fn refusal(&self) -> String {
        let told = |refusal: &Refusal| match &refusal.by {
            None => format!("{} {}", refusal.count, refusal.why),
            Some(by) => format!("{} refused by {by}: {}", refusal.count, refusal.why),
        };
        let told: Vec<String> = self.refusals.iter().map(told).collect();
        format!("{} of {} candidates: {}", self.eligible, self.candidates, told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_no_place_is_one_line() {
        let example = Placement::default();
        assert!(example.is_default());
        let refusal = |by: Option<&str>, why: &str, count| Refusal {
            by: by.map(str::to_owned),
            why: why.into(),
            count,
            example: example.clone(),
        };
        let report = PlacementReport {
            candidates: 4,
            refusals: vec![
                refusal(None, "have no room for 512 MiB", 2),
                refusal(Some("tiers"), "no datastore with tier=fast", 2),
            ],
            ..PlacementReport::default()
        };
        let text =
            "0 of 4 candidates: 2 have no room for 512 MiB, 2 refused by tiers: no datastore with tier=fast";
        assert_eq!(report.refusal(), text);
    }

    #[test]
    fn names_are_strict() {
        assert_eq!("Fast Disk".parse::<DatastoreName>().unwrap_err().kind, "datastore's name");
        let named = Placement { host: "left".parse().unwrap(), ..Placement::default() };
        assert_eq!((named.to_string().as_str(), named.is_default()), ("left/default", false));
    }
}
