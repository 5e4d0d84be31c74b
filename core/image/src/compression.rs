//! How a layer's archive is compressed: told by its media type, and by its first bytes; the two must agree.

use crate::layer_error::LayerError;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read};

/// Largest zstd window, as a power of two: 128 MiB, what `zstd` itself accepts unasked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes (RFC 1952, RFC 8878). What is none of the known ones counts as a bare archive.
    pub fn detect(start: &[u8]) -> Result<Self, LayerError> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            // A skippable zstd frame in front.
            [first, 0x2a, 0x4d, 0x18, ..] if (0x50..=0x5f).contains(first) => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err(LayerError::refused("bzip2 is not supported: use gzip or zstd")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                Err(LayerError::refused("xz is not supported: use gzip or zstd"))
            }
            _ => Ok(Self::None),
        }
    }

    pub(crate) fn decoder<'a, R: BufRead + 'a>(self, input: R) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        })
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}
