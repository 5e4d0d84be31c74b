//! Why a layer's archive was refused: made in the child, told to the parent as one line of JSON.

use crate::error::ImageError;
use serde::{Deserialize, Serialize};
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive breaks a rule.
    #[error("{0}")]
    Refused(String),
    #[error("{what} exceeds the limit of {limit}")]
    Limit { what: String, limit: String },
    #[error("the archive ends in the middle: {0}")]
    Truncated(&'static str),
    /// Reading or decompressing.
    #[error("reading the archive: {0}")]
    Read(#[source] io::Error),
    /// The disk.
    #[error("writing the disk: {0}")]
    Write(#[source] io::Error),
}

/// [`LayerError`] as it crosses the pipe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum ToldError {
    Content { text: String },
    Limit { what: String, limit: String },
    Write { text: String, errno: i32 },
}

impl LayerError {
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    pub(crate) fn limit(what: impl Into<String>, limit: impl ToString) -> Self {
        Self::Limit { what: what.into(), limit: limit.to_string() }
    }

    pub(crate) fn told(&self) -> ToldError {
        match self {
            Self::Limit { what, limit } => ToldError::Limit { what: what.clone(), limit: limit.clone() },
            Self::Write(source) => {
                ToldError::Write { text: self.to_string(), errno: source.raw_os_error().unwrap_or(libc::EIO) }
            }
            Self::Read(source) if source.kind() == io::ErrorKind::QuotaExceeded => {
                ToldError::Limit { what: "the layer".into(), limit: source.to_string() }
            }
            Self::Refused(_) | Self::Truncated(_) | Self::Read(_) => {
                ToldError::Content { text: self.to_string() }
            }
        }
    }
}

impl From<ToldError> for ImageError {
    fn from(told: ToldError) -> Self {
        match told {
            ToldError::Content { text } => Self::Layer(text),
            ToldError::Limit { what, limit } => Self::Limit { what, limit },
            ToldError::Write { errno, .. } => {
                Self::Io { doing: "writing a layer disk".into(), source: io::Error::from_raw_os_error(errno) }
            }
        }
    }
}

impl From<LayerError> for ImageError {
    fn from(error: LayerError) -> Self {
        error.told().into()
    }
}

/// A name from an archive, fit to be shown: bounded, and without control characters.
pub(crate) fn shown(name: &[u8]) -> String {
    let text: String =
        String::from_utf8_lossy(name).chars().take(120).flat_map(char::escape_default).collect();
    format!("`{text}`")
}
