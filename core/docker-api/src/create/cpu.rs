//! CPU and memory as Docker's clients ask for them.

use super::fields::NO_SWAP;
use crate::error::ApiError;
use crate::json::Fields;
use crate::query::clip;
use std::collections::BTreeSet;

/// Docker's smallest share of a CPU: 0.01.
const NANO_CPUS_MIN: i64 = 10_000_000;
const PERIOD_US_DEFAULT: i64 = 100_000;

/// More than any host has; Linux's own limit is lower.
const CPU_NUMBER_MAX: u32 = 8191;

/// Thousandths of a vCPU, from `NanoCpus` or from `CpuQuota` and `CpuPeriod` (microseconds), and no more than are in
/// `CpusetCpus`: which of the host's they are says nothing about a machine, how many does. `None` where nothing was
/// asked for. Rounded up.
pub fn cpu_milli(host: &Fields) -> Result<Option<u32>, ApiError> {
    let time = cpu_time_milli(host)?;
    let text = host.text("CpusetCpus")?.unwrap_or_default();
    if text.is_empty() {
        return Ok(time);
    }
    let invalid = || ApiError::bad(format!("Invalid value {} for cpuset cpus", clip(&text)));
    let set = cpu_set(&text).ok_or_else(invalid)?;
    let in_set = u32::try_from(set.len()).map_err(|_| invalid())? * 1000;
    Ok(Some(time.map_or(in_set, |time| time.min(in_set))))
}

/// A list of numbers and ranges as in cpuset(7), `0-2,4`.
fn cpu_set(text: &str) -> Option<BTreeSet<u32>> {
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > CPU_NUMBER_MAX {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

fn cpu_time_milli(host: &Fields) -> Result<Option<u32>, ApiError> {
    let number = |name| host.integer(name).map(|value| value.unwrap_or(0));
    let (nano, quota, period) = (number("NanoCpus")?, number("CpuQuota")?, number("CpuPeriod")?);
    if nano != 0 && (quota != 0 || period != 0) {
        let other = if quota != 0 { "CPU Quota" } else { "CPU Period" };
        return Err(ApiError::bad(format!("Conflicting options: Nano CPUs and {other} cannot both be set.")));
    }
    if period != 0 && !(1_000..=1_000_000).contains(&period) {
        return Err(ApiError::bad(
            "CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if quota > 0 && quota < 1_000 {
        return Err(ApiError::bad("CPU cfs quota cannot be less than 1ms (i.e. 1000)"));
    }
    let milli = if nano != 0 {
        if nano < NANO_CPUS_MIN {
            return Err(ApiError::bad(format!(
                "invalid NanoCpus {nano}: the least is {NANO_CPUS_MIN} (0.01 CPUs)"
            )));
        }
        nano / 1_000_000 + i64::from(nano % 1_000_000 != 0)
    } else if quota > 0 {
        let period = if period == 0 { PERIOD_US_DEFAULT } else { period };
        quota.saturating_mul(1000) / period + i64::from(quota.saturating_mul(1000) % period != 0)
    } else {
        // A negative quota means "no limit", which is what the VCH's default decides.
        return Ok(None);
    };
    match u32::try_from(milli) {
        Ok(milli) => Ok(Some(milli)),
        Err(_) => Err(ApiError::bad(format!("that many CPUs cannot be had: {}", milli / 1000))),
    }
}

/// Bytes; `None` where nothing was asked for. A guest has no swap: a `MemorySwap` that is not what Docker makes of an
/// absent value gets a warning.
pub fn memory_bytes(host: &Fields, warnings: &mut Vec<String>) -> Result<Option<u64>, ApiError> {
    let memory = host.integer("Memory")?.unwrap_or(0);
    let swap = host.integer("MemorySwap")?.unwrap_or(0);
    let Ok(bytes) = u64::try_from(memory) else {
        return Err(ApiError::bad(format!("invalid memory limit {memory}")));
    };
    if swap > 0 && memory == 0 {
        return Err(ApiError::bad(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if swap > 0 && swap < memory {
        return Err(ApiError::bad("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if swap > 0 && swap != memory && swap != memory.saturating_mul(2) {
        warnings.push(format!("HostConfig.MemorySwap discarded: {NO_SWAP}"));
    }
    Ok((bytes > 0).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn host(value: serde_json::Value) -> Fields {
        Fields::of("HostConfig.", value).unwrap()
    }

    #[test]
    fn cpus_become_thousandths() {
        let milli = |value| cpu_milli(&host(value)).map_err(|error| error.message);
        assert_eq!(milli(json!({})), Ok(None));
        assert_eq!(milli(json!({"NanoCpus": 1_500_000_000})), Ok(Some(1500)));
        assert_eq!(milli(json!({"NanoCpus": 10_000_001})), Ok(Some(11)));
        assert_eq!(milli(json!({"CpuQuota": 50_000})), Ok(Some(500)));
        assert_eq!(milli(json!({"CpuQuota": 50_000, "CpuPeriod": 25_000})), Ok(Some(2000)));
        assert_eq!(milli(json!({"CpuQuota": -1})), Ok(None));
        assert_eq!(milli(json!({"CpusetCpus": "0,1"})), Ok(Some(2000)));
        assert_eq!(milli(json!({"CpusetCpus": "0-2,2,7"})), Ok(Some(4000)));
        assert_eq!(milli(json!({"CpusetCpus": "0-3", "NanoCpus": 1_500_000_000})), Ok(Some(1500)));
        assert_eq!(milli(json!({"CpusetCpus": "3", "NanoCpus": 1_500_000_000})), Ok(Some(1000)));
        for wrong in [
            json!({"NanoCpus": 1}),
            json!({"NanoCpus": -5}),
            json!({"NanoCpus": 1_000_000_000, "CpuPeriod": 1000}),
            json!({"CpuQuota": 10}),
            json!({"CpuPeriod": 10}),
            json!({"CpusetCpus": "a"}),
            json!({"CpusetCpus": "2-1"}),
            json!({"CpusetCpus": "0-4294967295"}),
            json!({"CpuQuota": i64::MAX, "CpuPeriod": 1000}),
        ] {
            assert!(milli(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn swap_is_what_a_guest_has() {
        let mut warnings = Vec::new();
        let mut bytes = |value| memory_bytes(&host(value), &mut warnings).map_err(|error| error.message);
        assert_eq!(bytes(json!({})), Ok(None));
        assert_eq!(bytes(json!({"Memory": 64 << 20})), Ok(Some(64 << 20)));
        assert_eq!(bytes(json!({"Memory": 64 << 20, "MemorySwap": 128 << 20})), Ok(Some(64 << 20)));
        assert_eq!(bytes(json!({"Memory": 64 << 20, "MemorySwap": -1})), Ok(Some(64 << 20)));
        assert!(bytes(json!({"Memory": -1})).is_err());
        assert!(bytes(json!({"MemorySwap": 1 << 30})).is_err());
        assert!(bytes(json!({"Memory": 64 << 20, "MemorySwap": 32 << 20})).is_err());
        assert_eq!(bytes(json!({"Memory": 64 << 20, "MemorySwap": 1 << 30})), Ok(Some(64 << 20)));
        assert_eq!(warnings, ["HostConfig.MemorySwap discarded: a machine has no swap"]);
    }
}
