//! `GET /info`.

use crate::call::{Answer, Call};
use crate::{reply, size, time};
use bulkhead_engine::SystemFacts;
use bulkhead_model::reference::DOCKER_HUB;
use serde_json::{Map, Value, json};

pub async fn get(call: Call) -> Answer {
    let facts = call.engine().system(&call.session).await?;
    reply::ok(&info(&facts, call.state.clock.now()))
}

fn info(facts: &SystemFacts, now: chrono::DateTime<chrono::Utc>) -> Value {
    let machines = &facts.capabilities;
    let limits = match machines.limits.as_str() {
        "cgroup-v2" => "2",
        "cgroup-v1" => "1",
        _ => "",
    };
    json!({
        "ID": facts.vch.id,
        "Name": format!("{}.{}", facts.vch.name, machines.host_name),
        "Containers": facts.containers,
        "ContainersRunning": facts.running.saturating_sub(facts.paused),
        "ContainersPaused": facts.paused,
        "ContainersStopped": facts.containers.saturating_sub(facts.running),
        "Images": facts.images,
        "Driver": "erofs",
        "DriverStatus": status(facts),
        "DockerRootDir": "",
        "SystemTime": time::rfc3339(now),
        "LoggingDriver": "json-file",
        "CgroupDriver": "none",
        "CgroupVersion": limits,
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "null"], "Authorization": null, "Log": ["json-file", "local"] },
        "MemoryLimit": true,
        "SwapLimit": false,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": false,
        "CPUSet": true,
        "PidsLimit": true,
        "IPv4Forwarding": false,
        "BridgeNfIptables": false,
        "BridgeNfIp6tables": false,
        "OomKillDisable": false,
        "Debug": false,
        "NFd": 0,
        "NGoroutines": 0,
        "NEventsListener": 0,
        "KernelVersion": machines.guest_kernel,
        "OperatingSystem": "Bulkhead (a virtual machine for each container)",
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": "x86_64",
        "NCPU": machines.host_cpus,
        "MemTotal": machines.host_memory_bytes,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registries(facts),
        "HttpProxy": facts.proxies.http,
        "HttpsProxy": facts.proxies.https,
        "NoProxy": facts.proxies.no_proxy,
        "Labels": [
            format!("bulkhead.vch={}", facts.vch.name),
            format!("bulkhead.class={}", facts.vch.class),
            format!("bulkhead.tenant={}", facts.vch.tenant),
        ],
        "ExperimentalBuild": false,
        "ServerVersion": facts.version,
        "Runtimes": { "bulkhead": { "path": "" } },
        "DefaultRuntime": "bulkhead",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": ["name=vm", "name=seccomp,profile=builtin", "name=cgroupns"],
        "CDISpecDirs": [],
        "Warnings": warnings(facts),
    })
}

/// Pairs of a name and a value, for people.
fn status(facts: &SystemFacts) -> Vec<[String; 2]> {
    let machines = &facts.capabilities;
    let line = |name: &str, value: String| [name.to_owned(), value];
    let mut status = vec![
        line("Back end", format!("{} {}", machines.back_end, machines.version)),
        line("Accelerator", machines.accelerator.clone()),
        line("Hardware isolation", machines.hardware_isolation.to_string()),
        line("Class", facts.vch.class.to_string()),
        line("Policy set", facts.policy_set.clone()),
    ];
    status.extend(facts.volume_stores.iter().map(|store| {
        let limit =
            store.bytes_max.map(|limit| format!(", at most {}", size::human(limit))).unwrap_or_default();
        let used = size::human(store.volumes_bytes);
        line(&format!("Volume store {}", store.name), format!("{} volumes of {used}{limit}", store.volumes))
    }));
    status
}

/// `Mirrors` are those of Docker Hub, as in Docker, which knows no others.
fn registries(facts: &SystemFacts) -> Value {
    let mirrors = |name: &str| facts.mirrors.get(name).cloned().unwrap_or_default();
    let names = facts.mirrors.keys().chain(&facts.insecure).map(String::as_str);
    let configs: Map<String, Value> = names
        .chain([DOCKER_HUB])
        .map(|name| {
            let secure = !facts.insecure.iter().any(|insecure| insecure == name);
            let official = name == DOCKER_HUB;
            let config =
                json!({ "Name": name, "Mirrors": mirrors(name), "Secure": secure, "Official": official });
            (name.to_owned(), config)
        })
        .collect();
    json!({
        "AllowNondistributableArtifactsCIDRs": null,
        "AllowNondistributableArtifactsHostnames": null,
        "InsecureRegistryCIDRs": [],
        "IndexConfigs": configs,
        "Mirrors": mirrors(DOCKER_HUB),
    })
}

/// Shown by `docker info` after everything else.
fn warnings(facts: &SystemFacts) -> Vec<String> {
    let machines = &facts.capabilities;
    let mut warnings = Vec::new();
    if !machines.hardware_isolation {
        let accepted = if facts.accept_emulation { " (accepted by the operator)" } else { "" };
        warnings.push(format!(
            "WARNING: machines run on {}, which is no security boundary{accepted}",
            machines.accelerator
        ));
    }
    if machines.limits == "none" {
        warnings.push("WARNING: machines are not limited on the host: it has no usable cgroups".into());
    }
    if let Some(why) = &facts.without_networks {
        warnings.push(format!("WARNING: containers can have no networks on this host: {why}"));
    }
    warnings
}
