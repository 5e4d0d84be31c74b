//! `POST /containers/{id}/update`: what of a HostConfig can change after creation.

use super::shape::view;
use crate::call::{Answer, Call};
use crate::create::fields::{self, NO_SWAP, Rule, Rule::Discarded, Rule::Mapped};
use crate::create::{cpu, process, restart};
use crate::error::ApiError;
use crate::json::{self, Fields, is_empty};
use crate::{body, reply};
use bulkhead_engine::Update;
use bulkhead_model::Container;
use serde_json::{Map, Value, json};

const FIXED: &str = "cannot be changed by an update";
const AS_AT_CREATE: &str = "it means nothing for a machine";

pub const FIELDS: &[(&str, Rule)] = &[
    ("RestartPolicy", Mapped),
    ("NanoCpus", Mapped),
    ("CpuPeriod", Mapped),
    ("CpuQuota", Mapped),
    ("Memory", Mapped),
    ("MemorySwap", Mapped),
    ("CpuShares", Discarded(AS_AT_CREATE)),
    ("CgroupParent", Discarded(AS_AT_CREATE)),
    ("BlkioWeight", Discarded(AS_AT_CREATE)),
    ("BlkioWeightDevice", Discarded(AS_AT_CREATE)),
    ("BlkioDeviceReadBps", Discarded(AS_AT_CREATE)),
    ("BlkioDeviceWriteBps", Discarded(AS_AT_CREATE)),
    ("BlkioDeviceReadIOps", Discarded(AS_AT_CREATE)),
    ("BlkioDeviceWriteIOps", Discarded(AS_AT_CREATE)),
    ("CpuRealtimePeriod", Discarded(AS_AT_CREATE)),
    ("CpuRealtimeRuntime", Discarded(AS_AT_CREATE)),
    ("CpusetCpus", Mapped),
    ("CpusetMems", Discarded(AS_AT_CREATE)),
    ("Devices", Rule::Refused(FIXED)),
    ("DeviceCgroupRules", Discarded(AS_AT_CREATE)),
    ("DeviceRequests", Rule::Refused(FIXED)),
    ("MemoryReservation", Discarded(AS_AT_CREATE)),
    ("MemorySwappiness", Discarded(NO_SWAP)),
    ("KernelMemory", Rule::Refused(FIXED)),
    ("KernelMemoryTCP", Rule::Refused(FIXED)),
    ("OomKillDisable", Rule::Refused(FIXED)),
    ("Init", Rule::Refused(FIXED)),
    ("PidsLimit", Mapped),
    ("Ulimits", Rule::Refused(FIXED)),
    ("CpuCount", Rule::Refused(FIXED)),
    ("CpuPercent", Rule::Refused(FIXED)),
    ("IOMaximumIOps", Rule::Refused(FIXED)),
    ("IOMaximumBandwidth", Rule::Refused(FIXED)),
];

/// What inspect shows otherwise afterwards; its restart policy is told by the engine.
const SHOWN: [&str; 6] = ["NanoCpus", "CpuPeriod", "CpuQuota", "CpusetCpus", "Memory", "MemorySwap"];
/// What together says how much CPU time there is.
const CPU: [&str; 4] = ["NanoCpus", "CpuPeriod", "CpuQuota", "CpusetCpus"];

pub async fn post(mut call: Call) -> Answer {
    let bytes = body::json(&mut call).await?;
    let (fields, mut warnings) = fields(&bytes)?;
    cpu::memory_bytes(&fields, &mut warnings)?;
    let change = |container: &Container| read(&fields, view(container, "HostConfig"));
    warnings.extend(call.engine().update::<ApiError>(&call.session, &call.name, change).await?);
    reply::ok(&json!({ "Warnings": warnings }))
}

fn fields(body: &[u8]) -> Result<(Fields, Vec<String>), ApiError> {
    let fields = Fields::of("", json::parse(body)?)?;
    let warnings = fields::check("", &fields, FIELDS)?;
    Ok((fields, warnings))
}

/// What is asked for of a container whose HostConfig is `now`.
fn read(fields: &Fields, now: &Value) -> Result<Update, ApiError> {
    let mut client_view = Map::new();
    let discarded = FIELDS.iter().filter(|(_, rule)| matches!(rule, Discarded(_))).map(|(name, _)| *name);
    for name in SHOWN.into_iter().chain(discarded) {
        let value = fields.get(name);
        if !is_empty(value) {
            client_view.insert(name.to_owned(), value.clone());
        }
    }
    // One way of saying it replaces the other.
    if client_view.contains_key("NanoCpus") {
        client_view.extend(["CpuPeriod", "CpuQuota"].map(|name| (name.to_owned(), Value::from(0))));
    } else if client_view.contains_key("CpuQuota") {
        client_view.insert("NanoCpus".to_owned(), Value::from(0));
    }
    // Any number says something, zero as well.
    let pids = fields.integer("PidsLimit")?;
    if let Some(limit) = pids {
        client_view.insert("PidsLimit".to_owned(), if limit > 0 { limit.into() } else { Value::Null });
    }
    Ok(Update {
        restart: restart::policy("", fields)?,
        cpu_milli: cpu_milli(fields, &client_view, now)?,
        memory_bytes: cpu::memory_bytes(fields, &mut Vec::new())?,
        pids_max: pids.map(|_| process::pids_max(fields)).transpose()?.map(Option::unwrap_or_default),
        client_view,
    })
}

