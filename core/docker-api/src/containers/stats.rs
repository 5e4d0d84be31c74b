//! `GET /containers/{id}/stats`: what a container takes, in the figures that clients make percentages of.
//!
//! All of them are the guest's: its CPU time against its machine's, so that one clock counts both.

use crate::call::{Answer, Call};
use crate::error::{ApiError, chain};
use crate::reply;
use crate::time::{NEVER, rfc3339};
use crate::version::ApiVersion;
use bulkhead_engine::{EngineError, InterfaceUsage, Sample, Stats, Usage};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Map, Value, json};

pub async fn get(call: Call) -> Answer {
    let mut samples = call.engine().stats(&call.session, &call.name).await?;
    let version = call.version;
    if call.query.flag_or("stream", true) {
        let lines = samples.map(move |stats| line(stats, version));
        return Ok(reply::stream(&call, reply::JSON, lines));
    }
    let gone = || EngineError::NoSuchContainer(call.name.clone());
    let mut stats = samples.next().await.ok_or_else(gone)??;
    // A share needs two samples; what does not run has none to wait for.
    if stats.now.is_some() && !call.query.flag("one-shot") {
        stats = samples.next().await.ok_or_else(gone)??;
    }
    reply::ok(&shape(&stats, version))
}

fn line(stats: Result<Stats, EngineError>, version: ApiVersion) -> Bytes {
    match stats {
        Ok(stats) => reply::line(&shape(&stats, version)),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "stats broke off");
            reply::error_line(&ApiError::from(error))
        }
    }
}

