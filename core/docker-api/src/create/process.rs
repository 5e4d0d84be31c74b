//! How the process is held in its machine: rights, limits, settings. Texts are Docker's where it has some.

use super::{devices, tmpfs};
use crate::error::ApiError;
use crate::json::Fields;
use crate::query::clip;
use bulkhead_model::ProcessOptions;
use bulkhead_model::capability::Capabilities;
use bulkhead_model::process::{Limit, Resource, Seccomp, is_own_sysctl};
use serde_json::Value;

/// What the kernel takes, without the zero at its end.
const DOMAIN_NAME_BYTES_MAX: usize = 64;

/// Reads both halves of a body; what is carried out differently from Docker gets a warning.
pub fn options(
    config: &Fields,
    host: &Fields,
    warnings: &mut Vec<String>,
) -> Result<ProcessOptions, ApiError> {
    let capabilities = |name: &str| {
        let words = host.list(name)?.unwrap_or_default();
        Capabilities::parse(&words).map_err(|error| ApiError::bad(format!("invalid {name}: {error}")))
    };
    let (seccomp, no_new_privileges) = security(&host.list("SecurityOpt")?.unwrap_or_default())?;
    modes(host, warnings)?;
    if host.flag("OomKillDisable")? {
        warnings.push("OomKillDisable discarded: the kernel of a machine always ends a process".to_owned());
    }
    Ok(ProcessOptions {
        domain_name: domain_name(config)?,
        groups: groups(host)?,
        read_only: host.flag("ReadonlyRootfs")?,
        tmpfs: tmpfs::read(&host.map("Tmpfs")?)?,
        shm_bytes: shm_bytes(host)?,
        cap_add: capabilities("CapAdd")?,
        cap_drop: capabilities("CapDrop")?,
        seccomp,
        no_new_privileges,
        masked_paths: paths(host, "MaskedPaths")?,
        read_only_paths: paths(host, "ReadonlyPaths")?,
        limits: limits(host.get("Ulimits"))?,
        sysctls: sysctls(host)?,
        init: host.flag("Init")?,
        pids_max: pids_max(host)?,
        oom_score_adj: oom_score_adj(host)?,
        devices: devices::read(host.get("Devices"))?,
    })
}

fn domain_name(config: &Fields) -> Result<String, ApiError> {
    let name = config.text("Domainname")?.unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.len() > DOMAIN_NAME_BYTES_MAX || !name.bytes().all(good) {
        return Err(ApiError::bad(format!("invalid domain name: {}", clip(&name))));
    }
    Ok(name)
}

fn groups(host: &Fields) -> Result<Vec<String>, ApiError> {
    let groups = host.list("GroupAdd")?.unwrap_or_default();
    match groups.iter().find(|group| group.is_empty() || group.contains([':', '\n', '\0'])) {
        Some(wrong) => Err(ApiError::bad(format!("invalid group in GroupAdd: `{}`", clip(wrong)))),
        None => Ok(groups),
    }
}

/// 0 stands for what Docker gives, and `none` for no shared memory at all.
fn shm_bytes(host: &Fields) -> Result<Option<u64>, ApiError> {
    if host.text("IpcMode")?.as_deref() == Some("none") {
        return Ok(Some(0));
    }
    match u64::try_from(host.integer("ShmSize")?.unwrap_or(0)) {
        Ok(0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) => Err(ApiError::bad("SHM size can not be less than 0")),
    }
}

/// `null` is the default and `[]` is none.
fn paths(host: &Fields, name: &str) -> Result<Option<Vec<String>>, ApiError> {
    let paths = host.list(name)?;
    let wrong = |path: &&String| !path.starts_with('/') || path.split('/').any(|part| part == "..");
    match paths.iter().flatten().find(wrong) {
        Some(path) => Err(ApiError::bad(format!("invalid path `{}` in HostConfig.{name}", clip(path)))),
        None => Ok(paths),
    }
}

fn limits(value: &Value) -> Result<Vec<Limit>, ApiError> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(ApiError::bad("invalid JSON: HostConfig.Ulimits must be a list")),
    };
    list.iter().map(limit).collect()
}

fn limit(value: &Value) -> Result<Limit, ApiError> {
    let fields = Fields::of("HostConfig.Ulimits.", value.clone())?;
    let name = fields.text("Name")?.unwrap_or_default();
    let Some(resource) = Resource::by_name(&name) else {
        return Err(ApiError::bad(format!("invalid ulimit type: {}", clip(&name))));
    };
    let number = |field: &str| match fields.integer(field)?.unwrap_or(0) {
        -1 => Ok(None),
        value => u64::try_from(value)
            .map(Some)
            .map_err(|_| ApiError::bad(format!("invalid ulimit {name}: {field} is {value}"))),
    };
    let limit = Limit { resource, soft: number("Soft")?, hard: number("Hard")? };
    if limit.soft.unwrap_or(u64::MAX) > limit.hard.unwrap_or(u64::MAX) {
        return Err(ApiError::bad(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            limit.soft.map_or(-1, u64::cast_signed),
            limit.hard.map_or(-1, u64::cast_signed)
        )));
    }
    Ok(limit)
}

