//! Slices of this host's CPUs, and the threads of machines on them.
//!
//! All threads of a hypervisor have the CPUs of its slice, and so have those that it makes later. It cannot leave them: its
//! sandbox keeps it from asking.

use bulkhead_machine::places::HostFacts;
use bulkhead_machine::{Capabilities, MachineError};
use bulkhead_model::placement::HostName;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::{BTreeMap, HashSet};
use std::io;

/// A slice, as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSlice {
    pub name: HostName,
    /// Numbers of CPUs, as Linux counts them.
    pub cpus: Vec<u32>,
    /// No container is placed there that would have more, with those that run there; none: what the host has.
    pub memory_bytes: Option<u64>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Hosts(Vec<HostSlice>);

/// Threads that come while others are looked for.
const LOOKS_MAX: usize = 20;

impl Hosts {
    /// Fails where a slice has a CPU that this server does not.
    pub(crate) fn new(slices: Vec<HostSlice>) -> io::Result<Self> {
        let own = sched_getaffinity(Pid::from_raw(0))?;
        for slice in &slices {
            let has = |cpu: &&u32| usize::try_from(**cpu).is_ok_and(|cpu| own.is_set(cpu).unwrap_or(false));
            if let Some(cpu) = slice.cpus.iter().find(|cpu| !has(cpu)) {
                let all: Vec<String> = (0..CpuSet::count())
                    .filter(|cpu| own.is_set(*cpu).unwrap_or(false))
                    .map(|cpu| cpu.to_string())
                    .collect();
                let text = format!(
                    "host slice `{}` has CPU {cpu}, which this server cannot use: it has {}",
                    slice.name,
                    all.join(", ")
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        Ok(Self(slices))
    }

    /// Where nobody named any, there is one, of all CPUs.
    pub(crate) fn facts(&self, capabilities: &Capabilities) -> Vec<HostFacts> {
        let whole = HostFacts {
            cpus: capabilities.host_cpus,
            memory_bytes: capabilities.host_memory_bytes,
            ..HostFacts::default()
        };
        let facts = |slice: &HostSlice| HostFacts {
            name: slice.name.clone(),
            labels: slice.labels.clone(),
            cpus: u32::try_from(slice.cpus.len()).unwrap_or(u32::MAX),
            memory_bytes: slice.memory_bytes.unwrap_or(whole.memory_bytes),
            is_limit: slice.memory_bytes.is_some(),
        };
        if self.0.is_empty() { vec![whole] } else { self.0.iter().map(facts).collect() }
    }

    /// Puts all threads of a process on the CPUs of a slice.
    pub(crate) fn pin(&self, host: &HostName, pid: u32) -> Result<(), MachineError> {
        match self.find(host)? {
            None => Ok(()),
            Some(slice) => {
                pin(pid, &slice.cpus).map_err(MachineError::io("putting the hypervisor process on its CPUs"))
            }
        }
    }

    /// `None`: all CPUs, as nobody named any.
    pub(crate) fn find(&self, host: &HostName) -> Result<Option<&HostSlice>, MachineError> {
        let found = self.0.iter().find(|slice| slice.name == *host);
        match found {
            None if !host.is_default() => Err(MachineError::NoSuchHost(host.clone())),
            found => Ok(found),
        }
    }
}

/// Threads inherit from who makes them: once a look finds none that has not been told, there is none.
fn pin(pid: u32, cpus: &[u32]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(usize::try_from(*cpu).map_err(io::Error::other)?)?;
    }
    let mut told = HashSet::new();
    for _ in 0..LOOKS_MAX {
        let mut is_new = false;
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = entry?.file_name();
            let thread: i32 = name.to_string_lossy().parse().map_err(io::Error::other)?;
            if told.insert(thread) {
                is_new = true;
                match sched_setaffinity(Pid::from_raw(thread), &set) {
                    // It has ended meanwhile.
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        if !is_new {
            return Ok(());
        }
    }
    Err(io::Error::other("it makes threads faster than they are put on CPUs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(cpus: &[u32]) -> HostSlice {
        let name = "left".parse().unwrap();
        HostSlice { name, cpus: cpus.to_vec(), memory_bytes: None, labels: BTreeMap::new() }
    }

    #[test]
    fn a_process_is_on_the_cpus_of_its_slice_with_all_its_threads() {
        let own = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let last = (0..CpuSet::count()).rfind(|cpu| own.is_set(*cpu).unwrap()).unwrap();
        let hosts = Hosts::new(vec![slice(&[u32::try_from(last).unwrap()])]).unwrap();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        hosts.pin(&HostName::default(), child.id()).unwrap();
        hosts.pin(&"left".parse().unwrap(), child.id()).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{0}/task/{0}/status", child.id())).unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        assert_eq!(list.trim(), last.to_string());
        let unknown = hosts.pin(&"right".parse().unwrap(), child.id());
        assert!(matches!(unknown, Err(MachineError::NoSuchHost(_))), "{unknown:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_cpu_that_is_not_there_is_told() {
        let error = Hosts::new(vec![slice(&[1023])]).unwrap_err().to_string();
        assert!(
            error.starts_with("host slice `left` has CPU 1023, which this server cannot use: it has 0"),
            "{error}"
        );
    }
}
