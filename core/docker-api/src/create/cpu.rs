//! CPU and memory as Docker's clients ask for them.

use crate::error::ApiError;
use crate::json::Fields;

/// Docker's smallest share of a CPU: 0.01.
const NANO_CPUS_MIN: i64 = 10_000_000;
const PERIOD_US_DEFAULT: i64 = 100_000;

/// Thousandths of a vCPU, from `NanoCpus` or from `CpuQuota` and `CpuPeriod` (microseconds); `None` where nothing was
/// asked for. Rounded up.
pub fn cpu_milli(host: &Fields) -> Result<Option<u32>, ApiError> {
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

/// Bytes; `None` where nothing was asked for. A guest has no swap, so `MemorySwap` may only be what means none, what
/// Docker makes of an absent value, or "unlimited".
pub fn memory_bytes(host: &Fields) -> Result<Option<u64>, ApiError> {
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
        return Err(ApiError::bad(format!(
            "bulkhead: HostConfig.MemorySwap is not supported: a machine has no swap: got {swap}"
        )));
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
        for wrong in [
            json!({"NanoCpus": 1}),
            json!({"NanoCpus": -5}),
            json!({"NanoCpus": 1_000_000_000, "CpuPeriod": 1000}),
            json!({"CpuQuota": 10}),
            json!({"CpuPeriod": 10}),
            json!({"CpuQuota": i64::MAX, "CpuPeriod": 1000}),
        ] {
            assert!(milli(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn swap_is_what_a_guest_has() {
        let bytes = |value| memory_bytes(&host(value)).map_err(|error| error.message);
        assert_eq!(bytes(json!({})), Ok(None));
        assert_eq!(bytes(json!({"Memory": 64 << 20})), Ok(Some(64 << 20)));
        assert_eq!(bytes(json!({"Memory": 64 << 20, "MemorySwap": 128 << 20})), Ok(Some(64 << 20)));
        assert_eq!(bytes(json!({"Memory": 64 << 20, "MemorySwap": -1})), Ok(Some(64 << 20)));
        assert!(bytes(json!({"Memory": -1})).is_err());
        assert!(bytes(json!({"MemorySwap": 1 << 30})).is_err());
        assert!(bytes(json!({"Memory": 64 << 20, "MemorySwap": 1 << 30})).is_err());
    }
}
