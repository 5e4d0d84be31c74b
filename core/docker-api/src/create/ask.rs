//! From the body to [`ContainerAsk`].

use super::{cpu, fields, health, log, mounts, process, restart, tmpfs, view};
use crate::error::ApiError;
use crate::json::{self, Fields};
use crate::query::clip;
use bulkhead_model::{ContainerAsk, StdioOptions};
use serde_json::Value;

/// A create request that was understood completely.
#[derive(Debug)]
pub struct CreateRequest {
    pub ask: ContainerAsk,
    /// What inspect shows again.
    pub view: Value,
    pub warnings: Vec<String>,
}

/// Reads a body. Every field in it has had its say when this returns.
pub fn read(body: &[u8]) -> Result<CreateRequest, ApiError> {
    let mut top = match json::parse(body)? {
        Value::Object(map) => map,
        _ => return Err(ApiError::bad("invalid JSON: the body must be an object")),
    };
    let mut part = |name: &str| {
        let keys: Vec<String> = top.keys().filter(|key| key.eq_ignore_ascii_case(name)).cloned().collect();
        match keys.as_slice() {
            [] => Ok(Value::Null),
            [key] => Ok(top.remove(key).unwrap_or_default()),
            _ => Err(ApiError::bad(format!("invalid JSON: key `{name}` comes twice"))),
        }
    };
    let host_value = part("HostConfig")?;
    let networking_value = part("NetworkingConfig")?;
    let config = Fields::of("", Value::Object(top))?;
    let host = Fields::of("HostConfig.", host_value)?;
    let mut warnings = fields::check("", &config, fields::CONFIG)?;
    warnings.extend(fields::check("HostConfig.", &host, fields::HOST_CONFIG)?);
    check_networking(networking_value)?;
    check_ports(&config)?;

    let mounts = mounts::read(&config, &host)?;
    let mut process = process::options(&config, &host, &mut warnings)?;
    process.tmpfs = tmpfs::sorted([process.tmpfs, mounts.tmpfs].concat())?;
    let ask = ContainerAsk {
        image: config.text("Image")?.unwrap_or_default(),
        entrypoint: config.words("Entrypoint")?,
        // An empty command is the image's, as with none.
        cmd: config.words("Cmd")?.filter(|words| !words.is_empty()),
        env: config.list("Env")?.unwrap_or_default(),
        labels: config.map("Labels")?,
        user: config.text("User")?,
        working_dir: config.text("WorkingDir")?,
        hostname: config.text("Hostname")?,
        stop_signal: config.text("StopSignal")?,
        stop_timeout_s: config.integer("StopTimeout")?,
        cpu_milli: cpu::cpu_milli(&host)?,
        memory_bytes: cpu::memory_bytes(&host, &mut warnings)?,
        privileged: host.flag("Privileged")?,
        auto_remove: host.flag("AutoRemove")?,
        restart: restart::policy("HostConfig.", &host)?.unwrap_or_default(),
        stdio: stdio(&config, &host)?,
        process,
        log: log::options(&host, &mut warnings)?,
        health: health::ask(&config)?,
        shell: config.words("Shell")?.unwrap_or_default(),
        mounts: mounts.volumes,
        volume_paths: mounts.volume_paths,
        mounts_from: mounts.from,
    };
    if ask.image.is_empty() {
        return Err(ApiError::bad("Config.Image is empty: which image should the container run?"));
    }
    let asked_for_none =
        host.text("NetworkMode")?.as_deref() == Some("none") || config.flag("NetworkDisabled")?;
    if !asked_for_none {
        warnings
            .push("this container has a loopback interface only: networks are not supported yet".to_owned());
    }
    Ok(CreateRequest { view: view::of(&config, &host)?, ask, warnings })
}

fn stdio(config: &Fields, host: &Fields) -> Result<StdioOptions, ApiError> {
    let (rows, columns) = console_size(host)?.unwrap_or_default();
    Ok(StdioOptions {
        tty: config.flag("Tty")?,
        open_stdin: config.flag("OpenStdin")?,
        stdin_once: config.flag("StdinOnce")?,
        rows,
        columns,
    })
}

/// `[height, width]`, in characters.
pub fn console_size(fields: &Fields) -> Result<Option<(u16, u16)>, ApiError> {
    let wrong = || ApiError::bad("invalid JSON: ConsoleSize must be [height, width]");
    let value = fields.get("ConsoleSize");
    if value.is_null() {
        return Ok(None);
    }
    let sizes = value.as_array().ok_or_else(wrong)?;
    let number = |value: &Value| value.as_u64().and_then(|size| u16::try_from(size).ok()).ok_or_else(wrong);
    match sizes.as_slice() {
        [] => Ok(None),
        [rows, columns] => Ok(Some((number(rows)?, number(columns)?))),
        _ => Err(wrong()),
    }
}

fn check_networking(value: Value) -> Result<(), ApiError> {
    let networking = Fields::of("NetworkingConfig.", value)?;
    fields::check("NetworkingConfig.", &networking, &[("EndpointsConfig", fields::Rule::Mapped)])?;
    let endpoints = match networking.get("EndpointsConfig") {
        Value::Object(map) => map,
        Value::Null => return Ok(()),
        _ => return Err(ApiError::bad("invalid JSON: NetworkingConfig.EndpointsConfig must be an object")),
    };
    for (name, endpoint) in endpoints {
        if !fields::NETWORKS_KNOWN.contains(&name.as_str()) {
            return Err(ApiError::not_found(format!("network {} not found", clip(name))));
        }
        let prefix = format!("NetworkingConfig.EndpointsConfig.{name}.");
        fields::check(&prefix, &Fields::of(&prefix, endpoint.clone())?, fields::ENDPOINT)?;
    }
    Ok(())
}

