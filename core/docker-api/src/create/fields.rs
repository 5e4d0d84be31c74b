//! What each field of a create request may be. A test walks the API's own list of fields and fails on one that has
//! no rule here.

use crate::error::ApiError;
use crate::json::{Fields, is_empty};
use serde_json::Value;

/// How a field is treated.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Read in `ask.rs`; means something.
    Mapped,
    /// Shown again at inspect. Says nothing about how the container runs.
    Kept,
    /// Shown again at inspect, and a warning says why nothing else comes of it.
    Discarded(&'static str),
    /// Only values for which this holds, which mean what is so anyway.
    Only(fn(&Value) -> bool, &'static str),
    /// Not there yet: anything but null, zero or empty is refused, with the reason.
    Refused(&'static str),
}

use Rule::{Discarded, Kept, Mapped, Only, Refused};

const LATER: &str = "is not supported yet";
const HOST: &str = "is not supported: each container is a machine of its own";
const DISKS: &str = "a machine has disks of its own";
const PROCESSORS: &str = "a machine has processors of its own, that no other container shares";
const NO_DEVICES: &str = "a machine has no devices of the host";
/// As for a kernel without swap.
pub const NO_SWAP: &str = "a machine has no swap";
const WINDOWS: &str = "is for Windows only";

/// Top-level fields, besides `HostConfig` and `NetworkingConfig`.
pub const CONFIG: &[(&str, Rule)] = &[
    ("Hostname", Mapped),
    ("Domainname", Mapped),
    ("User", Mapped),
    ("AttachStdin", Kept),
    ("AttachStdout", Kept),
    ("AttachStderr", Kept),
    ("ExposedPorts", Mapped),
    ("Tty", Mapped),
    ("OpenStdin", Mapped),
    ("StdinOnce", Mapped),
    ("Env", Mapped),
    ("Cmd", Mapped),
    ("Healthcheck", Mapped),
    ("ArgsEscaped", Refused(WINDOWS)),
    ("Image", Mapped),
    ("Volumes", Mapped),
    ("WorkingDir", Mapped),
    ("Entrypoint", Mapped),
    ("NetworkDisabled", Mapped),
    ("OnBuild", Kept),
    ("Labels", Mapped),
    ("StopSignal", Mapped),
    ("StopTimeout", Mapped),
    ("Shell", Mapped),
    // Until API 1.51.
    ("MacAddress", Mapped),
];

pub const HOST_CONFIG: &[(&str, Rule)] = &[
    ("CpuShares", Discarded(PROCESSORS)),
    ("Memory", Mapped),
    ("CgroupParent", Discarded("each container is a machine of its own")),
    ("BlkioWeight", Discarded(DISKS)),
    ("BlkioWeightDevice", Discarded(DISKS)),
    ("BlkioDeviceReadBps", Discarded(DISKS)),
    ("BlkioDeviceWriteBps", Discarded(DISKS)),
    ("BlkioDeviceReadIOps", Discarded(DISKS)),
    ("BlkioDeviceWriteIOps", Discarded(DISKS)),
    ("CpuPeriod", Mapped),
    ("CpuQuota", Mapped),
    ("CpuRealtimePeriod", Discarded(PROCESSORS)),
    ("CpuRealtimeRuntime", Discarded(PROCESSORS)),
    ("CpusetCpus", Mapped),
    ("CpusetMems", Discarded(PROCESSORS)),
    ("Devices", Mapped),
    ("DeviceCgroupRules", Discarded(NO_DEVICES)),
    ("DeviceRequests", Refused("is not supported: could not select a device driver")),
    ("MemoryReservation", Discarded("a machine has all of its memory to itself")),
    // Until API 1.42.
    ("KernelMemory", Refused("is not supported: a machine has a kernel of its own")),
    ("KernelMemoryTCP", Refused("is not supported: a machine has a kernel of its own")),
    ("MemorySwap", Mapped),
    ("MemorySwappiness", Discarded(NO_SWAP)),
    ("NanoCpus", Mapped),
    ("OomKillDisable", Mapped),
    ("Init", Mapped),
    ("PidsLimit", Mapped),
    ("Ulimits", Mapped),
    ("CpuCount", Refused(WINDOWS)),
    ("CpuPercent", Refused(WINDOWS)),
    ("IOMaximumIOps", Refused(WINDOWS)),
    ("IOMaximumBandwidth", Refused(WINDOWS)),
    ("Binds", Mapped),
    // Written by the client, on its own side.
    ("ContainerIDFile", Kept),
    ("LogConfig", Mapped),
    ("NetworkMode", Mapped),
    ("PortBindings", Mapped),
    ("RestartPolicy", Mapped),
    ("AutoRemove", Mapped),
    ("VolumeDriver", Mapped),
    ("VolumesFrom", Mapped),
    ("Mounts", Mapped),
    ("ConsoleSize", Mapped),
    ("Annotations", Kept),
    ("CapAdd", Mapped),
    ("CapDrop", Mapped),
    ("CgroupnsMode", Mapped),
    ("Dns", Mapped),
    ("DnsOptions", Mapped),
    ("DnsSearch", Mapped),
    ("ExtraHosts", Mapped),
    ("GroupAdd", Mapped),
    ("IpcMode", Mapped),
    ("Cgroup", Refused(HOST)),
    ("Links", Mapped),
    ("OomScoreAdj", Mapped),
    ("PidMode", Mapped),
    ("Privileged", Mapped),
    ("PublishAllPorts", Mapped),
    ("ReadonlyRootfs", Mapped),
    ("SecurityOpt", Mapped),
    ("StorageOpt", Refused(LATER)),
    ("Tmpfs", Mapped),
    ("UTSMode", Mapped),
    // No user namespace is what every container gets.
    ("UsernsMode", Only(host, HOST)),
    ("ShmSize", Mapped),
    ("Sysctls", Mapped),
    ("Runtime", Only(own_runtime, "is not supported: the only runtime is `bulkhead`")),
    ("Isolation", Only(default_isolation, WINDOWS)),
    ("MaskedPaths", Mapped),
    ("ReadonlyPaths", Mapped),
];

/// `NetworkingConfig` has one field, a map of network name to these.
pub const ENDPOINT: &[(&str, Rule)] = &[
    ("IPAMConfig", Mapped),
    ("Links", Mapped),
    ("MacAddress", Mapped),
    ("Aliases", Mapped),
    ("DriverOpts", Refused("is not supported: there is one driver, and it has no options here")),
    ("GwPriority", Mapped),
    // The rest are answers, that recreating tools send back: an engine gives them anew each time.
    ("NetworkID", Kept),
    ("EndpointID", Kept),
    ("Gateway", Kept),
    ("IPAddress", Kept),
    ("IPPrefixLen", Kept),
    ("IPv6Gateway", Kept),
    ("GlobalIPv6Address", Kept),
    ("GlobalIPv6PrefixLen", Kept),
    ("DNSNames", Kept),
];

/// Refuses what a table refuses, and fields that it does not know, unless they say nothing. Gives a warning for each
/// that is discarded.
pub fn check(prefix: &str, fields: &Fields, table: &[(&str, Rule)]) -> Result<Vec<String>, ApiError> {
    let mut warnings = Vec::new();
    for name in fields.names() {
        let value = fields.get(name);
        if is_empty(value) {
            continue;
        }
        let known = table.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let (shown, why) = match known {
            Some((_, Mapped | Kept)) => continue,
            Some((_, Only(good, _))) if good(value) => continue,
            // What clients send for "not set".
            Some((_, Discarded(_))) if value.as_i64() == Some(-1) => continue,
            Some((shown, Discarded(why))) => {
                warnings.push(format!("{prefix}{shown} discarded: {why}"));
                continue;
            }
            Some((shown, Only(_, why) | Refused(why))) => (*shown, *why),
            None => (name, "is not known"),
        };
        let shown = crate::query::clip(shown);
        return Err(ApiError::bad(format!("bulkhead: {prefix}{shown} {why}{}", quoted(value))));
    }
    Ok(warnings)
}

/// The refused value where it is a short word: `: got "host"`.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() <= 60 => format!(": got `{text}`"),
        Value::Number(number) => format!(": got {number}"),
        _ => String::new(),
    }
}

