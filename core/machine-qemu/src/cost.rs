//! What a machine takes of its host, read from `/proc` (proc(5)).

use bulkhead_machine::MachineCost;
use std::fs;
use std::io;
use std::time::Duration;

/// Of the hypervisor process; `None` if there is no such process any more.
pub(crate) fn of(pid: u32) -> io::Result<Option<MachineCost>> {
    match read(pid) {
        Ok(cost) => Ok(Some(cost)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(pid: u32) -> io::Result<MachineCost> {
    let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = |name: &str| field(&memory, name).map(|kib| kib << 10);
    let mut ticks = 0;
    let mut wake_ups = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end while it is looked at.
        let (Ok(stat), Ok(status)) =
            (fs::read_to_string(task.join("stat")), fs::read_to_string(task.join("status")))
        else {
            continue;
        };
        ticks += cpu_ticks(&stat);
        wake_ups += field(&status, "voluntary_ctxt_switches").unwrap_or_default();
    }
    Ok(MachineCost {
        proportional_bytes: kib("Pss")?,
        private_bytes: kib("Private_Clean")?.saturating_add(kib("Private_Dirty")?),
        cpu_time: Duration::from_millis(ticks.saturating_mul(1000) / ticks_per_second()),
        wake_ups,
    })
}

/// The number after `name:`.
fn field(text: &str, name: &str) -> io::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("/proc tells no `{name}`")))
}

/// Fields 14 and 15 of `stat`: time in user mode and in the kernel. The name before them may hold anything.
fn cpu_ticks(stat: &str) -> u64 {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_ascii_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn ticks_per_second() -> u64 {
    let found = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    found.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured() {
        let before = of(std::process::id()).unwrap().unwrap();
        assert!(
            before.private_bytes > 0 && before.proportional_bytes >= before.private_bytes / 2,
            "{before:?}"
        );
        let more = vec![1_u8; 32 << 20];
        let after = of(std::process::id()).unwrap().unwrap();
        assert!(
            after.private_bytes >= before.private_bytes + (more.len() as u64) / 2,
            "{before:?} {after:?}"
        );
        assert_eq!(of(u32::MAX >> 1).unwrap(), None);
    }

    #[test]
    fn a_name_with_parentheses_is_no_number() {
        assert_eq!(cpu_ticks("7 (a) 1 2 (b)) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20"), 42);
    }
}
