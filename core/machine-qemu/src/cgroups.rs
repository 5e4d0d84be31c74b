//! How the host limits a machine: cgroup v2 where its controllers are there, else v1, else nothing.
//!
//! A guest cannot be trusted to keep to its size by itself: its QEMU gets CPU time and memory from a control group
//! `bulkhead/<container id>` that holds nothing else.

use bulkhead_machine::MachineSpec;
use bulkhead_model::ContainerId;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Microseconds over which CPU time is measured out.
const PERIOD_US: u64 = 100_000;
/// What QEMU needs besides the guest's memory: itself, its translation buffer, page cache of its files.
const OVERHEAD_BYTES: u64 = 256 << 20;
const PARENT: &str = "bulkhead";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroups {
    V2 { base: PathBuf },
    V1 { cpu: PathBuf, memory: PathBuf },
    None,
}

/// What a machine has at a time, as its guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) cpu_milli: u32,
    pub(crate) memory_bytes: u64,
}

/// What one machine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) cpu_milli: u64,
    pub(crate) memory_bytes: u64,
}

impl Share {
    /// While it boots a machine may use its vCPUs in full: on a fraction of one, the boot would take many times as long.
    pub(crate) fn booting(spec: &MachineSpec, size: Size) -> Self {
        Self::whole(spec.vcpus, size.memory_bytes)
    }

    pub(crate) fn running(size: Size) -> Self {
        // A quota below this would starve the threads that serve the guest's disks and ports.
        let cpu_milli = u64::from(size.cpu_milli.max(50));
        Self { cpu_milli, memory_bytes: size.memory_bytes.saturating_add(OVERHEAD_BYTES) }
    }

    /// All of that many vCPUs, and that much memory.
    pub(crate) fn whole(vcpus: u32, memory_bytes: u64) -> Self {
        let cpu_milli = u64::from(vcpus) * 1000;
        Self { cpu_milli, memory_bytes: memory_bytes.saturating_add(OVERHEAD_BYTES) }
    }

    fn quota_us(self) -> u64 {
        self.cpu_milli.saturating_mul(PERIOD_US) / 1000
    }
}

impl Cgroups {
    /// What this host has, tried out rather than guessed.
    pub(crate) fn detect(mounted_at: &Path) -> Self {
        let v2 = mounted_at.join(PARENT);
        if mounted_at.join("cgroup.controllers").exists() && prepare_v2(mounted_at, &v2).is_ok() {
            return Cgroups::V2 { base: v2 };
        }
        let (cpu, memory) = (mounted_at.join("cpu").join(PARENT), mounted_at.join("memory").join(PARENT));
        let usable =
            |folder: &Path, file: &str| fs::create_dir_all(folder).is_ok() && folder.join(file).exists();
        if usable(&cpu, "cpu.cfs_quota_us") && usable(&memory, "memory.limit_in_bytes") {
            return Cgroups::V1 { cpu, memory };
        }
        Cgroups::None
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Cgroups::V2 { .. } => "cgroup-v2",
            Cgroups::V1 { .. } => "cgroup-v1",
            Cgroups::None => "none",
        }
    }

    /// Puts the process into a new group of the machine.
    pub(crate) fn enter(&self, id: &ContainerId, share: Share, pid: u32) -> io::Result<()> {
        for folder in self.folders(id) {
            fs::create_dir_all(folder)?;
        }
        self.set(id, share)?;
        for folder in self.folders(id) {
            fs::write(folder.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    /// Changes the shares of a machine that runs.
    pub(crate) fn set(&self, id: &ContainerId, share: Share) -> io::Result<()> {
        match self {
            Cgroups::V2 { base } => {
                let group = base.join(id.as_str());
                fs::write(group.join("cpu.max"), format!("{} {PERIOD_US}", share.quota_us()))?;
                fs::write(group.join("memory.max"), share.memory_bytes.to_string())
            }
            Cgroups::V1 { cpu, memory } => {
                let (cpu, memory) = (cpu.join(id.as_str()), memory.join(id.as_str()));
                fs::write(cpu.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
                fs::write(cpu.join("cpu.cfs_quota_us"), share.quota_us().to_string())?;
                fs::write(memory.join("memory.limit_in_bytes"), share.memory_bytes.to_string())
            }
            Cgroups::None => Ok(()),
        }
    }

    /// Whether the host killed something of this machine because its group was out of memory.
    pub(crate) fn out_of_memory(&self, id: &ContainerId) -> bool {
        let file = match self {
            Cgroups::V2 { base } => base.join(id.as_str()).join("memory.events"),
            Cgroups::V1 { memory, .. } => memory.join(id.as_str()).join("memory.oom_control"),
            Cgroups::None => return false,
        };
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }

    /// Removes the group of a machine that ended; fine if there is none. One that is still busy stays until the next try.
    pub(crate) fn leave(&self, id: &ContainerId) {
        for folder in self.folders(id) {
            if let Err(error) = fs::remove_dir(&folder)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(container.id = %id, %error, "control group stays for now");
            }
        }
    }

    fn folders(&self, id: &ContainerId) -> Vec<PathBuf> {
        match self {
            Cgroups::V2 { base } => vec![base.join(id.as_str())],
            Cgroups::V1 { cpu, memory } => vec![cpu.join(id.as_str()), memory.join(id.as_str())],
            Cgroups::None => Vec::new(),
        }
    }
}

fn prepare_v2(mounted_at: &Path, base: &Path) -> io::Result<()> {
    let offered = fs::read_to_string(mounted_at.join("cgroup.controllers"))?;
    if !["cpu", "memory"].iter().all(|wanted| offered.split_whitespace().any(|one| one == *wanted)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    fs::write(mounted_at.join("cgroup.subtree_control"), "+cpu +memory")?;
    fs::create_dir_all(base)?;
    fs::write(base.join("cgroup.subtree_control"), "+cpu +memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share { cpu_milli: 1500, memory_bytes: 1 << 30 };

    #[test]
    fn a_host_with_version_2_gets_its_files() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("cgroup.controllers"), "cpuset cpu io memory pids").unwrap();
        let groups = Cgroups::detect(host.path());
        assert_eq!(groups.name(), "cgroup-v2");
        let id = ContainerId::from_random([1; 32]);
        groups.enter(&id, SHARE, 42).unwrap();
        let read =
            |file: &str| fs::read_to_string(host.path().join(PARENT).join(id.as_str()).join(file)).unwrap();
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("memory.max"), (1_u64 << 30).to_string());
        assert_eq!(read("cgroup.procs"), "42");
        assert!(!groups.out_of_memory(&id));
        fs::write(host.path().join(PARENT).join(id.as_str()).join("memory.events"), "oom 1\noom_kill 1\n")
            .unwrap();
        assert!(groups.out_of_memory(&id));
    }

    #[test]
    fn without_controllers_nothing_is_limited_and_nothing_fails() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("cgroup.controllers"), "pids").unwrap();
        let groups = Cgroups::detect(&host.path().join("absent"));
        assert_eq!(groups, Cgroups::None);
        assert_eq!(Cgroups::detect(host.path()).name(), "none");
        groups.enter(&ContainerId::from_random([1; 32]), SHARE, 42).unwrap();
        groups.leave(&ContainerId::from_random([1; 32]));
    }
}
