//! `GET /containers/{id}/logs`: what was written, and what will be.

use crate::call::{Answer, Call};
use crate::error::{ApiError, chain};
use crate::framing::{self, Channel};
use crate::{reply, time};
use bulkhead_engine::{EngineError, LogLine, LogQuery};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use std::collections::BTreeMap;

pub async fn get(call: Call) -> Answer {
    let query = LogQuery {
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
        since: time::parse_bound("since", call.query.get("since"))?,
        until: time::parse_bound("until", call.query.get("until"))?,
        // Anything but a number means all.
        tail: call.query.text("tail").and_then(|tail| tail.parse().ok()),
        follow: call.query.flag("follow"),
    };
    if !query.stdout && !query.stderr {
        return Err(ApiError::bad("Bad parameters: you must choose at least one stream"));
    }
    let (stamps, with_details) = (call.query.flag("timestamps"), call.query.flag("details"));
    let log = call.engine().logs(&call.session, &call.name, query).await?;
    let shape = Shape { framed: !log.terminal, stamps, details: with_details.then(|| details(&log.details)) };
    let content_type = framing::content_type(call.version, shape.framed);
    let pieces = log.lines.map(move |lines| shape.piece(lines));
    Ok(reply::stream(&call, content_type, pieces))
}

/// How lines are written.
struct Shape {
    /// A line is a frame, and all that stands before it lies inside; else it goes out as it is.
    framed: bool,
    stamps: bool,
    /// Empty where there are none: the space after it comes all the same.
    details: Option<String>,
}

impl Shape {
    fn piece(&self, lines: Result<Vec<LogLine>, EngineError>) -> Bytes {
        let mut piece = BytesMut::new();
        match lines {
            Ok(lines) => {
                piece.reserve(lines.iter().map(|line| framing::HEADER_BYTES + line.data.len()).sum());
                for line in lines {
                    let mut before = String::new();
                    if self.stamps {
                        before = time::log_stamp(line.at) + " ";
                    }
                    if let Some(details) = &self.details {
                        before.extend([details.as_str(), " "]);
                    }
                    self.put(&mut piece, line.stream.into(), &[before.as_bytes(), &line.data]);
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "logs broke off");
                let message = ApiError::from(error).message;
                let parts = [b"Error grabbing logs: ".as_slice(), message.as_bytes(), b"\n"];
                self.put(&mut piece, Channel::EngineError, &parts);
            }
        }
        piece.freeze()
    }

    fn put(&self, piece: &mut BytesMut, channel: Channel, parts: &[&[u8]]) {
        match self.framed {
            true => framing::put_frame(piece, channel, parts),
            false => parts.iter().for_each(|part| piece.extend_from_slice(part)),
        }
    }
}

/// `name=value,…`, sorted, each encoded as in a form.
fn details(details: &BTreeMap<String, String>) -> String {
    let pairs = details.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => encoded += &format!("%{byte:02X}"),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_engine::OutputStream;
    use bulkhead_model::Clock;

    #[test]
    fn stamps_lie_inside_the_frame() {
        let at = Clock::fixed(1_700_000_000).now();
        let line = |data| LogLine { at, stream: OutputStream::Stderr, data: Bytes::from_static(data) };
        let lines = || Ok(vec![line(b"oops\n")]);
        let shape = |stamps| Shape { framed: true, stamps, details: None };
        assert_eq!(&shape(false).piece(lines())[..], b"\x02\0\0\0\0\0\0\x05oops\n");
        let two = shape(false).piece(Ok(vec![line(b"a"), line(b"bc")]));
        assert_eq!(&two[..], b"\x02\0\0\0\0\0\0\x01a\x02\0\0\0\0\0\0\x02bc");
        let stamped = shape(true).piece(lines());
        assert_eq!(&stamped[8..], b"2023-11-14T22:13:20.000000000Z oops\n");
        assert_eq!(stamped[7], 36);
        let broken = shape(false).piece(Err(EngineError::Stopping));
        assert_eq!(broken[0], 3);
    }

    #[test]
    fn details_stand_between_stamp_and_line() {
        let at = Clock::fixed(1_700_000_000).now();
        let line =
            || Ok(vec![LogLine { at, stream: OutputStream::Stdout, data: Bytes::from_static(b"hi\n") }]);
        let told = |pairs: &[(&str, &str)]| {
            details(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        let raw = |stamps, details| Shape { framed: false, stamps, details: Some(details) };
        let both = told(&[("z", "1"), ("a b", "c=d,é")]);
        assert_eq!(&raw(false, both).piece(line())[..], b"a+b=c%3Dd%2C%C3%A9,z=1 hi\n");
        assert_eq!(&raw(false, told(&[])).piece(line())[..], b" hi\n");
        let stamped = raw(true, told(&[("a", "1")])).piece(line());
        assert_eq!(&stamped[..], b"2023-11-14T22:13:20.000000000Z a=1 hi\n");
    }
}