fn shape(stats: &Stats, version: ApiVersion) -> Map<String, Value> {
    let usage = |sample: &Option<Sample>| sample.as_ref().map(|sample| sample.usage.clone());
    let at = |sample: &Option<Sample>| sample.as_ref().map_or_else(|| NEVER.to_owned(), |it| rfc3339(it.at));
    let now = usage(&stats.now);
    let shape = json!({
        "name": format!("/{}", stats.container.name),
        "id": stats.container.id,
        "read": at(&stats.now),
        "preread": at(&stats.before),
        "cpu_stats": cpu(now.as_ref()),
        "precpu_stats": cpu(usage(&stats.before).as_ref()),
        "memory_stats": now.as_ref().map_or_else(|| json!({}), memory),
        "pids_stats": now.as_ref().map_or_else(|| json!({}), pids),
        "blkio_stats": block_devices(now.as_ref()),
        "num_procs": 0,
        "storage_stats": {},
    });
    let mut shape = match shape {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    // Absent where there are none, as with `--network none`.
    if let Some(usage) = now.filter(|usage| !usage.interfaces.is_empty()) {
        shape.insert("networks".into(), networks(&usage));
    }
    if version.since(52) {
        shape.insert("os_type".into(), "linux".into());
    }
    shape
}

fn cpu(usage: Option<&Usage>) -> Value {
    let nothing = Usage::default();
    let of = usage.unwrap_or(&nothing);
    let mut cpu = json!({
        "cpu_usage": {
            "total_usage": of.cpu_ns,
            "usage_in_kernelmode": of.kernel_ns,
            "usage_in_usermode": of.user_ns,
        },
        "throttling_data": {
            "periods": of.periods,
            "throttled_periods": of.throttled_periods,
            "throttled_time": of.throttled_ns,
        },
    });
    // Absent where there is no sample: a zero would be one.
    if let (Some(of), Some(map)) = (usage, cpu.as_object_mut()) {
        map.insert("system_cpu_usage".into(), of.system_ns.into());
        map.insert("online_cpus".into(), of.cpus.into());
    }
    cpu
}

fn memory(usage: &Usage) -> Value {
    let figures: Map<String, Value> =
        usage.memory.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
    json!({ "usage": usage.memory_bytes, "limit": usage.memory_limit_bytes, "stats": figures })
}

fn pids(usage: &Usage) -> Value {
    // No limit is the largest number there is.
    let limit = if usage.pids_limit == 0 { u64::MAX } else { usage.pids_limit };
    json!({ "current": usage.pids, "limit": limit })
}

fn networks(usage: &Usage) -> Value {
    let shape = |interface: &InterfaceUsage| {
        let (received, sent) = (interface.received, interface.sent);
        json!({
            "rx_bytes": received.bytes,
            "rx_packets": received.packets,
            "rx_errors": received.errors,
            "rx_dropped": received.dropped,
            "tx_bytes": sent.bytes,
            "tx_packets": sent.packets,
            "tx_errors": sent.errors,
            "tx_dropped": sent.dropped,
        })
    };
    let all: Map<String, Value> =
        usage.interfaces.iter().map(|interface| (interface.name.clone(), shape(interface))).collect();
    all.into()
}

fn block_devices(usage: Option<&Usage>) -> Value {
    let entries = |values: fn(&bulkhead_engine::DeviceUsage) -> [(&'static str, u64); 2]| match usage {
        None => Value::Null,
        Some(usage) => usage
            .devices
            .iter()
            .flat_map(|device| {
                values(device).map(|(op, value)| {
                    json!({ "major": device.major, "minor": device.minor, "op": op, "value": value })
                })
            })
            .collect(),
    };
    json!({
        "io_service_bytes_recursive":
            entries(|device| [("read", device.read_bytes), ("write", device.write_bytes)]),
        "io_serviced_recursive": entries(|device| [("read", device.reads), ("write", device.writes)]),
        "io_queue_recursive": null,
        "io_service_time_recursive": null,
        "io_wait_time_recursive": null,
        "io_merged_recursive": null,
        "io_time_recursive": null,
        "sectors_recursive": null,
    })
}

#[cfg(test)]
mod tests {
    use super::super::shape::tests::{at, container};
    use super::*;
    use crate::version::NEWEST;
    use bulkhead_engine::{DeviceUsage, Traffic};
    use bulkhead_model::lifecycle::Status;
    use std::sync::Arc;

    fn stats(now: Option<Usage>, before: Option<Usage>) -> Stats {
        let sample = |ago, usage: Option<Usage>| usage.map(|usage| Sample { at: at(ago), usage });
        Stats {
            container: Arc::new(container("web", Status::Created)),
            now: sample(0, now),
            before: sample(1, before),
        }
    }

    #[test]
    fn figures_stand_where_clients_read_them() {
        let before = Usage { system_ns: 1000, cpus: 2, cpu_ns: 10, ..Usage::default() };
        let now = Usage {
            system_ns: 3000,
            cpu_ns: 510,
            memory_bytes: 300,
            memory_limit_bytes: 1000,
            memory: vec![("inactive_file".into(), 100)],
            pids: 4,
            devices: vec![DeviceUsage { major: 8, read_bytes: 7, write_bytes: 5, ..DeviceUsage::default() }],
            interfaces: vec![InterfaceUsage {
                name: "eth0".into(),
                received: Traffic { bytes: 70, packets: 7, errors: 0, dropped: 2 },
                sent: Traffic { bytes: 50, packets: 5, errors: 1, dropped: 0 },
            }],
            ..before.clone()
        };
        let shape = Value::Object(shape(&stats(Some(now), Some(before)), NEWEST));
        assert_eq!(shape["name"], "/web");
        assert_eq!(
            (&shape["read"], &shape["preread"]),
            (&"2023-11-14T22:13:20Z".into(), &"2023-11-14T22:13:19Z".into())
        );
        assert_eq!(shape["cpu_stats"]["cpu_usage"]["total_usage"], 510);
        assert_eq!(shape["precpu_stats"]["system_cpu_usage"], 1000);
        assert_eq!(shape["cpu_stats"]["online_cpus"], 2);
        assert_eq!(
            shape["memory_stats"],
            json!({"usage": 300, "limit": 1000, "stats": {"inactive_file": 100}})
        );
        assert_eq!(shape["pids_stats"], json!({"current": 4, "limit": u64::MAX}));
        let bytes = &shape["blkio_stats"]["io_service_bytes_recursive"];
        assert_eq!(bytes[1], json!({"major": 8, "minor": 0, "op": "write", "value": 5}));
        let network = json!({
            "rx_bytes": 70, "rx_packets": 7, "rx_errors": 0, "rx_dropped": 2,
            "tx_bytes": 50, "tx_packets": 5, "tx_errors": 1, "tx_dropped": 0,
        });
        assert_eq!(shape["networks"], json!({ "eth0": network }));
        assert_eq!(shape["os_type"], "linux");
    }

    #[test]
    fn what_does_not_run_takes_nothing() {
        let shape = Value::Object(shape(&stats(None, None), ApiVersion::new(1, 51)));
        assert_eq!(shape["read"], NEVER);
        assert_eq!(shape["cpu_stats"]["cpu_usage"]["total_usage"], 0);
        assert!(shape["cpu_stats"].get("system_cpu_usage").is_none());
        assert_eq!(shape["memory_stats"], json!({}));
        assert_eq!(shape["blkio_stats"]["io_service_bytes_recursive"], Value::Null);
        assert!(shape.get("networks").is_none());
        assert!(shape.get("os_type").is_none());
    }
}
