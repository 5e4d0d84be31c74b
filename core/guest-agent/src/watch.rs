//! Facts about the container as the kernel tells them: its processes, and what it takes.

use crate::{cgroup, sys};
use bulkhead_guest_protocol::watch::{
    COMMAND_BYTES_MAX, COMMANDS_BYTES_MAX, DeviceUsage, FIGURES_MAX, InterfaceUsage, PROCESSES_MAX, Process,
    Processes, Traffic, Usage,
};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::sync::OnceLock;
use std::time::Instant;

/// What the kernel counts time in for programs, always (`USER_HZ`).
const TICKS_PER_S: u32 = 100;
const NS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_S as u64;
const PAGE_BYTES: u64 = 4096;
/// What the kernel counts a disk's data in, always.
const SECTOR_BYTES: u64 = 512;

/// All that are in the container, and nothing of the agent.
pub fn processes() -> std::io::Result<Processes> {
    let mut pids: Vec<u32> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
        .collect();
    pids.sort_unstable();
    let mut told = Processes {
        uptime_ticks: uptime_ticks(&fs::read_to_string("/proc/uptime")?),
        ticks_per_s: TICKS_PER_S,
        unix_ns: sys::unix_ns(),
        memory_bytes: cgroup::meminfo_bytes(&fs::read_to_string("/proc/meminfo")?, "MemTotal:"),
        ..Processes::default()
    };
    let (mut numbers, mut bytes) = (HashMap::new(), 0);
    for pid in pids {
        // A process that ends meanwhile is not there.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let Some(inner) = inner_pid(&status) else { continue };
        numbers.insert(pid, inner);
        if told.list.len() >= PROCESSES_MAX {
            told.left_off += 1;
            continue;
        }
        let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { continue };
        let Some(mut process) = parse_stat(&String::from_utf8_lossy(&stat)) else { continue };
        process.pid = inner;
        (process.uid, process.gid) = (effective(&status, "Uid:"), effective(&status, "Gid:"));
        if bytes < COMMANDS_BYTES_MAX {
            process.command = command(pid);
            bytes += process.command.len();
        }
        told.list.push(process);
    }
    for process in &mut told.list {
        for number in [&mut process.parent, &mut process.group, &mut process.session] {
            *number = numbers.get(number).copied().unwrap_or(0);
        }
    }
    Ok(told)
}

/// Its number in the container's own list; `None`: it is not in it.
fn inner_pid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// The second of four ids.
fn effective(status: &str, name: &str) -> u32 {
    let ids = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    ids.split_whitespace().nth(1).and_then(|id| id.parse().ok()).unwrap_or(0)
}

/// The name stands in parentheses and may hold any.
fn parse_stat(stat: &str) -> Option<Process> {
    let (before, rest) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    // Numbers of proc(5), less 3.
    let number = |at: usize| word(at).parse::<u64>().unwrap_or(0);
    let small = |at: usize| u32::try_from(number(at)).unwrap_or(0);
    Some(Process {
        pid: 0,
        parent: small(1),
        group: small(2),
        session: small(3),
        uid: 0,
        gid: 0,
        terminal: small(4),
        state: word(0).bytes().next().unwrap_or(b'?'),
        foreground: word(5) == word(2),
        nice: word(16).parse().unwrap_or(0),
        threads: small(17),
        started_ticks: number(19),
        cpu_ticks: number(11).saturating_add(number(12)),
        virtual_bytes: number(20),
        resident_bytes: number(21).saturating_mul(PAGE_BYTES),
        name: name.to_owned(),
        command: String::new(),
    })
}

fn command(pid: u32) -> String {
    let mut bytes = Vec::new();
    let most = u64::try_from(COMMAND_BYTES_MAX).unwrap_or(0);
    // A zombie has none, and one that ends meanwhile needs none.
    let _ =
        File::open(format!("/proc/{pid}/cmdline")).and_then(|file| file.take(most).read_to_end(&mut bytes));
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    String::from_utf8_lossy(words).replace('\0', " ")
}

fn uptime_ticks(uptime: &str) -> u64 {
    let (seconds, hundredths) =
        uptime.split_whitespace().next().unwrap_or_default().split_once('.').unwrap_or_default();
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    number(seconds) * u64::from(TICKS_PER_S) + number(hundredths)
}

/// The container's group and the machine it is alone in, read at one time.
pub fn usage() -> std::io::Result<Usage> {
    let mut usage = Usage { cpus: cpus(&fs::read_to_string("/proc/stat")?), ..Usage::default() };
    cgroup::usage(&mut usage)?;
    usage.system_ns = uptime_ns()?.saturating_mul(u64::from(usage.cpus));
    usage.devices = disks(&fs::read_to_string("/proc/diskstats")?);
    usage.interfaces = interfaces(&fs::read_to_string("/proc/net/dev")?, |name| {
        fs::exists(format!("/sys/class/net/{name}/device")).unwrap_or(false)
    });
    Ok(usage)
}

