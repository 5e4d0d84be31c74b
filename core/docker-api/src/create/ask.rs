//! From the body to [`ContainerAsk`].

use super::{cpu, fields, health, log, mounts, network, process, restart, tmpfs, view};
use crate::error::ApiError;
use crate::json::{self, Fields};
use bulkhead_model::{ContainerAsk, StdioOptions};
use serde_json::Value;

/// A create request that was understood completely.
#[derive(Debug)]
pub struct CreateRequest {
    pub ask: ContainerAsk,
    /// What inspect shows again.
    pub view: Value,
    pub warnings: Vec<String>,
    /// Networks that have settings of their own in the request.
    pub networks_named: Vec<String>,
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
    let networks_named = network::named(&networking_value);
    let config = Fields::of("", Value::Object(top))?;
    let host = Fields::of("HostConfig.", host_value)?;
    let mut warnings = fields::check("", &config, fields::CONFIG)?;
    warnings.extend(fields::check("HostConfig.", &host, fields::HOST_CONFIG)?);

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
        network: network::options(&config, &host, networking_value, &mut warnings)?,
    };
    if ask.image.is_empty() {
        return Err(ApiError::bad("Config.Image is empty: which image should the container run?"));
    }
    Ok(CreateRequest { view: view::of(&config, &host)?, ask, warnings, networks_named })
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

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::health::HealthAsk;
    use bulkhead_model::network::EndpointWish;
    use bulkhead_model::{LogOptions, NetworkOptions, ProcessOptions, RestartPolicy};
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
            network: NetworkOptions {
                endpoints: vec![EndpointWish { network: "bridge".into(), ..EndpointWish::default() }],
                exposed: ["80/tcp".to_owned()].into(),
                ..NetworkOptions::default()
            },
        };
        assert_eq!(request.ask, expect);
        assert_eq!(request.view["HostConfig"]["Memory"], 67_108_864);
        assert_eq!(request.view["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
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
}
