//! `POST /containers/{id}/update`: what of a HostConfig can change after creation.

use crate::call::{Answer, Call};
use crate::create::fields::{self, NO_SWAP, Rule, Rule::Discarded, Rule::Mapped};
use crate::create::{cpu, restart};
use crate::error::ApiError;
use crate::json::{self, Fields, is_empty};
use crate::{body, reply};
use bulkhead_engine::Update;
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
    ("CpusetCpus", Rule::Refused(FIXED)),
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
    ("PidsLimit", Rule::Refused(FIXED)),
    ("Ulimits", Rule::Refused(FIXED)),
    ("CpuCount", Rule::Refused(FIXED)),
    ("CpuPercent", Rule::Refused(FIXED)),
    ("IOMaximumIOps", Rule::Refused(FIXED)),
    ("IOMaximumBandwidth", Rule::Refused(FIXED)),
];

/// What inspect shows otherwise afterwards; its restart policy is told by the engine.
const SHOWN: [&str; 5] = ["NanoCpus", "CpuPeriod", "CpuQuota", "Memory", "MemorySwap"];

pub async fn post(mut call: Call) -> Answer {
    let bytes = body::json(&mut call).await?;
    let (update, warnings) = read(&bytes)?;
    call.engine().update(&call.session, &call.name, &update).await?;
    reply::ok(&json!({ "Warnings": warnings }))
}

fn read(body: &[u8]) -> Result<(Update, Vec<String>), ApiError> {
    let fields = Fields::of("", json::parse(body)?)?;
    let mut warnings = fields::check("", &fields, FIELDS)?;
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
    let update = Update {
        restart: restart::policy("", &fields)?,
        cpu_milli: cpu::cpu_milli(&fields)?,
        memory_bytes: cpu::memory_bytes(&fields, &mut warnings)?,
        client_view,
    };
    Ok((update, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::RestartPolicy;

    #[test]
    fn an_update_is_read() {
        let (update, _) =
            read(br#"{"Memory":0,"NanoCpus":500000000,"RestartPolicy":{"Name":"always"}}"#).unwrap();
        assert_eq!((update.cpu_milli, update.memory_bytes), (Some(500), None));
        assert_eq!(update.restart, Some(RestartPolicy::Always));
        assert_eq!(update.client_view["CpuQuota"], 0);
        // As the CLI sends it: every field, most of them empty.
        let update =
            read(br#"{"CpuShares":0,"Devices":null,"RestartPolicy":{"Name":"","MaximumRetryCount":0}}"#);
        assert_eq!(update.unwrap(), (Update::default(), Vec::new()));
        let (update, warnings) = read(br#"{"CpuShares":5}"#).unwrap();
        assert_eq!(update.client_view["CpuShares"], 5);
        assert_eq!(warnings, ["CpuShares discarded: it means nothing for a machine"]);
    }

    #[test]
    fn what_cannot_change_is_refused_by_name() {
        for (body, text) in [
            (
                r#"{"CpuRealtimeRuntime":5,"PidsLimit":5}"#,
                "bulkhead: PidsLimit cannot be changed by an update: got 5",
            ),
            (r#"{"CpusetCpus":"0"}"#, "CpusetCpus cannot be changed"),
            (r#"{"Privileged":true}"#, "bulkhead: Privileged is not known"),
        ] {
            let error = read(body.as_bytes()).unwrap_err().message;
            assert!(error.contains(text), "{error}");
        }
    }
}
