//! `GET /containers/{id}/logs`: what was written, and what will be.

use crate::call::{Answer, Call};
use crate::error::{ApiError, chain};
use crate::framing::{self, Channel};
use crate::{reply, time};
use bulkhead_engine::{EngineError, LogLine, LogQuery};
use bytes::Bytes;
use futures_util::StreamExt;

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
    let stamps = call.query.flag("timestamps");
    let lines = call.engine().logs(&call.session, &call.name, query).await?;
    let frames = lines.map(move |line| frame(line, stamps));
    Ok(reply::stream(&call, framing::content_type(call.version, true), frames))
}

/// A line is a frame; its stamp lies inside.
fn frame(line: Result<LogLine, EngineError>, stamps: bool) -> Bytes {
    match line {
        Ok(line) if stamps => {
            let stamp = time::log_stamp(line.at);
            framing::frame(line.stream.into(), &[stamp.as_bytes(), b" ", &line.data])
        }
        Ok(line) => framing::frame(line.stream.into(), &[&line.data]),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "logs broke off");
            let message = ApiError::from(error).message;
            framing::frame(Channel::EngineError, &[b"Error grabbing logs: ", message.as_bytes(), b"\n"])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_engine::OutputStream;
    use bulkhead_model::Clock;

    #[test]
    fn stamps_lie_inside_the_frame() {
        let at = Clock::fixed(1_700_000_000).now();
        let line = || Ok(LogLine { at, stream: OutputStream::Stderr, data: Bytes::from_static(b"oops\n") });
        assert_eq!(&frame(line(), false)[..], b"\x02\0\0\0\0\0\0\x05oops\n");
        let stamped = frame(line(), true);
        assert_eq!(&stamped[8..], b"2023-11-14T22:13:20.000000000Z oops\n");
        assert_eq!(stamped[7], 36);
        let broken = frame(Err(EngineError::Stopping), false);
        assert_eq!(broken[0], 3);
    }
}