/// `ExposedPorts` is documentation, but clients parse it again: `80`, `80/tcp`, `8000-8010/udp`.
fn check_ports(config: &Fields) -> Result<(), ApiError> {
    let ports = match config.get("ExposedPorts") {
        Value::Null => return Ok(()),
        Value::Object(ports) => ports,
        _ => return Err(ApiError::bad("invalid JSON: ExposedPorts must be an object")),
    };
    match ports.keys().find(|port| !is_port(port)) {
        Some(port) => Err(ApiError::bad(format!("invalid port `{}` in ExposedPorts", clip(port)))),
        None => Ok(()),
    }
}

fn is_port(text: &str) -> bool {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let both = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    matches!(protocol, "tcp" | "udp" | "sctp") && both.is_some_and(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::health::HealthAsk;
    use bulkhead_model::{LogOptions, ProcessOptions, RestartPolicy};
    use serde_json::json;

    fn check(body: Value) -> Result<CreateRequest, String> {
        read(body.to_string().as_bytes()).map_err(|error| error.message)
    }

    #[test]
    fn a_request_becomes_an_ask() {
        let request = check(json!({
            "image": "alpine", "Cmd": "true", "Entrypoint": ["sh", "-c"], "env": ["A=1"], "Labels": {"a": "b"},
            "User": "1:2", "WorkingDir": "/x", "Hostname": "h", "StopSignal": "INT", "StopTimeout": 3,
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {"Memory": 67108864, "NanoCpus": 1_500_000_000_i64, "AutoRemove": true, "Privileged": true},
        }))
        .unwrap();
        let expect = ContainerAsk {
            image: "alpine".into(),
            entrypoint: Some(vec!["sh".into(), "-c".into()]),
            cmd: Some(vec!["true".into()]),
            env: vec!["A=1".into()],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            user: Some("1:2".into()),
            working_dir: Some("/x".into()),
            hostname: Some("h".into()),
            stop_signal: Some("INT".into()),
            stop_timeout_s: Some(3),
            cpu_milli: Some(1500),
            memory_bytes: Some(64 << 20),
            privileged: true,
            auto_remove: true,
            restart: RestartPolicy::No,
            stdio: StdioOptions::default(),
            process: ProcessOptions::default(),
            log: LogOptions::default(),
            health: HealthAsk::default(),
            shell: Vec::new(),
            mounts: Vec::new(),
            volume_paths: Vec::new(),
            mounts_from: Vec::new(),
        };
        assert_eq!(request.ask, expect);
        assert_eq!(request.view["HostConfig"]["Memory"], 67_108_864);
        assert_eq!(request.view["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
    }

    #[test]
    fn networks_warn_or_are_refused() {
        assert_eq!(check(json!({"Image": "a"})).unwrap().warnings.len(), 1);
        assert!(
            check(json!({"Image": "a", "HostConfig": {"NetworkMode": "none"}})).unwrap().warnings.is_empty()
        );
        let body = |name: &str, endpoint: Value| json!({"Image": "a", "NetworkingConfig": {"EndpointsConfig": {name: endpoint}}});
        assert!(check(body("default", json!({"IPAMConfig": null, "Aliases": null}))).is_ok());
        let error = check(body("mine", json!({}))).unwrap_err();
        assert_eq!(error, "network mine not found");
        let error = check(body("bridge", json!({"IPAMConfig": {"IPv4Address": "10.0.0.2"}}))).unwrap_err();
        assert!(error.contains("NetworkingConfig.EndpointsConfig.bridge.IPAMConfig"), "{error}");
    }

    #[test]
    fn input_and_terminal_are_asked_for() {
        let body =
            json!({"Image": "a", "Tty": true, "OpenStdin": true, "HostConfig": {"ConsoleSize": [24, 80]}});
        let stdio = StdioOptions { tty: true, open_stdin: true, stdin_once: false, rows: 24, columns: 80 };
        assert_eq!(check(body).unwrap().ask.stdio, stdio);
        let error = check(json!({"Image": "a", "HostConfig": {"ConsoleSize": [24]}})).unwrap_err();
        assert_eq!(error, "invalid JSON: ConsoleSize must be [height, width]");
    }

    #[test]
    fn a_privilege_cannot_be_hidden_in_a_second_key() {
        for body in [
            r#"{"Image":"a","HostConfig":{"Privileged":false},"hostconfig":{"Privileged":true}}"#,
            r#"{"Image":"a","HostConfig":{"Privileged":false,"privileged":true}}"#,
            r#"{"Image":"a","Image":"b"}"#,
        ] {
            assert!(read(body.as_bytes()).unwrap_err().message.contains("comes twice"), "{body}");
        }
    }

    #[test]
    fn ports_are_checked() {
        for good in ["80", "80/tcp", "1-9/udp", "1/sctp"] {
            assert!(is_port(good), "{good}");
        }
        for bad in ["", "x", "80/http", "9-1", "70000", "1-2-3"] {
            assert!(!is_port(bad), "{bad}");
        }
    }
}
