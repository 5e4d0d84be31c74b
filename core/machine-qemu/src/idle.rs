//! How many of the host's CPUs have nothing to do.

use std::fs;

/// What the host's CPUs have done since it booted, all together (proc_stat(5), first line).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticks {
    idle: u64,
    all: u64,
    cpus: u32,
}

impl Ticks {
    /// `None`: the kernel does not tell.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let fields = lines.next()?.strip_prefix("cpu ")?.split_whitespace();
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in the first two.
        let fields: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let cpus = lines.take_while(|line| line.starts_with("cpu")).count();
        Some(Self {
            idle: fields.get(3)?.saturating_add(*fields.get(4)?),
            all: fields.iter().sum(),
            cpus: u32::try_from(cpus).ok()?,
        })
    }
}

/// Mean of the CPUs that were idle between two looks; 0 if nobody knows.
pub(crate) fn cpus(before: Option<Ticks>, after: Option<Ticks>) -> f64 {
    let (Some(before), Some(after)) = (before, after) else { return 0.0 };
    let all = after.all.saturating_sub(before.all);
    if all == 0 {
        return 0.0;
    }
    let idle = after.idle.saturating_sub(before.idle);
    f64::from(after.cpus) * (idle as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_what_the_kernel_counts_as_idle_or_waiting() {
        let stat =
            |fields: &str| Ticks::parse(&format!("cpu  {fields}\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\nintr 5\n"));
        let before = stat("100 0 100 1000 0 0 0 0 50 0");
        assert_eq!(before, Some(Ticks { idle: 1000, all: 1200, cpus: 4 }));
        // Of 400 ticks on four CPUs, 300 had nothing to do.
        let after = stat("150 0 150 1200 100 0 0 0 90 0");
        assert!((cpus(before, after) - 3.0).abs() < 1e-9);
        assert!(cpus(before, before) < 1e-9 && cpus(None, after) < 1e-9);
        assert_eq!(Ticks::parse("cpu  1 2 x"), None);
        assert!(Ticks::now().is_some_and(|now| now.cpus > 0 && now.idle <= now.all));
    }
}