/// Those that are devices of the machine: others lead nowhere but into it.
fn interfaces(dev: &str, is_device: impl Fn(&str) -> bool) -> Vec<InterfaceUsage> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let name = name.trim();
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let traffic = |at: usize| match numbers.get(at..)? {
            [bytes, packets, errors, dropped, ..] => {
                Some(Traffic { bytes: *bytes, packets: *packets, errors: *errors, dropped: *dropped })
            }
            _ => None,
        };
        // Eight figures of what was received stand before those of what was sent.
        let (received, sent) = (traffic(0)?, traffic(8)?);
        is_device(name).then(|| InterfaceUsage { name: name.to_owned(), received, sent })
    };
    dev.lines().filter_map(interface).take(FIGURES_MAX).collect()
}

/// Of the machine, which is the container's alone: its group does not count what is written back later.
fn disks(diskstats: &str) -> Vec<DeviceUsage> {
    let disk = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [major, minor, name, numbers @ ..] = words.as_slice() else { return None };
        let number = |at: usize| numbers.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let (reads, writes) = (number(0), number(4));
        let whole = name.starts_with("sd") && !name.ends_with(|c: char| c.is_ascii_digit());
        (whole && reads + writes > 0).then_some(DeviceUsage {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            read_bytes: number(2).saturating_mul(SECTOR_BYTES),
            write_bytes: number(6).saturating_mul(SECTOR_BYTES),
            reads,
            writes,
        })
    };
    diskstats.lines().filter_map(disk).take(FIGURES_MAX).collect()
}

/// The clock by which the kernel counts the CPU time of groups. The sums in /proc/stat are not of that clock: they count
/// ticks, and a machine whose host is busy loses some.
fn uptime_ns() -> std::io::Result<u64> {
    static FIRST: OnceLock<(u64, Instant)> = OnceLock::new();
    let (base_ns, first) = match FIRST.get() {
        Some(first) => *first,
        None => {
            let base_ns = uptime_ticks(&fs::read_to_string("/proc/uptime")?) * NS_PER_TICK;
            *FIRST.get_or_init(|| (base_ns, Instant::now()))
        }
    };
    Ok(base_ns.saturating_add(u64::try_from(first.elapsed().as_nanos()).unwrap_or(u64::MAX)))
}

fn cpus(stat: &str) -> u32 {
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    u32::try_from(stat.lines().filter(is_cpu).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat =
            "77 (a) b (c) S 1 77 70 34816 77 4194304 100 0 0 0 12 30 0 0 20 -5 3 0 4500 2097152 256 18446";
        let process = parse_stat(stat).unwrap();
        assert_eq!(process.name, "a) b (c");
        assert_eq!((process.parent, process.group, process.session, process.terminal), (1, 77, 70, 34816));
        assert_eq!(
            (process.cpu_ticks, process.nice, process.threads, process.started_ticks),
            (42, -5, 3, 4500)
        );
        assert_eq!((process.virtual_bytes, process.resident_bytes), (2 << 20, 1 << 20));
        assert!(process.foreground && process.state == b'S');
        assert_eq!(parse_stat("77"), None);
    }

    #[test]
    fn the_agent_is_not_in_the_container() {
        assert_eq!(inner_pid("Name:\tsh\nNSpid:\t77\t1\n"), Some(1));
        assert_eq!(inner_pid("NSpid:\t77\t5\t1\n"), Some(5));
        assert_eq!(inner_pid("NSpid:\t1\n"), None);
        assert_eq!(effective("Uid:\t0\t1000\t0\t0\n", "Uid:"), 1000);
    }

    #[test]
    fn disks_are_counted_whole() {
        let text = " 8 16 sdb 3 0 2 0 4 0 6 0 0 0 0\n 8 17 sdb1 3 0 2 0 4 0 6 0 0 0 0\n 8 0 sda 0 0 0 0 0 0 0\n 7 0 loop0 1 0 2\n";
        let expect =
            DeviceUsage { major: 8, minor: 16, read_bytes: 1024, write_bytes: 3072, reads: 3, writes: 4 };
        assert_eq!(disks(text), [expect]);
    }

    #[test]
    fn interfaces_of_the_machine_are_counted() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop|bytes\n\
                    \x20   lo:  90 9 0 0 0 0 0 0  90 9 0 0 0 0 0 0\n  eth0: 70 7 1 2 0 0 0 3 50 5 3 4 0 0 0 0\n";
        let received = Traffic { bytes: 70, packets: 7, errors: 1, dropped: 2 };
        let sent = Traffic { bytes: 50, packets: 5, errors: 3, dropped: 4 };
        let expect = InterfaceUsage { name: "eth0".into(), received, sent };
        assert_eq!(interfaces(text, |name| name != "lo"), [expect]);
        assert_eq!(interfaces("eth0: 1 2 3\n", |_| true), []);
    }

    #[test]
    fn times_of_the_machine() {
        assert_eq!(cpus("cpu  1 2 3\ncpu0 1 2 3\ncpu1 0 0\nintr 9\n"), 2);
        let before = uptime_ns().unwrap();
        assert!(before > 0 && uptime_ns().unwrap() >= before);
        assert_eq!(uptime_ticks("12.34 5.00\n"), 1234);
        assert_eq!(uptime_ticks(""), 0);
    }
}
