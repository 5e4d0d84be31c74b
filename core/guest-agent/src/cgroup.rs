//! Limits inside the machine: memory, so that the kernel ends the container's process and not the agent; the quota of
//! a vCPU; the number of processes; and which devices may be opened.

use crate::failure::{Doing, Failure};
use crate::sys;
use bulkhead_guest_protocol::message::Interior;
use std::fs::{self, File, OpenOptions};
use std::path::Path;

const ROOT: &str = "/cgroup/unified";
const WORKLOAD: &str = "/cgroup/unified/container";
const DEVICES: &str = "/cgroup/devices/container";
/// For the kernel and the agent beside the container.
const MEMORY_RESERVE_BYTES: u64 = 8 << 20;
const MEMORY_BYTES_MIN: u64 = 16 << 20;
const PERIOD_US: u64 = 100_000;

/// What a container may open without privileges; nodes of any kind may be made, as in Docker.
const DEVICES_ALLOWED: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Where a process writes `0` to come under the limits.
#[derive(Debug)]
pub struct Entrances {
    pub files: Vec<File>,
}

/// Makes the container's groups.
pub fn prepare(interior: &Interior) -> Result<Entrances, Failure> {
    mount("cgroup2", ROOT, "")?;
    fs::write(format!("{ROOT}/cgroup.subtree_control"), "+memory +cpu +pids").doing("use the controllers")?;
    fs::create_dir_all(WORKLOAD).doing("make the container's group")?;
    let available = available_bytes(&fs::read_to_string("/proc/meminfo").doing("read the memory's size")?);
    let limit = available.saturating_sub(MEMORY_RESERVE_BYTES).max(MEMORY_BYTES_MIN);
    set("memory.max", &limit.to_string())?;
    if interior.pids_max > 0 {
        set("pids.max", &interior.pids_max.to_string())?;
    }
    if interior.cpu_quota_milli > 0 {
        let quota_us = u64::from(interior.cpu_quota_milli) * PERIOD_US / 1000;
        set("cpu.max", &format!("{quota_us} {PERIOD_US}"))?;
    }
    let mut files = vec![entrance(WORKLOAD)?];
    if !interior.privileged {
        // The second version of cgroups would need a program in the kernel for this.
        mount("cgroup", "/cgroup/devices", "devices")?;
        fs::create_dir_all(DEVICES).doing("make the container's group")?;
        fs::write(format!("{DEVICES}/devices.deny"), "a").doing("deny devices")?;
        for device in DEVICES_ALLOWED {
            fs::write(format!("{DEVICES}/devices.allow"), device).doing("allow devices")?;
        }
        files.push(entrance(DEVICES)?);
    }
    Ok(Entrances { files })
}

/// Whether the kernel killed something in the container for want of memory.
pub fn oom_killed() -> bool {
    fs::read_to_string(format!("{WORKLOAD}/memory.events")).is_ok_and(|events| counted_oom(&events))
}

fn counted_oom(events: &str) -> bool {
    events.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}

fn mount(kind: &str, target: &str, options: &str) -> Result<(), Failure> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    fs::create_dir_all(target).doing("make a mount point")?;
    sys::mount(kind, Path::new(target), kind, flags, options).doing(format!("mount {kind}"))
}

fn set(name: &str, value: &str) -> Result<(), Failure> {
    fs::write(format!("{WORKLOAD}/{name}"), value).doing(format!("set {name} to {value}"))
}

fn entrance(group: &str) -> Result<File, Failure> {
    OpenOptions::new().write(true).open(format!("{group}/cgroup.procs")).doing("open the container's group")
}

fn available_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_kernel_are_read() {
        assert_eq!(available_bytes("MemTotal:  999 kB\nMemAvailable:     484 kB\n"), 484 * 1024);
        assert_eq!(available_bytes(""), 0);
        assert!(counted_oom("low 0\noom 2\noom_kill 2\noom_group_kill 0\n"));
        assert!(!counted_oom("low 0\noom 2\noom_kill 0\n"));
    }
}