fn sysctls(host: &Fields) -> Result<std::collections::BTreeMap<String, String>, ApiError> {
    let sysctls = host.map("Sysctls")?;
    for (name, value) in &sysctls {
        if !is_own_sysctl(name) {
            return Err(ApiError::bad(format!(
                "sysctl \"{}\" is not in a separate kernel namespace",
                clip(name)
            )));
        }
        if value.is_empty() || value.contains(['\n', '\0']) {
            return Err(ApiError::bad(format!("invalid value of sysctl \"{}\"", clip(name))));
        }
    }
    Ok(sysctls)
}

pub fn pids_max(host: &Fields) -> Result<Option<u32>, ApiError> {
    // Zero and less are "no limit".
    let limit = host.integer("PidsLimit")?.filter(|limit| *limit > 0);
    let wide = |limit| u32::try_from(limit).map_err(|_| ApiError::bad(format!("invalid PidsLimit {limit}")));
    limit.map(wide).transpose()
}

fn oom_score_adj(host: &Fields) -> Result<i16, ApiError> {
    let value = host.integer("OomScoreAdj")?.unwrap_or(0);
    i16::try_from(value).ok().filter(|value| (-1000..=1000).contains(value)).ok_or_else(|| {
        ApiError::bad(format!("Invalid value {value}, range for oom score adj is [-1000, 1000]"))
    })
}

/// `name`, `name=value` and, as long ago, `name:value`.
fn security(options: &[String]) -> Result<(Seccomp, bool), ApiError> {
    let (mut seccomp, mut no_new_privileges) = (Seccomp::Default, false);
    for option in options {
        if option == "no-new-privileges" {
            no_new_privileges = true;
            continue;
        }
        let Some((name, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
            return Err(ApiError::bad(format!("invalid --security-opt 1: {:?}", clip(option))));
        };
        match (name, value) {
            ("no-new-privileges", "true" | "1") => no_new_privileges = true,
            ("no-new-privileges", "false" | "0") => no_new_privileges = false,
            ("seccomp", "unconfined") => seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => seccomp = Seccomp::Default,
            ("seccomp", _) => {
                return Err(unsupported(option, "only `builtin` and `unconfined` are profiles"));
            }
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor", _) => {
                return Err(unsupported(option, "the guest's kernel has no AppArmor profiles"));
            }
            ("label", _) => return Err(unsupported(option, "the guest's kernel has no SELinux")),
            ("writable-cgroups", _) => return Err(unsupported(option, "it is not supported yet")),
            _ => return Err(ApiError::bad(format!("invalid --security-opt 2: {:?}", clip(option)))),
        }
    }
    Ok((seccomp, no_new_privileges))
}

fn unsupported(option: &str, why: &str) -> ApiError {
    ApiError::bad(format!("bulkhead: HostConfig.SecurityOpt `{}` is not supported: {why}", clip(option)))
}

