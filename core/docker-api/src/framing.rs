//! Output on the wire: frames that keep stdout and stderr apart, as attach and logs send them.
//!
//! `[stream, 0, 0, 0, length as big-endian u32]` and the bytes (Engine API, "Attach", stream format).

use crate::version::ApiVersion;
use bulkhead_engine::OutputStream;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;

pub const HEADER_BYTES: usize = 8;

/// Which stream a frame is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Channel {
    Stdout = 1,
    Stderr = 2,
    /// A message of the engine itself, in the middle of a stream.
    EngineError = 3,
}

impl From<OutputStream> for Channel {
    fn from(stream: OutputStream) -> Self {
        match stream {
            OutputStream::Stdout => Self::Stdout,
            OutputStream::Stderr => Self::Stderr,
        }
    }
}

/// Header and data in one buffer, so that they leave in one write: clients that read in pieces rely on it.
pub fn frame(channel: Channel, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + length);
    put_frame(&mut frame, channel, parts);
    frame.freeze()
}

/// After others.
pub fn put_frame(frames: &mut BytesMut, channel: Channel, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    frames.put_slice(&[channel as u8, 0, 0, 0]);
    frames.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for part in parts {
        frames.put_slice(part);
    }
}

/// The media type of framed output. The name of its own came with 1.42, and on attach only to clients that asked
/// for an upgrade.
pub fn content_type(version: ApiVersion, upgraded_or_plain_logs: bool) -> HeaderValue {
    if version.since(42) && upgraded_or_plain_logs {
        HeaderValue::from_static("application/vnd.docker.multiplexed-stream")
    } else {
        HeaderValue::from_static("application/vnd.docker.raw-stream")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_stream_length_and_data() {
        let frame = frame(Channel::Stderr, &[b"2024 ", b"oops\n"]);
        assert_eq!(&frame[..], b"\x02\0\0\0\0\0\0\x0a2024 oops\n");
    }

    #[test]
    fn the_media_type_follows_the_version() {
        assert!(content_type(ApiVersion::new(1, 41), true).to_str().unwrap().ends_with("raw-stream"));
        assert!(content_type(ApiVersion::new(1, 42), true).to_str().unwrap().ends_with("multiplexed-stream"));
        assert!(content_type(ApiVersion::new(1, 42), false).to_str().unwrap().ends_with("raw-stream"));
    }
}