/// `None` if nothing is said of it. What is not said stays, and counts.
fn cpu_milli(fields: &Fields, view: &Map<String, Value>, now: &Value) -> Result<Option<u32>, ApiError> {
    if CPU.iter().all(|name| is_empty(fields.get(name))) {
        return Ok(None);
    }
    let of = |name: &str| view.get(name).or_else(|| now.get(name)).cloned().unwrap_or(Value::Null);
    let merged: Map<String, Value> = CPU.iter().map(|name| ((*name).to_owned(), of(name))).collect();
    Ok(Some(cpu::cpu_milli(&Fields::of("", merged.into())?)?.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::RestartPolicy;

    fn update(body: &str, now: Value) -> Result<Update, String> {
        let (fields, _) = fields(body.as_bytes()).map_err(|error| error.message)?;
        read(&fields, &now).map_err(|error| error.message)
    }

    #[test]
    fn an_update_is_read() {
        let told = r#"{"Memory":0,"NanoCpus":500000000,"RestartPolicy":{"Name":"always"}}"#;
        let read = update(told, json!({})).unwrap();
        assert_eq!((read.cpu_milli, read.memory_bytes), (Some(500), None));
        assert_eq!(read.restart, Some(RestartPolicy::Always));
        assert_eq!(read.client_view["CpuQuota"], 0);
        // As the CLI sends it: every field, most of them empty.
        let empty = r#"{"CpuShares":0,"Devices":null,"RestartPolicy":{"Name":"","MaximumRetryCount":0},"PidsLimit":null}"#;
        assert_eq!(update(empty, json!({"NanoCpus": 5})).unwrap(), Update::default());
        let (fields, warnings) = fields(br#"{"CpuShares":5}"#).unwrap();
        assert_eq!(super::read(&fields, &json!({})).unwrap().client_view["CpuShares"], 5);
        assert_eq!(warnings, ["CpuShares discarded: it means nothing for a machine"]);
    }

    #[test]
    fn a_limit_of_processes_is_lifted_by_any_number_that_is_none() {
        for (body, expect, shown) in [("7", 7, json!(7)), ("0", 0, Value::Null), ("-1", 0, Value::Null)] {
            let read = update(&format!(r#"{{"PidsLimit":{body}}}"#), json!({"PidsLimit": 5})).unwrap();
            assert_eq!((read.pids_max, &read.client_view["PidsLimit"]), (Some(expect), &shown), "{body}");
        }
    }

    #[test]
    fn what_is_not_said_of_cpus_counts_as_it_was() {
        for (body, now, expect) in [
            (r#"{"CpusetCpus":"0-1"}"#, json!({}), 2000),
            (r#"{"CpusetCpus":"0-1"}"#, json!({"NanoCpus": 500_000_000}), 500),
            (r#"{"NanoCpus":3000000000}"#, json!({"CpusetCpus": "1"}), 1000),
            (r#"{"NanoCpus":1500000000}"#, json!({"CpuQuota": 50_000, "CpuPeriod": 100_000}), 1500),
            (r#"{"CpuQuota":50000}"#, json!({"NanoCpus": 2_000_000_000, "CpuPeriod": 0}), 500),
            (r#"{"CpuQuota":50000}"#, json!({"CpuPeriod": 25_000}), 2000),
            // No limit any more: as much as the VCH gives.
            (r#"{"CpuQuota":-1}"#, json!({"CpuQuota": 50_000}), 0),
        ] {
            assert_eq!(update(body, now.clone()).unwrap().cpu_milli, Some(expect), "{body} on {now}");
        }
    }

    #[test]
    fn what_cannot_change_is_refused_by_name() {
        for (body, text) in [
            (
                r#"{"CpuRealtimeRuntime":5,"OomKillDisable":true}"#,
                "bulkhead: OomKillDisable cannot be changed",
            ),
            (r#"{"Devices":[{}]}"#, "Devices cannot be changed"),
            (r#"{"CpusetCpus":"x"}"#, "Invalid value x for cpuset cpus"),
            (r#"{"Privileged":true}"#, "bulkhead: Privileged is not known"),
        ] {
            let error = update(body, json!({})).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
