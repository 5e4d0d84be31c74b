//! What is stored for inspect: the request as sent, in the API's own spelling, with the defaults that an engine fills
//! in.

use super::fields::{CONFIG, HOST_CONFIG, Rule};
use super::log;
use crate::error::ApiError;
use crate::json::{Fields, is_empty};
use bulkhead_model::network::DEFAULT_NETWORK;
use bulkhead_model::plugin::Change;
use bulkhead_model::process::{MASKED_PATHS, READ_ONLY_PATHS, SHM_BYTES_DEFAULT};
use serde_json::{Map, Value, json};

/// `{"Config": {…}, "HostConfig": {…}}`.
pub fn of(config: &Fields, host: &Fields) -> Result<Value, ApiError> {
    let mut view = json!({ "Config": config_defaults(), "HostConfig": host_defaults() });
    if let Some(map) = view.get_mut("Config").and_then(Value::as_object_mut) {
        overlay(map, config, CONFIG);
    }
    if let Some(map) = view.get_mut("HostConfig").and_then(Value::as_object_mut) {
        overlay(map, host, HOST_CONFIG);
        settle(map, host)?;
    }
    Ok(view)
}

/// Shows what a plugin changed, as if it had been asked for. What inspect takes from the decided spec shows by itself.
pub fn amend(view: &mut Value, change: &Change) {
    let Some(host) = view.get_mut("HostConfig").and_then(Value::as_object_mut) else { return };
    let mut set = |name: &str, value: Value| host.insert(name.to_owned(), value);
    match change {
        Change::SetCpuMilli { milli } => {
            set("NanoCpus", json!(u64::from(*milli) * 1_000_000));
            set("CpuPeriod", json!(0));
            set("CpuQuota", json!(0));
        }
        Change::SetMemoryMib { mib } => {
            set("Memory", json!(u64::from(*mib) << 20));
            set("MemorySwap", json!(0));
        }
        Change::SetPidsMax { pids } => {
            set("PidsLimit", json!(pids));
        }
        Change::DropPrivileged => {
            set("Privileged", json!(false));
        }
        Change::MakeReadOnly => {
            set("ReadonlyRootfs", json!(true));
        }
        Change::SetRestartPolicy { policy } => {
            set("RestartPolicy", json!({ "Name": policy.name(), "MaximumRetryCount": policy.retries_max() }));
        }
        Change::DropCapability { name } => drop_capability(host, name),
        Change::ForbidNewPrivileges => secure(host, Some("no-new-privileges"), |_| true),
        Change::DefaultSeccomp => secure(host, None, |option| !option.starts_with("seccomp")),
        // Of the spec.
        Change::SetLabel { .. }
        | Change::RemoveLabel { .. }
        | Change::SetEnv { .. }
        | Change::RemoveEnv { .. }
        | Change::SetUser { .. }
        | Change::DemandColdBoot => {}
    }
}

fn drop_capability(host: &mut Map<String, Value>, name: &str) {
    let bare = |text: &str| text.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let words = |value: Option<&Value>| -> Vec<String> {
        let words = value.and_then(Value::as_array).into_iter().flatten();
        words
            .filter_map(|word| word.as_str().map(ToOwned::to_owned))
            .filter(|word| bare(word) != bare(name))
            .collect()
    };
    let (add, mut drop) = (words(host.get("CapAdd")), words(host.get("CapDrop")));
    drop.push(format!("CAP_{}", bare(name)));
    host.insert("CapAdd".into(), if add.is_empty() { Value::Null } else { json!(add) });
    host.insert("CapDrop".into(), json!(drop));
}

fn secure(host: &mut Map<String, Value>, new: Option<&str>, stays: impl Fn(&str) -> bool) {
    let there = host.get("SecurityOpt").and_then(Value::as_array).into_iter().flatten();
    let there = there.filter_map(Value::as_str).filter(|option| stays(option) && new != Some(option));
    let all: Vec<String> = there.chain(new).map(ToOwned::to_owned).collect();
    host.insert("SecurityOpt".into(), if all.is_empty() { Value::Null } else { json!(all) });
}

fn overlay(view: &mut Map<String, Value>, sent: &Fields, table: &[(&str, Rule)]) {
    for (name, rule) in table {
        let value = sent.get(name);
        // -1 stands for "not set" in what clients send, and null in what they read.
        let unset = matches!(rule, Rule::Discarded(_)) && value.as_i64() == Some(-1);
        if !is_empty(value) && !unset {
            view.insert((*name).to_owned(), value.clone());
        }
    }
}

