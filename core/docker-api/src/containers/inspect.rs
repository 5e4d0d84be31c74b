//! `GET /containers/{id}/json`.

use super::shape::{State, attached, exit, exposed, is_running, view};
use crate::call::{Answer, Call};
use crate::version::ApiVersion;
use crate::volumes::shape::mounts;
use crate::{reply, time};
use bulkhead_model::Container;
use bulkhead_model::health::{self, Health, Probe};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::network::DEFAULT_NETWORK;
use serde_json::{Map, Value, json};

pub async fn get(call: Call) -> Answer {
    let container = call.engine().container(&call.session, &call.name).await?;
    let mut shape = inspect(&container, call.version);
    if let Some(host) = shape.get_mut("HostConfig").and_then(Value::as_object_mut)
        && let linked @ [_, ..] = call.engine().linked(&call.session, &container).await?.as_slice()
    {
        let link = |(name, alias): &(String, String)| format!("/{name}:/{}/{alias}", container.name);
        host.insert("Links".into(), linked.iter().map(link).collect());
    }
    if let Some(health) = health::of(&container)
        && let Some(state) = shape.get_mut("State").and_then(Value::as_object_mut)
    {
        state.insert("Health".into(), health_shape(&health));
    }
    if call.query.flag("size") {
        let usage = call.engine().container_usage(&call.session, container.id.as_str()).await?;
        shape.insert("SizeRw".into(), usage.disk_bytes.into());
        shape.insert("SizeRootFs".into(), (usage.disk_bytes + usage.image_bytes).into());
    }
    reply::ok(&shape)
}