/// There is nobody in the machine with whom anything could be shared.
fn modes(host: &Fields, warnings: &mut Vec<String>) -> Result<(), ApiError> {
    let modes: [(&str, &[&str]); 4] = [
        ("PidMode", &[]),
        ("IpcMode", &["private", "none"]),
        ("UTSMode", &[]),
        ("CgroupnsMode", &["private"]),
    ];
    for (name, plain) in modes {
        let mode = host.text(name)?.unwrap_or_default();
        match mode.as_str() {
            "" => {}
            mode if plain.contains(&mode) => {}
            "host" => warnings.push(format!(
                "{name} \"host\": no host namespace, each container is its own machine and sees all of what is in it"
            )),
            "shareable" if name == "IpcMode" => warnings
                .push("IpcMode \"shareable\": nobody can share it, each container is its own machine".to_owned()),
            mode => {
                return Err(ApiError::bad(format!(
                    "bulkhead: HostConfig.{name} is not supported: each container is a machine of its own: got `{}`",
                    clip(mode)
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(host: Value) -> Result<(ProcessOptions, Vec<String>), String> {
        let mut warnings = Vec::new();
        let (config, host) = (Fields::of("", json!({})).unwrap(), Fields::of("HostConfig.", host).unwrap());
        let options = options(&config, &host, &mut warnings).map_err(|error| error.message)?;
        Ok((options, warnings))
    }

    fn good(host: Value) -> ProcessOptions {
        let (options, warnings) = read(host).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        options
    }

    #[test]
    fn nothing_asked_is_the_default() {
        assert_eq!(good(json!({})), ProcessOptions::default());
        let sent_by_the_cli = json!({
            "CapAdd": null, "CapDrop": null, "GroupAdd": null, "IpcMode": "", "CgroupnsMode": "", "PidMode": "", "UTSMode": "",
            "OomScoreAdj": 0, "ReadonlyRootfs": false, "SecurityOpt": null, "ShmSize": 0, "PidsLimit": 0, "Ulimits": [],
            "OomKillDisable": false, "MaskedPaths": null, "ReadonlyPaths": null,
        });
        assert_eq!(good(sent_by_the_cli), ProcessOptions::default());
    }

    #[test]
    fn fields_are_read() {
        let options = good(json!({
            "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
            "PidsLimit": 40, "OomScoreAdj": -7, "Init": true, "ShmSize": 1048576, "GroupAdd": ["adm", "77"],
            "Sysctls": {"net.core.somaxconn": "512"}, "Ulimits": [{"Name": "nofile", "Soft": 64, "Hard": -1}],
            "MaskedPaths": [], "ReadonlyPaths": ["/proc/bus"], "ReadonlyRootfs": true, "Tmpfs": {"/run": ""},
        }));
        assert_eq!(options.cap_add.names(), ["CAP_NET_ADMIN"]);
        assert!(options.cap_drop.all && options.no_new_privileges && options.init && options.read_only);
        assert_eq!(options.seccomp, Seccomp::Unconfined);
        assert_eq!(
            (options.pids_max, options.oom_score_adj, options.shm_bytes),
            (Some(40), -7, Some(1 << 20))
        );
        assert_eq!(options.limits, [Limit { resource: Resource::Nofile, soft: Some(64), hard: None }]);
        assert_eq!(options.masked_paths, Some(Vec::new()));
        assert_eq!(options.read_only_paths, Some(vec!["/proc/bus".into()]));
        assert_eq!(options.tmpfs.len(), 1);
        assert_eq!(good(json!({"IpcMode": "none"})).shm_bytes, Some(0));
        assert_eq!(
            good(json!({"SecurityOpt": ["seccomp:builtin", "label=disable", "apparmor=unconfined"]})),
            ProcessOptions::default()
        );
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (host, text) in [
            (json!({"CapAdd": ["TELEPORT"]}), "invalid CapAdd: unknown capability: \"CAP_TELEPORT\""),
            (json!({"CapDrop": ["x"]}), "invalid CapDrop: unknown capability: \"CAP_X\""),
            (json!({"SecurityOpt": ["nonsense"]}), "invalid --security-opt 1: \"nonsense\""),
            (json!({"SecurityOpt": ["a=b"]}), "invalid --security-opt 2: \"a=b\""),
            (
                json!({"SecurityOpt": ["seccomp={\"defaultAction\":1}"]}),
                "bulkhead: HostConfig.SecurityOpt `seccomp={",
            ),
            (
                json!({"SecurityOpt": ["apparmor=mine"]}),
                "bulkhead: HostConfig.SecurityOpt `apparmor=mine` is not supported",
            ),
            (json!({"SecurityOpt": ["label=type:x"]}), "no SELinux"),
            (
                json!({"Sysctls": {"vm.swappiness": "1"}}),
                "sysctl \"vm.swappiness\" is not in a separate kernel namespace",
            ),
            (json!({"Ulimits": [{"Name": "as", "Soft": 1, "Hard": 1}]}), "invalid ulimit type: as"),
            (
                json!({"Ulimits": [{"Name": "nofile", "Soft": 4, "Hard": 3}]}),
                "ulimit soft limit must be less than or equal to hard limit: 4 > 3",
            ),
            (json!({"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": 3}]}), "-1 > 3"),
            (json!({"OomScoreAdj": 1001}), "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
            (json!({"ShmSize": -1}), "SHM size can not be less than 0"),
            (
                json!({"PidMode": "container:x"}),
                "bulkhead: HostConfig.PidMode is not supported: each container",
            ),
            (json!({"IpcMode": "nonsense"}), "bulkhead: HostConfig.IpcMode"),
            (json!({"GroupAdd": [""]}), "GroupAdd"),
            (json!({"MaskedPaths": ["proc"]}), "MaskedPaths"),
            (json!({"Tmpfs": {"/run": "teleport"}}), "tmpfs option"),
        ] {
            let message = read(host.clone()).unwrap_err();
            assert!(message.contains(text), "{host}: {message}");
        }
    }

    #[test]
    fn what_is_carried_out_otherwise_is_warned_of() {
        for host in [
            json!({"PidMode": "host"}),
            json!({"IpcMode": "host"}),
            json!({"IpcMode": "shareable"}),
            json!({"UTSMode": "host"}),
            json!({"CgroupnsMode": "host"}),
            json!({"OomKillDisable": true}),
        ] {
            assert_eq!(read(host.clone()).unwrap().1.len(), 1, "{host}");
        }
    }
}
