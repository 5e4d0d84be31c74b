//! `[[host]]` and `[[datastore]]`: where containers run and where their disks are; `[sim]`: how much of that is simulated.

use bulkhead_machine::places::CANDIDATES_MAX;
use bulkhead_model::placement::{DatastoreName, HostName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// A slice of this host's CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSection {
    pub name: HostName,
    /// As Linux writes lists of CPUs: `0-3,8`.
    pub cpus: String,
    /// No container is placed there that would have more, with those that run there; none: what the host has.
    pub memory_mib: Option<u64>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A folder for disks of containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatastoreSection {
    pub name: DatastoreName,
    pub path: PathBuf,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Of simulated machines. 0: one that nobody named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimSection {
    pub hosts: usize,
    pub datastores: usize,
}

const CPU_MAX: u32 = 1023;

impl HostSection {
    /// Their numbers; `None`: it is no such list.
    pub fn cpu_numbers(&self) -> Option<Vec<u32>> {
        let mut numbers = BTreeSet::new();
        for part in self.cpus.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last || last > CPU_MAX {
                return None;
            }
            numbers.extend(first..=last);
        }
        Some(numbers.into_iter().collect())
    }
}

impl SimSection {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.hosts.max(1).saturating_mul(self.datastores.max(1)) > CANDIDATES_MAX {
            problems.push(format!("[sim] hosts times datastores is more than {CANDIDATES_MAX}"));
        }
    }
}

pub(super) fn check(
    hosts: &[HostSection],
    datastores: &[DatastoreSection],
    data: &Path,
    problems: &mut Vec<String>,
) {
    let mut names = BTreeSet::new();
    for host in hosts {
        let name = &host.name;
        if !names.insert(name.as_str()) || name.is_default() {
            let why = if name.is_default() { "is taken: it means all CPUs" } else { "is there twice" };
            problems.push(format!("[[host]] name `{name}` {why}"));
        }
        if host.cpu_numbers().is_none() {
            problems.push(format!("[[host]] `{name}`: cpus `{}` is no list like `0-3,8`", host.cpus));
        }
        if host.memory_mib == Some(0) {
            problems.push(format!("[[host]] `{name}`: memory_mib is 0"));
        }
    }
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for datastore in datastores {
        let (name, path) = (&datastore.name, &datastore.path);
        if !names.insert(name.as_str()) || name.is_default() {
            let why = if name.is_default() { "is taken: it means the data folder" } else { "is there twice" };
            problems.push(format!("[[datastore]] name `{name}` {why}"));
        }
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(plain) {
            problems.push(format!(
                "[[datastore]] `{name}`: path `{}` is not absolute without `..`",
                path.display()
            ));
        }
        if !paths.insert(path) || path == data {
            problems.push(format!("[[datastore]] `{name}`: path `{}` is taken", path.display()));
        }
    }
    if hosts.len().max(1).saturating_mul(datastores.len().max(1)) > CANDIDATES_MAX {
        problems.push(format!("[[host]] times [[datastore]] is more than {CANDIDATES_MAX}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, "b", None).map_err(|error| error.to_string())
    }

    #[test]
    fn hosts_and_datastores_are_read() {
        let config = parse(
            "[[host]]\nname = 'left'\ncpus = '0-1,4'\nlabels = { zone = 'a' }\n
             [[datastore]]\nname = 'fast'\npath = '/mnt/fast'\nlabels = { tier = 'fast' }\n[sim]\nhosts = 10000\n",
        )
        .unwrap();
        assert_eq!(config.hosts[0].cpu_numbers(), Some(vec![0, 1, 4]));
        assert_eq!((config.datastores[0].labels["tier"].as_str(), config.sim.hosts), ("fast", 10_000));
    }

    #[test]
    fn what_cannot_be_is_told() {
        let host = |more: &str| format!("[[host]]\nname = 'left'\ncpus = '0'\n{more}\n");
        let datastore = |name: &str, path: &str| format!("[[datastore]]\nname = '{name}'\npath = '{path}'\n");
        for (text, why) in [
            (host(&host("")), "[[host]] name `left` is there twice"),
            (host("memory_mib = 0"), "memory_mib is 0"),
            (host("memory = 1"), "unknown field `memory`"),
            ("[[host]]\nname = 'default'\ncpus = '0'".into(), "it means all CPUs"),
            ("[[host]]\nname = 'left'\ncpus = '3-1'".into(), "cpus `3-1` is no list like `0-3,8`"),
            ("[[host]]\nname = 'Left'\ncpus = '0'".into(), "is not a host slice's name"),
            (datastore("default", "/d"), "it means the data folder"),
            (datastore("fast", "d"), "is not absolute"),
            (datastore("fast", "/d/../e"), "is not absolute without `..`"),
            (datastore("fast", "/var/lib/bulkhead"), "is taken"),
            (datastore("fast", "/d") + &datastore("bulk", "/d"), "path `/d` is taken"),
            ("[sim]\nhosts = 10001".into(), "more than 10000"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