/// Fields where what is empty says something, or what is not says nothing.
fn settle(view: &mut Map<String, Value>, sent: &Fields) -> Result<(), ApiError> {
    for name in ["MaskedPaths", "ReadonlyPaths", "Init"] {
        let value = sent.get(name);
        if !value.is_null() {
            view.insert(name.into(), value.clone());
        }
    }
    if view.get("PidsLimit").and_then(Value::as_i64).is_some_and(|limit| limit <= 0) {
        view.insert("PidsLimit".into(), Value::Null);
    }
    // The name for what it is.
    if view.get("NetworkMode").is_some_and(|mode| mode == "default") {
        view.insert("NetworkMode".into(), DEFAULT_NETWORK.into());
    }
    view.insert("LogConfig".into(), log::view(sent)?);
    // It was discarded, with a warning.
    view.insert("OomKillDisable".into(), Value::Null);
    Ok(())
}

/// The rest of Config comes from the decided spec.
fn config_defaults() -> Value {
    json!({ "AttachStdin": false, "AttachStdout": false, "AttachStderr": false })
}

/// Shapes matter: null, `[]` and `{}` are different things to clients.
fn host_defaults() -> Value {
    json!({
        "Binds": null,
        "ContainerIDFile": "",
        "LogConfig": { "Type": "json-file", "Config": {} },
        "NetworkMode": "bridge",
        "PortBindings": {},
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "AutoRemove": false,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "ConsoleSize": [0, 0],
        "CapAdd": null,
        "CapDrop": null,
        "CgroupnsMode": "private",
        "Dns": [],
        "DnsOptions": [],
        "DnsSearch": [],
        "ExtraHosts": null,
        "GroupAdd": null,
        "IpcMode": "private",
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": false,
        "PublishAllPorts": false,
        "ReadonlyRootfs": false,
        "SecurityOpt": null,
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": SHM_BYTES_DEFAULT,
        "Runtime": "bulkhead",
        "Isolation": "",
        "CpuShares": 0,
        "Memory": 0,
        "NanoCpus": 0,
        "CgroupParent": "",
        "BlkioWeight": 0,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [],
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": "",
        "CpusetMems": "",
        "Devices": [],
        "DeviceCgroupRules": null,
        "DeviceRequests": null,
        "MemoryReservation": 0,
        "MemorySwap": 0,
        "MemorySwappiness": null,
        "OomKillDisable": null,
        "PidsLimit": null,
        "Ulimits": [],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "MaskedPaths": MASKED_PATHS,
        "ReadonlyPaths": READ_ONLY_PATHS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_inspect_shows_can_be_sent_again() {
        let sent = json!({"memory": 64 << 20, "MemorySwappiness": -1, "NetworkMode": "none", "Init": null});
        let host = Fields::of("HostConfig.", sent).unwrap();
        let config = Fields::of("", json!({"AttachStdout": true})).unwrap();
        let view = of(&config, &host).unwrap();
        assert_eq!(view["HostConfig"]["Memory"], 64 << 20);
        assert_eq!(view["HostConfig"]["NetworkMode"], "none");
        assert_eq!(view["HostConfig"]["MemorySwappiness"], Value::Null);
        assert_eq!(view["Config"]["AttachStdout"], true);
        assert_eq!(view["HostConfig"]["MaskedPaths"][0], "/proc/acpi");
        let again = json!({"Image": "a", "HostConfig": view["HostConfig"]});
        let request = super::super::read(again.to_string().as_bytes()).unwrap();
        assert_eq!(request.view["HostConfig"], view["HostConfig"]);
    }
    fn host_view(sent: Value) -> Value {
        let host = Fields::of("HostConfig.", sent).unwrap();
        of(&Fields::of("", Value::Null).unwrap(), &host).unwrap()["HostConfig"].take()
    }

    #[test]
    fn what_says_nothing_looks_as_dockers_does() {
        let view =
            host_view(json!({"PidsLimit": 0, "OomKillDisable": false, "ShmSize": 0, "MaskedPaths": null}));
        assert_eq!(view["PidsLimit"], Value::Null);
        assert_eq!(view["OomKillDisable"], Value::Null);
        assert_eq!(view["ShmSize"], 64 << 20);
        assert_eq!(view["ReadonlyPaths"].as_array().unwrap().len(), 5);
        assert!(view.get("Init").is_none() && view.get("Tmpfs").is_none() && view.get("Sysctls").is_none());
        let view =
            host_view(json!({"PidsLimit": -1, "OomKillDisable": true, "MaskedPaths": [], "Init": false}));
        assert_eq!(view["PidsLimit"], Value::Null);
        assert_eq!(view["OomKillDisable"], Value::Null);
        assert_eq!(view["MaskedPaths"], json!([]));
        assert_eq!(view["Init"], false);
    }
}
