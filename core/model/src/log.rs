//! How a container's output is kept.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The least that is kept of a log that is kept small: below, the guest would wait at every few lines.
pub const LOG_BYTES_MIN: u64 = 256 << 10;

/// Of all files together, what Docker's driver `local` keeps if nobody says how much.
pub const LOCAL_BYTES: u64 = 100_000_000;

/// What clients know as the log driver. All of them keep the log in the machine's journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    #[default]
    JsonFile,
    Local,
    /// Nobody reads it afterwards; who is attached reads along.
    None,
}

impl LogDriver {
    /// All of them, as clients spell them.
    pub const NAMES: &'static [(&'static str, LogDriver)] =
        &[("json-file", Self::JsonFile), ("local", Self::Local), ("none", Self::None)];

    pub fn name(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::None => "none",
        }
    }
}

/// How much of a container's log is kept, and what is told beside its lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogOptions {
    pub driver: LogDriver,
    /// Of all files together, as asked for; `None`: what the VCH allows and the driver keeps by itself.
    pub bytes_max: Option<u64>,
    /// Names of labels that are details of each line.
    pub labels: Vec<String>,
    /// Names of environment variables that are.
    pub env: Vec<String>,
}

impl LogOptions {
    /// How much is kept, in a VCH that allows so much.
    pub fn bytes_kept(&self, vch_bytes: u64) -> u64 {
        let wanted = match self.driver {
            LogDriver::JsonFile => self.bytes_max.unwrap_or(vch_bytes),
            LogDriver::Local => self.bytes_max.unwrap_or(LOCAL_BYTES),
            LogDriver::None => 0,
        };
        wanted.max(LOG_BYTES_MIN).min(vch_bytes)
    }

    /// The details of a container's lines, out of its labels and environment.
    pub fn details(&self, labels: &BTreeMap<String, String>, env: &[String]) -> BTreeMap<String, String> {
        let of_labels = self.labels.iter().filter_map(|name| labels.get_key_value(name));
        let variables = env.iter().filter_map(|entry| entry.split_once('='));
        let wanted = variables.filter(|(name, _)| self.env.iter().any(|wanted| wanted == name));
        let both = of_labels.map(|(name, value)| (name.as_str(), value.as_str())).chain(wanted);
        both.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(driver: LogDriver, bytes_max: Option<u64>) -> u64 {
        LogOptions { driver, bytes_max, ..LogOptions::default() }.bytes_kept(16 << 20)
    }

    #[test]
    fn no_log_is_longer_than_its_vch_allows() {
        assert_eq!(kept(LogDriver::JsonFile, None), 16 << 20);
        assert_eq!(kept(LogDriver::Local, Some(100 << 20)), 16 << 20);
        assert_eq!(kept(LogDriver::JsonFile, Some(1 << 20)), 1 << 20);
        let local = LogOptions { driver: LogDriver::Local, ..LogOptions::default() };
        assert_eq!((local.bytes_kept(16 << 20), local.bytes_kept(1 << 30)), (16 << 20, LOCAL_BYTES));
        assert_eq!(kept(LogDriver::JsonFile, Some(1)), LOG_BYTES_MIN);
        assert_eq!(kept(LogDriver::None, None), LOG_BYTES_MIN);
    }

    #[test]
    fn details_are_named_labels_and_variables() {
        let options = LogOptions {
            labels: vec!["team".into(), "absent".into()],
            env: vec!["ZONE".into(), "team".into()],
            ..LogOptions::default()
        };
        let labels = [("team", "a"), ("secret", "x")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let env = ["ZONE=b=c", "PATH=/bin"].map(str::to_owned);
        let details: Vec<_> = options.details(&labels.into(), &env).into_iter().collect();
        assert_eq!(details, [("ZONE".to_owned(), "b=c".to_owned()), ("team".to_owned(), "a".to_owned())]);
    }
}