fn is_one_of(value: &Value, words: &[&str]) -> bool {
    value.as_str().is_some_and(|word| words.contains(&word))
}

fn host(value: &Value) -> bool {
    is_one_of(value, &["host"])
}

fn own_runtime(value: &Value) -> bool {
    is_one_of(value, &["bulkhead"])
}

fn default_isolation(value: &Value) -> bool {
    is_one_of(value, &["default"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every field that the API documents, of a version newer than the newest served.
    const DOCUMENTED: &str = include_str!("../../tests/data/create-fields.txt");

    #[test]
    fn every_field_of_the_api_has_a_rule() {
        for line in DOCUMENTED.lines() {
            let (object, field) = line.split_once('.').unwrap();
            let known = |table: &[(&str, Rule)]| table.iter().any(|(name, _)| *name == field);
            let mapped = match object {
                "ContainerConfig" => known(CONFIG),
                "HostConfig" => known(HOST_CONFIG),
                "EndpointSettings" => known(ENDPOINT),
                "NetworkingConfig" => field == "EndpointsConfig",
                other => panic!("unknown object {other}"),
            };
            assert!(mapped, "{line} has no rule");
        }
    }

    fn refusal(prefix: &str, table: &[(&str, Rule)], body: Value) -> Option<String> {
        check(prefix, &Fields::of(prefix, body).unwrap(), table).err().map(|error| error.message)
    }

    #[test]
    fn refusals_name_the_field() {
        for (body, text) in [
            (json!({"Cgroup": "a"}), "HostConfig.Cgroup is not supported: each container is a machine"),
            (json!({"Teleport": true}), "bulkhead: HostConfig.Teleport is not known"),
        ] {
            let message = refusal("HostConfig.", HOST_CONFIG, body.clone()).unwrap_or_default();
            assert!(message.contains(text), "{body}: {message}");
        }
    }

    #[test]
    fn what_cannot_matter_is_discarded_with_a_warning() {
        let sent = json!({"cpushares": 512, "BlkioWeight": 10, "MemorySwappiness": -1, "CpusetMems": ""});
        let warnings = check("HostConfig.", &Fields::of("HostConfig.", sent).unwrap(), HOST_CONFIG).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("HostConfig.BlkioWeight discarded: "), "{warnings:?}");
        assert!(warnings[1].starts_with("HostConfig.CpuShares discarded: "), "{warnings:?}");
    }

    #[test]
    fn what_says_nothing_passes() {
        for body in [
            json!({"Teleport": null, "Future": 0, "Else": {}, "More": []}),
            json!({"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}),
            json!({"MemorySwappiness": -1}),
            json!({"ConsoleSize": [24, 80]}),
        ] {
            assert_eq!(refusal("HostConfig.", HOST_CONFIG, body.clone()), None, "{body}");
        }
        assert_eq!(refusal("", CONFIG, json!({"Healthcheck": {"Test": ["NONE"]}})), None);
    }
}
