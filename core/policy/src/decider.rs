//! The policy set in force, and its change while the server runs.

use crate::query::{Outcome, Query, Settings};
use crate::set::PolicySet;
use arc_swap::ArcSwap;
use bulkhead_model::{Class, PolicyOrigin};
use std::sync::Arc;

/// Answers queries with the policy set in force.
#[derive(Debug)]
pub struct Decider {
    now: ArcSwap<Now>,
    settings: Settings,
}

/// One value, so that nobody sees a new set with an old problem, or with another one's number.
#[derive(Debug, Clone)]
struct Now {
    /// In force.
    set: Arc<PolicySet>,
    version: Version,
    /// Why the folder as it is now is not.
    problem: Option<String>,
}

/// Which revision a set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// 0: it was never written down.
    pub revision: u64,
    pub origin: PolicyOrigin,
}

/// What is in force, and what is wrong with the folder if it is newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Digest of the set in force.
    pub policy_set: String,
    pub version: Version,
    pub policies: usize,
    pub classes: Vec<Class>,
    /// Why the folder as it is now is not in force, with positions; several lines.
    pub problem: Option<String>,
}

impl Decider {
    pub fn new(set: PolicySet, settings: Settings) -> Self {
        Self::of(Arc::new(set), Version { revision: 0, origin: PolicyOrigin::Folder }, settings)
    }

    pub fn of(set: Arc<PolicySet>, version: Version, settings: Settings) -> Self {
        Self { now: ArcSwap::from_pointee(Now { set, version, problem: None }), settings }
    }

    /// Takes some tens of microseconds to a millisecond; never blocks.
    pub fn decide(&self, query: &Query<'_>) -> Outcome {
        self.now.load().set.decide(&self.settings, query)
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn set(&self) -> Arc<PolicySet> {
        self.now.load().set.clone()
    }

    pub fn version(&self) -> Version {
        self.now.load().version.clone()
    }

    pub fn status(&self) -> Status {
        let now = self.now.load();
        Status {
            policy_set: now.set.digest().to_string(),
            version: now.version.clone(),
            policies: now.set.len(),
            classes: now.set.classes().cloned().collect(),
            problem: now.problem.clone(),
        }
    }

    /// From the next question on, this set answers. What came from the folder has no problem any more.
    pub fn put(&self, set: Arc<PolicySet>, version: Version) {
        self.now.rcu(|now| Now {
            set: set.clone(),
            problem: if version.origin == PolicyOrigin::Folder { None } else { now.problem.clone() },
            version: version.clone(),
        });
    }

    /// Whether the folder as it is now can be put in force; the set in force stays. Says whether that is news.
    pub fn tell(&self, problem: Option<String>) -> bool {
        let before = self.now.rcu(|now| Now { problem: problem.clone(), ..(**now).clone() });
        before.problem != problem
    }
}
