//! The config of an image (OCI image-spec, config.md): a stranger's words. Bounded, and read as text only; whether a user,
//! a path or a port in it means anything is decided where it is used.

use crate::error::ImageError;
use crate::registry::LAYERS_MAX;
use bulkhead_model::health::HealthAsk;
use bulkhead_model::image::History;
use bulkhead_model::{Digest, ImageConfig};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

const ITEMS_MAX: usize = 4096;
const TEXT_BYTES_MAX: usize = 128 << 10;
const NAME_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    config: Option<RawConfig>,
    rootfs: RawRootfs,
    #[serde(default)]
    history: Option<Vec<RawHistory>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    entrypoint: Option<Words>,
    cmd: Option<Words>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
    healthcheck: Option<RawHealth>,
}

/// Of Docker's, not in the specification.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealth {
    test: Option<Vec<String>>,
    interval: Option<i64>,
    timeout: Option<i64>,
    start_period: Option<i64>,
    start_interval: Option<i64>,
    retries: Option<i64>,
}

/// A list; some old tools wrote one string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawHistory {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    empty_layer: Option<bool>,
}

/// Reads a config. Unknown fields are ignored, absent ones are empty.
pub fn parse(bytes: &[u8]) -> Result<ImageConfig, ImageError> {
    let wrong = |why: String| ImageError::invalid("the image config", why);
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if raw.rootfs.kind != "layers" {
        return Err(wrong("its root filesystem is not made of layers".into()));
    }
    let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() > LAYERS_MAX {
        return Err(ImageError::Limit { what: "the number of layers".into(), limit: LAYERS_MAX.to_string() });
    }
    let diff_ids: Result<Vec<Digest>, _> = diff_ids.iter().map(|text| text.parse()).collect();
    let config = raw.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    many("labels", labels.len())?;
    for (key, value) in &labels {
        text("a label", key, NAME_BYTES_MAX)?;
        text("a label", value, TEXT_BYTES_MAX)?;
    }
    Ok(ImageConfig {
        architecture: text("the architecture", &raw.architecture.unwrap_or_default(), 64)?,
        os: text("the operating system", &raw.os.unwrap_or_default(), 64)?,
        created: raw.created.as_deref().and_then(time),
        author: text("the author", &raw.author.unwrap_or_default(), NAME_BYTES_MAX)?,
        entrypoint: words("the entrypoint", config.entrypoint)?,
        cmd: words("the command", config.cmd)?,
        env: words("the environment", config.env.map(Words::Many))?,
        user: text("the user", &config.user.unwrap_or_default(), NAME_BYTES_MAX)?,
        working_dir: text("the working directory", &config.working_dir.unwrap_or_default(), NAME_BYTES_MAX)?,
        labels,
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty() && signal.len() <= 64),
        exposed_ports: names("an exposed port", config.exposed_ports)?,
        volumes: names("a volume", config.volumes)?,
        health: health(config.healthcheck.unwrap_or_default())?,
        diff_ids: diff_ids.map_err(|error| wrong(error.to_string()))?,
        history: history(raw.history.unwrap_or_default())?,
    })
}

/// One that cannot be carried out is none: the image runs all the same.
fn health(raw: RawHealth) -> Result<HealthAsk, ImageError> {
    let ask = HealthAsk {
        test: words("the health check", raw.test.map(Words::Many))?,
        interval_ns: raw.interval.unwrap_or(0),
        timeout_ns: raw.timeout.unwrap_or(0),
        start_period_ns: raw.start_period.unwrap_or(0),
        start_interval_ns: raw.start_interval.unwrap_or(0),
        retries: raw.retries.unwrap_or(0),
    };
    Ok(if ask.fault().is_none() { ask } else { HealthAsk::default() })
}

/// Times that cannot be read are no reason to refuse an image.
fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
}

fn history(raw: Vec<RawHistory>) -> Result<Vec<History>, ImageError> {
    many("the history", raw.len())?;
    raw.into_iter()
        .map(|entry| {
            Ok(History {
                created: entry.created.as_deref().and_then(time),
                created_by: text("the history", &entry.created_by.unwrap_or_default(), TEXT_BYTES_MAX)?,
                comment: text("the history", &entry.comment.unwrap_or_default(), TEXT_BYTES_MAX)?,
                empty_layer: entry.empty_layer.unwrap_or_default(),
            })
        })
        .collect()
}

fn words(what: &str, raw: Option<Words>) -> Result<Vec<String>, ImageError> {
    let list = match raw {
        None => Vec::new(),
        Some(Words::One(word)) => vec![word],
        Some(Words::Many(list)) => list,
    };
    many(what, list.len())?;
    list.iter().map(|word| text(what, word, TEXT_BYTES_MAX)).collect()
}

fn names(what: &str, raw: Option<BTreeMap<String, IgnoredAny>>) -> Result<Vec<String>, ImageError> {
    let names = raw.unwrap_or_default();
    many(what, names.len())?;
    names.keys().map(|name| text(what, name, NAME_BYTES_MAX)).collect()
}

fn many(what: &str, count: usize) -> Result<(), ImageError> {
    if count > ITEMS_MAX {
        return Err(ImageError::Limit {
            what: format!("{what} in the image config"),
            limit: ITEMS_MAX.to_string(),
        });
    }
    Ok(())
}

fn text(what: &str, text: &str, max: usize) -> Result<String, ImageError> {
    if text.len() > max {
        let limit = format!("{max} bytes");
        return Err(ImageError::Limit { what: format!("{what} in the image config"), limit });
    }
    if text.contains('\0') {
        return Err(ImageError::invalid("the image config", format!("there is a zero byte in {what}")));
    }
    Ok(text.to_owned())
}
