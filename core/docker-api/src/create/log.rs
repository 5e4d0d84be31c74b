//! `LogConfig`: how the output is kept.

use super::fields::{self, Rule::Mapped};
use crate::error::ApiError;
use crate::json::Fields;
use crate::query::clip;
use crate::size;
use bulkhead_model::log::{LOCAL_BYTES, LOG_BYTES_MIN, LogDriver, LogOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FIELDS: &[(&str, fields::Rule)] = &[("Type", Mapped), ("Config", Mapped)];
/// Other drivers of Docker's own.
const ELSEWHERE: [&str; 8] =
    ["syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "gcplogs", "etwlogs"];

struct Asked {
    driver: LogDriver,
    options: BTreeMap<String, String>,
}

impl Asked {
    fn of(host: &Fields) -> Result<Self, ApiError> {
        let prefix = "HostConfig.LogConfig.";
        let config = Fields::of(prefix, host.get("LogConfig").clone())?;
        fields::check(prefix, &config, FIELDS)?;
        let name = config.text("Type")?.unwrap_or_default();
        let known = LogDriver::NAMES.iter().find(|(known, _)| *known == name).map(|(_, driver)| *driver);
        let driver = match known {
            Some(driver) => driver,
            None if name.is_empty() => LogDriver::default(),
            None if ELSEWHERE.contains(&name.as_str()) => {
                return Err(ApiError::bad(format!(
                    "bulkhead: HostConfig.LogConfig.Type `{name}` (--log-driver) is not supported: json-file, local \
                     and none are"
                )));
            }
            None => {
                return Err(ApiError::bad(format!(
                    "error looking up logging plugin {0}: plugin \"{0}\" not found",
                    clip(&name)
                )));
            }
        };
        Ok(Self { driver, options: config.map("Config")? })
    }

    fn unknown(&self, name: &str) -> ApiError {
        let name = clip(name);
        ApiError::bad(match self.driver {
            LogDriver::JsonFile => format!("unknown log opt '{name}' for json-file log driver"),
            LogDriver::Local => format!("unknown log opt '{name}' for log driver local"),
            LogDriver::None => "invalid logging opts for driver none".to_owned(),
        })
    }
}

/// What is to be kept.
pub fn options(host: &Fields, warnings: &mut Vec<String>) -> Result<LogOptions, ApiError> {
    let asked = Asked::of(host)?;
    let mut log = LogOptions { driver: asked.driver, ..LogOptions::default() };
    let (mut size, mut files) = (None, None);
    for (name, value) in &asked.options {
        let has_details = asked.driver == LogDriver::JsonFile;
        match name.as_str() {
            _ if asked.driver == LogDriver::None => return Err(asked.unknown(name)),
            "max-size" => size = size_of(value)?,
            "max-file" => files = Some(files_of(value)?),
            "labels" if has_details => log.labels = names(value),
            "env" if has_details => log.env = names(value),
            "mode" if matches!(value.as_str(), "" | "blocking") => {}
            "mode" if value == "non-blocking" => return Err(later("mode", "a container waits for its log")),
            "mode" => {
                let value = clip(value);
                return Err(ApiError::bad(format!("logger: logging mode not supported: {value}")));
            }
            "compress" if is_false(value) => {}
            "compress" => return Err(later("compress", "logs are kept as they are")),
            "max-buffer-size" => return Err(later(name, "a container waits for its log")),
            "labels-regex" | "env-regex" | "tag" if has_details => {
                return Err(later(name, "name the details with labels and env"));
            }
            _ => return Err(asked.unknown(name)),
        }
    }
    log.bytes_max = match (asked.driver, size) {
        (LogDriver::JsonFile, Some(size)) => Some(size.saturating_mul(files.unwrap_or(1))),
        (LogDriver::Local, Some(size)) => Some(size.saturating_mul(files.unwrap_or(5))),
        (LogDriver::Local, None) => files.map(|files| (LOCAL_BYTES / 5).saturating_mul(files)),
        // A number of files says nothing without their size, as in Docker.
        (LogDriver::JsonFile | LogDriver::None, _) => None,
    };
    if log.bytes_max.is_some_and(|bytes| bytes < LOG_BYTES_MIN) {
        warnings.push(format!("at least {} KiB of the log are kept", LOG_BYTES_MIN >> 10));
    }
    Ok(log)
}

/// As inspect shows it.
pub fn view(host: &Fields) -> Result<Value, ApiError> {
    let asked = Asked::of(host)?;
    Ok(json!({ "Type": asked.driver.name(), "Config": asked.options }))
}

fn later(name: &str, why: &str) -> ApiError {
    ApiError::bad(format!(
        "bulkhead: HostConfig.LogConfig.Config.{name} (--log-opt {name}) is not supported yet: {why}"
    ))
}

fn is_false(value: &str) -> bool {
    matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False")
}

fn names(value: &str) -> Vec<String> {
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// `10m`: thousands, not 1024s, whatever stands behind the letter. `None`: -1, no limit of its own.
fn size_of(value: &str) -> Result<Option<u64>, ApiError> {
    if value == "-1" {
        return Ok(None);
    }
    match size::parse(value, 1000.0) {
        None => Err(ApiError::bad(format!("invalid size: '{}'", clip(value)))),
        Some(0) => Err(ApiError::bad("max-size must be a positive number")),
        Some(bytes) => Ok(Some(bytes)),
    }
}

fn files_of(value: &str) -> Result<u64, ApiError> {
    match value.parse::<u64>() {
        Ok(0) => Err(ApiError::bad("max-file cannot be less than 1")),
        Ok(files) => Ok(files),
        Err(_) => Err(ApiError::bad(format!("invalid max-file `{}`: expected a number", clip(value)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, config: &Value) -> Result<LogOptions, String> {
        let value = json!({ "LogConfig": { "type": kind, "Config": config } });
        let host = Fields::of("HostConfig.", value).unwrap();
        options(&host, &mut Vec::new()).map_err(|error| error.message)
    }

    #[test]
    fn limits_are_of_all_files_together() {
        let bytes = |kind, config| check(kind, &config).unwrap().bytes_max;
        assert_eq!(bytes("", json!({})), None);
        assert_eq!(bytes("json-file", json!({"max-size": "10m"})), Some(10_000_000));
        assert_eq!(bytes("json-file", json!({"max-size": "1.5MiB", "max-file": "3"})), Some(4_500_000));
        assert_eq!(bytes("json-file", json!({"max-size": "-1"})), None);
        assert_eq!(bytes("local", json!({})), None);
        assert_eq!(bytes("local", json!({"max-size": "1k"})), Some(5_000));
        assert_eq!(bytes("none", json!({})), None);
    }

    #[test]
    fn details_and_what_is_so_anyway() {
        let log = check(
            "json-file",
            &json!({"labels": "a,b", "env": "X", "mode": "blocking", "compress": "false"}),
        )
        .unwrap();
        assert_eq!((log.labels, log.env), (vec!["a".into(), "b".into()], vec!["X".into()]));
    }

    #[test]
    fn others_are_refused_by_name() {
        for (kind, config, text) in [
            ("json-file", json!({"speed": "1"}), "unknown log opt 'speed' for json-file log driver"),
            ("", json!({"speed": "1"}), "unknown log opt 'speed' for json-file log driver"),
            ("local", json!({"labels": "a"}), "unknown log opt 'labels' for log driver local"),
            ("none", json!({"max-size": "1m"}), "invalid logging opts for driver none"),
            ("syslog", json!({}), "bulkhead: HostConfig.LogConfig.Type `syslog`"),
            ("quill", json!({}), "error looking up logging plugin quill: plugin \"quill\" not found"),
            ("json-file", json!({"compress": "true"}), "Config.compress"),
            ("json-file", json!({"mode": "non-blocking"}), "Config.mode"),
            ("json-file", json!({"mode": "x"}), "logger: logging mode not supported: x"),
            ("json-file", json!({"tag": "x"}), "Config.tag"),
            ("json-file", json!({"max-size": "x"}), "invalid size: 'x'"),
            ("json-file", json!({"max-size": "0"}), "max-size must be a positive number"),
            ("json-file", json!({"max-size": "1mm"}), "invalid size: '1mm'"),
            ("json-file", json!({"max-size": "1m", "max-file": "0"}), "max-file cannot be less than 1"),
        ] {
            let error = check(kind, &config).unwrap_err();
            assert!(error.contains(text), "{kind} {config}: {error}");
        }
    }

    #[test]
    fn little_is_raised_with_a_warning() {
        let value = json!({ "LogConfig": { "Type": "json-file", "Config": { "max-size": "1k" } } });
        let mut warnings = Vec::new();
        options(&Fields::of("HostConfig.", value).unwrap(), &mut warnings).unwrap();
        assert_eq!(warnings, ["at least 256 KiB of the log are kept"]);
    }
}