fn inspect(container: &Container, version: ApiVersion) -> Map<String, Value> {
    let mut words = container.spec.entrypoint.iter().chain(&container.spec.cmd);
    let path = words.next();
    let shape = json!({
        "Id": container.id,
        "Created": time::rfc3339(container.created_at),
        "Path": path,
        "Args": words.collect::<Vec<_>>(),
        "State": state(container),
        "Image": container.image,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "Name": format!("/{}", container.name),
        "RestartCount": container.desired.restarts.count,
        "Driver": "erofs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(container),
        "Mounts": mounts(container),
        "Config": config(container),
        "NetworkSettings": network_settings(container, version),
    });
    let mut shape = match shape {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    if !version.since(52) {
        shape.insert("GraphDriver".into(), json!({ "Name": "erofs", "Data": {} }));
    }
    shape
}

fn state(container: &Container) -> Value {
    let state = State::of(container);
    let exit = exit(container);
    // Docker's sense of it, in which what stands still or is between two runs is running.
    let running = matches!(state, State::Running | State::Paused | State::Restarting);
    let has_process = matches!(state, State::Running | State::Paused);
    let started_at = match &container.status {
        Status::Running { started_at, .. } => Some(*started_at),
        Status::Exited { exit, .. } => exit.started_at,
        Status::Created | Status::Starting { .. } => None,
    };
    json!({
        "Status": state.word(),
        "Running": running,
        "Paused": state == State::Paused,
        "Restarting": state == State::Restarting,
        "OOMKilled": exit.is_some_and(|exit| exit.oom_killed),
        "Dead": false,
        // Clients ask only whether it is above 0. The guest's first process is the one that is known.
        "Pid": i32::from(has_process),
        "ExitCode": exit.map_or(0, |exit| exit.code),
        "Error": exit.and_then(|exit| exit.error.as_deref()).unwrap_or_default(),
        "StartedAt": time::rfc3339_or_never(started_at),
        "FinishedAt": time::rfc3339_or_never(exit.map(|exit| exit.finished_at)),
    })
}

/// As it was sent; what masks paths depends on a privilege.
fn host_config(container: &Container) -> Value {
    let mut host = view(container, "HostConfig").clone();
    // It may have been changed since.
    let policy = container.desired.restarts.policy;
    if let Some(map) = host.as_object_mut() {
        let restart = json!({ "Name": policy.name(), "MaximumRetryCount": policy.retries_max() });
        map.insert("RestartPolicy".into(), restart);
    }
    // Where an operator named places.
    if !container.placement.is_default()
        && let Some(map) = host.as_object_mut()
    {
        let annotations = map.entry("Annotations").or_insert(Value::Null);
        if !annotations.is_object() {
            *annotations = json!({});
        }
        if let Some(all) = annotations.as_object_mut() {
            all.insert("bulkhead.host".into(), container.placement.host.as_str().into());
            all.insert("bulkhead.datastore".into(), container.placement.datastore.as_str().into());
        }
    }
    if container.spec.privileged
        && let Some(map) = host.as_object_mut()
    {
        map.insert("MaskedPaths".into(), Value::Null);
        map.insert("ReadonlyPaths".into(), Value::Null);
    }
    host
}

/// What was decided, in the fields that were asked for.
fn config(container: &Container) -> Value {
    let (ask, spec) = (view(container, "Config"), &container.spec);
    let asked = |name: &str| ask.get(name).cloned().unwrap_or_default();
    // Absent is null, never an empty list.
    let words = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    let mut config = json!({
        "Hostname": spec.hostname,
        "Domainname": spec.process.domain_name,
        "User": spec.user,
        "AttachStdin": asked("AttachStdin").as_bool().unwrap_or(false),
        "AttachStdout": asked("AttachStdout").as_bool().unwrap_or(false),
        "AttachStderr": asked("AttachStderr").as_bool().unwrap_or(false),
        "Tty": spec.stdio.tty,
        "OpenStdin": spec.stdio.open_stdin,
        "StdinOnce": spec.stdio.stdin_once,
        "Env": spec.env,
        "Cmd": words(&spec.cmd),
        "Image": if container.ask.image.is_empty() { &container.image_name } else { &container.ask.image },
        "Volumes": volumes(container),
        "WorkingDir": spec.working_dir,
        "Entrypoint": words(&spec.entrypoint),
        "OnBuild": null,
        "Labels": spec.labels,
        "StopSignal": spec.stop_signal.name(),
        "StopTimeout": spec.stop_timeout_s,
    });
    if let Some(map) = config.as_object_mut() {
        if !spec.network.exposed.is_empty() {
            let ports: Map<String, Value> =
                spec.network.exposed.iter().map(|port| (port.clone(), json!({}))).collect();
            map.insert("ExposedPorts".into(), ports.into());
        }
        for name in ["Healthcheck", "NetworkDisabled", "Shell"] {
            let value = match (name, &spec.health) {
                ("Healthcheck", Some(check)) => crate::create::health::view(&check.ask),
                _ => asked(name),
            };
            if !value.is_null() {
                map.insert(name.into(), value);
            }
        }
    }
    config
}

/// Paths that got a volume of their own, as the image or `-v PATH` asks for.
fn volumes(container: &Container) -> Value {
    let by_mount = |target: &String| container.ask.mounts.iter().any(|mount| mount.target == *target);
    let own = container.spec.mounts.iter().filter(|mount| mount.anonymous && !by_mount(&mount.target));
    let map: Map<String, Value> = own.map(|mount| (mount.target.clone(), json!({}))).collect();
    if map.is_empty() { Value::Null } else { map.into() }
}

fn health_shape(health: &Health) -> Value {
    let probe = |probe: &Probe| {
        json!({
            "Start": time::rfc3339(probe.started_at),
            "End": time::rfc3339(probe.ended_at),
            "ExitCode": probe.code,
            "Output": probe.output,
        })
    };
    json!({
        "Status": health.status.word(),
        "FailingStreak": health.failing_streak,
        "Log": health.probes.iter().map(probe).collect::<Vec<_>>(),
    })
}

fn network_settings(container: &Container, version: ApiVersion) -> Value {
    let running = is_running(container);
    let mut settings = json!({
        "SandboxID": if running { container.id.as_str() } else { "" },
        "SandboxKey": "",
        "Ports": if running && !container.spec.network.host { ports(container) } else { json!({}) },
        "Networks": attached(container, version),
    });
    // Gone in 1.52; clients of older versions fail without.
    if !version.since(52)
        && let Some(map) = settings.as_object_mut()
    {
        // Of the default network alone, as ever.
        let default = container.endpoints.iter().find(|endpoint| endpoint.wish.network == DEFAULT_NETWORK);
        let (lease, id) = (default.and_then(|endpoint| endpoint.lease), default.map(|endpoint| &endpoint.id));
        let six = lease.and_then(|lease| lease.six);
        let text = |value: Option<String>| value.unwrap_or_default();
        let old = [
            ("Bridge", json!("")),
            ("HairpinMode", json!(false)),
            ("LinkLocalIPv6Address", json!("")),
            ("LinkLocalIPv6PrefixLen", json!(0)),
            ("SecondaryIPAddresses", Value::Null),
            ("SecondaryIPv6Addresses", Value::Null),
            ("EndpointID", json!(lease.and(id).map_or("", |id| id.as_str()))),
            (
                "Gateway",
                json!(text(lease.and_then(|lease| lease.gateway).map(|gateway| gateway.to_string()))),
            ),
            ("GlobalIPv6Address", json!(text(six.map(|six| six.address.to_string())))),
            ("GlobalIPv6PrefixLen", json!(six.map_or(0, |six| six.prefix))),
            ("IPAddress", json!(text(lease.map(|lease| lease.address.to_string())))),
            ("IPPrefixLen", json!(lease.map_or(0, |lease| lease.prefix))),
            ("IPv6Gateway", json!(text(six.and_then(|six| six.gateway).map(|gateway| gateway.to_string())))),
            ("MacAddress", json!(text(lease.map(|lease| lease.mac.to_string())))),
        ];
        map.extend(old.map(|(name, value)| (name.to_owned(), value)));
    }
    settings
}

/// Null where a port is exposed only.
fn ports(container: &Container) -> Value {
    let mut ports: Map<String, Value> =
        exposed(container).map(|(port, protocol)| (format!("{port}/{protocol}"), Value::Null)).collect();
    for one in &container.published {
        let place = json!({ "HostIp": one.host_address, "HostPort": one.host_port.to_string() });
        let of = ports.entry(format!("{}/{}", one.container_port, one.protocol)).or_insert(Value::Null);
        match of {
            Value::Array(places) => places.push(place),
            other => *other = json!([place]),
        }
    }
    ports.into()
}

#[cfg(test)]
mod tests {
    use super::super::shape::tests::{at, container, exited};
    use super::*;
    use crate::version::NEWEST;

    #[test]
    fn a_running_container() {
        let status = Status::Running { run: 1, started_at: at(180), stop_signalled: false, paused: false };
        let shape = inspect(&container("web", status), NEWEST);
        let state = &shape["State"];
        assert_eq!(state["Status"], "running");
        assert_eq!(state["Running"], true);
        assert_eq!(state["StartedAt"], "2023-11-14T22:10:20Z");
        assert_eq!(state["FinishedAt"], time::NEVER);
        assert_eq!(state["Pid"], 1);
        assert!(state.get("Health").is_none(), "absent without a check");
        assert_eq!(shape["Config"]["Entrypoint"], Value::Null);
        assert_eq!(shape["Config"]["Cmd"], json!(["sh", "-c", "echo hi"]));
        assert_eq!(shape["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!(shape["Path"], "sh");
        assert_eq!(shape["NetworkSettings"]["Ports"], json!({"80/tcp": null}));
        assert_eq!(shape["HostConfig"]["LogConfig"]["Type"], "json-file");
    }

    #[test]
    fn a_failed_start_tells_why() {
        let shape = inspect(&container("web", exited(127, false)), NEWEST);
        assert_eq!(shape["State"]["Status"], "created");
        assert_eq!((&shape["State"]["ExitCode"], &shape["State"]["Pid"]), (&json!(127), &json!(0)));
        assert!(shape["State"]["Error"].as_str().unwrap().contains("not found"));
        assert_eq!(shape["State"]["StartedAt"], time::NEVER);
    }

    #[test]
    fn old_clients_find_what_they_knew() {
        let old = inspect(&container("web", Status::Created), ApiVersion::new(1, 51));
        assert_eq!(old["NetworkSettings"]["IPAddress"], "");
        assert!(old["GraphDriver"]["Data"].is_object());
        let new = inspect(&container("web", Status::Created), NEWEST);
        assert!(new["NetworkSettings"].get("IPAddress").is_none());
        assert!(new.get("GraphDriver").is_none());
    }
}
