//! Limits inside the machine: memory, so that the kernel ends the container's process and not the agent; the quota of
//! a vCPU; the number of processes; and which devices may be opened.

use crate::failure::{Doing, Failure};
use crate::sys;
use bulkhead_guest_protocol::message::Interior;
use bulkhead_guest_protocol::watch::{FIGURES_MAX, Usage};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

const ROOT: &str = "/cgroup/unified";
const WORKLOAD: &str = "/cgroup/unified/container";
const DEVICES: &str = "/cgroup/devices/container";
/// For the kernel and the agent beside the container.
const MEMORY_RESERVE_BYTES: u64 = 8 << 20;
/// Docker's least.
const MEMORY_BYTES_MIN: u64 = 6 << 20;
const PERIOD_US: u64 = 100_000;
const FREEZE_MAX: Duration = Duration::from_secs(5);

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
    let available =
        meminfo_bytes(&fs::read_to_string("/proc/meminfo").doing("read the memory's size")?, "MemAvailable:");
    let most = available.saturating_sub(MEMORY_RESERVE_BYTES);
    let asked = if interior.memory_bytes == 0 { most } else { interior.memory_bytes };
    set("memory.max", &asked.min(most).max(MEMORY_BYTES_MIN).to_string())?;
    if interior.pids_max > 0 {
        set("pids.max", &interior.pids_max.to_string())?;
    }
    if interior.cpu_quota_milli > 0 {
        set_cpu_quota(interior.cpu_quota_milli)?;
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

/// In thousandths of a vCPU; 0: none.
pub fn set_cpu_quota(milli: u32) -> Result<(), Failure> {
    set("cpu.max", &cpu_max(milli))
}

fn cpu_max(milli: u32) -> String {
    let quota = if milli == 0 { "max".to_owned() } else { (u64::from(milli) * PERIOD_US / 1000).to_string() };
    format!("{quota} {PERIOD_US}")
}

/// Whether the kernel killed something in the container for want of memory.
pub fn oom_killed() -> bool {
    fs::read_to_string(format!("{WORKLOAD}/memory.events")).is_ok_and(|events| counted_oom(&events))
}

/// Lets the container's processes stand still, or go on. What does not obey, in time, is a matter of chance anyway.
pub fn freeze(still: bool) -> Result<(), Failure> {
    set("cgroup.freeze", if still { "1" } else { "0" })
}

/// Returns when they stand still, or do not within a while.
pub fn await_frozen() {
    let by = Instant::now() + FREEZE_MAX;
    let Ok(mut file) = File::open(format!("{WORKLOAD}/cgroup.events")) else { return };
    loop {
        let mut events = String::new();
        // What happens after it was read is what poll(2) tells of.
        let read = file.rewind().and_then(|()| file.read_to_string(&mut events));
        let left = by.saturating_duration_since(Instant::now());
        if read.is_err() || left.is_zero() || events.lines().any(|line| line == "frozen 1") {
            return;
        }
        let mut changed = [libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLPRI, revents: 0 }];
        sys::poll(&mut changed, libc::c_int::try_from(left.as_millis()).unwrap_or(libc::c_int::MAX).max(1));
    }
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

/// What the container's group has taken.
pub fn usage(usage: &mut Usage) -> std::io::Result<()> {
    let read = |name: &str| fs::read_to_string(format!("{WORKLOAD}/{name}"));
    let cpu = read("cpu.stat")?;
    let nanoseconds = |name| figure(&cpu, name).saturating_mul(1000);
    (usage.cpu_ns, usage.user_ns) = (nanoseconds("usage_usec"), nanoseconds("user_usec"));
    (usage.kernel_ns, usage.throttled_ns) = (nanoseconds("system_usec"), nanoseconds("throttled_usec"));
    (usage.periods, usage.throttled_periods) = (figure(&cpu, "nr_periods"), figure(&cpu, "nr_throttled"));
    usage.memory_bytes = number(&read("memory.current")?);
    usage.memory_limit_bytes = number(&read("memory.max")?);
    usage.memory = figures(&read("memory.stat")?).take(FIGURES_MAX).collect();
    usage.pids = number(&read("pids.current")?);
    usage.pids_limit = number(&read("pids.max")?);
    Ok(())
}

/// `max` is 0.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// Lines of a name and a number.
fn figures(text: &str) -> impl Iterator<Item = (String, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    })
}

fn figure(text: &str, wanted: &str) -> u64 {
    figures(text).find(|(name, _)| name == wanted).map_or(0, |(_, value)| value)
}

pub fn meminfo_bytes(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_part_of_a_period() {
        assert_eq!(cpu_max(500), "50000 100000");
        assert_eq!(cpu_max(1500), "150000 100000");
        assert_eq!(cpu_max(0), "max 100000");
    }

    #[test]
    fn figures_of_the_kernel_are_read() {
        let meminfo = "MemTotal:  999 kB\nMemAvailable:     484 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable:"), 484 * 1024);
        assert_eq!(meminfo_bytes("", "MemTotal:"), 0);
        assert_eq!((number("max\n"), number("12\n")), (0, 12));
        assert_eq!(figure("usage_usec 7\nuser_usec 3\n", "user_usec"), 3);
        assert!(counted_oom("low 0\noom 2\noom_kill 2\noom_group_kill 0\n"));
        assert!(!counted_oom("low 0\noom 2\noom_kill 0\n"));
    }
}
