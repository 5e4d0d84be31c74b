//! Limits inside the machine: memory, so that the kernel ends the container's process and not the agent; the quota of
//! a vCPU; the number of processes; and which devices may be opened.

use crate::failure::{Doing, Failure};
use crate::{devices, memory, sys};
use bulkhead_guest_protocol::message::{Interior, Limits};
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

/// What the machine began with.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The most that a container's processes can have of its memory.
    memory_bytes: u64,
    /// That many blocks of memory.
    blocks: u64,
}

/// The container's groups.
#[derive(Debug)]
pub struct Groups {
    /// Where a process writes `0` to come under the limits.
    pub entrances: Vec<File>,
    ready: Ready,
}

/// Makes groups for a container, any container.
pub fn prepare() -> Result<Ready, Failure> {
    mount("cgroup2", ROOT, "")?;
    fs::write(format!("{ROOT}/cgroup.subtree_control"), "+memory +cpu +pids").doing("use the controllers")?;
    // The second version of cgroups would need a program in the kernel for this.
    mount("cgroup", "/cgroup/devices", "devices")?;
    make()?;
    let available =
        meminfo_bytes(&fs::read_to_string("/proc/meminfo").doing("read the memory's size")?, "MemAvailable:");
    let memory_bytes = available.saturating_sub(MEMORY_RESERVE_BYTES).max(MEMORY_BYTES_MIN);
    let blocks = memory::blocks().doing("look at the memory")?;
    Ok(Ready { memory_bytes, blocks })
}

fn make() -> Result<(), Failure> {
    for group in [WORKLOAD, DEVICES] {
        fs::create_dir_all(group).doing("make the container's group")?;
    }
    fs::write(format!("{DEVICES}/devices.deny"), "a").doing("deny devices")?;
    DEVICES_ALLOWED.into_iter().try_for_each(allow)
}

/// Makes the groups anew, in which nothing is any more: what was counted there is forgotten.
pub fn renew() -> Result<(), Failure> {
    for group in [WORKLOAD, DEVICES] {
        fs::remove_dir(group).doing("remove a group")?;
    }
    make()
}

impl Ready {
    /// The groups, with the limits of this container. Nothing has been in them, but for a rehearsal.
    pub fn groups(self, interior: &Interior) -> Result<Groups, Failure> {
        let mut groups = Groups { entrances: vec![entrance(WORKLOAD)?], ready: self };
        let limits = &interior.limits;
        match limits.plugged_bytes {
            0 => groups.set(limits, self.memory_bytes)?,
            _ => groups.limit(limits)?,
        }
        if !interior.privileged {
            devices::rules(interior).iter().try_for_each(|device| allow(device))?;
            groups.entrances.push(entrance(DEVICES)?);
        }
        Ok(groups)
    }
}

impl Groups {
    /// From now on. Memory comes first, as the one that can be refused.
    pub fn limit(&self, limits: &Limits) -> Result<(), Failure> {
        let plugged_bytes = memory::plugged(self.ready.blocks).doing("take new memory")?;
        if plugged_bytes < limits.plugged_bytes {
            let missing = limits.plugged_bytes - plugged_bytes;
            return Err(Failure::internal(format!(
                "{missing} bytes of the machine's memory are not there yet"
            )));
        }
        // The kernel keeps 64 bytes of each page for itself.
        let most = self.ready.memory_bytes + (plugged_bytes - plugged_bytes / 64);
        make_room(memory_max(limits, most))?;
        self.set(limits, most)
    }

    fn set(&self, limits: &Limits, most_bytes: u64) -> Result<(), Failure> {
        set("memory.max", &memory_max(limits, most_bytes).to_string())?;
        let pids = if limits.pids_max == 0 { "max".to_owned() } else { limits.pids_max.to_string() };
        set("pids.max", &pids)?;
        set("cpu.max", &cpu_max(limits.cpu_quota_milli))
    }
}

fn memory_max(limits: &Limits, most_bytes: u64) -> u64 {
    if limits.memory_bytes == 0 { most_bytes } else { limits.memory_bytes.min(most_bytes) }
}

/// A limit below what is held would have the kernel kill somebody. What can be read again is given back first.
fn make_room(memory_bytes: u64) -> Result<(), Failure> {
    let held = || -> Result<u64, Failure> {
        Ok(number(&fs::read_to_string(format!("{WORKLOAD}/memory.current")).doing("read the memory in use")?))
    };
    let over = held()?.saturating_sub(memory_bytes);
    if over > 0 {
        // It fails where not all of that can be given back; what matters is what is held then.
        let _ = set("memory.reclaim", &over.to_string());
    }
    match held()? {
        used if used > memory_bytes => Err(Failure::internal(format!(
            "unable to set memory limit to {memory_bytes} (current usage: {used})"
        ))),
        _ => Ok(()),
    }
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

fn allow(device: &str) -> Result<(), Failure> {
    fs::write(format!("{DEVICES}/devices.allow"), device).doing("allow devices")
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
