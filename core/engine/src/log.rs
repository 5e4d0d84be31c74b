//! A container's log: its output by lines, with the guest's timestamps.

use crate::driver::time_of;
use crate::output::{Cursor, OutputStream, current_or_next_run};
use crate::{Engine, EngineError, Session};
use bulkhead_guest_protocol::journal::{Body, Record};
use bulkhead_model::lifecycle::{Goal, Status};
use bulkhead_model::{Action, LogDriver};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::{BTreeMap, VecDeque};

/// Longer lines come in pieces; only the last has the newline.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Each piece of an answer costs both sides more than a short line does.
const LINES_AT_ONCE: usize = 512;

/// Which lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogQuery {
    pub stdout: bool,
    pub stderr: bool,
    /// Included.
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
    /// The last so many lines of those there are; `None`: all.
    pub tail: Option<u64>,
    /// Go on until the container stops.
    pub follow: bool,
}

/// A line, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub at: DateTime<Utc>,
    pub stream: OutputStream,
    /// With its newline, where it has one.
    pub data: Bytes,
}

/// A container's log, as it was asked for.
pub struct Log {
    /// As many at a time as are there, within bounds; never none.
    pub lines: BoxStream<'static, Result<Vec<LogLine>, EngineError>>,
    /// It is of a terminal: one stream.
    pub terminal: bool,
    /// Told beside each line, to whoever asks for details.
    pub details: BTreeMap<String, String>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

/// Puts pieces of output together to lines.
#[derive(Debug, Default)]
struct Lines {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    last_at: DateTime<Utc>,
    ready: VecDeque<LogLine>,
}

impl Lines {
    fn push(&mut self, record: Record) {
        let at = time_of(record.unix_ns);
        match record.body {
            Body::Output { stream, data } => {
                self.last_at = at;
                let data = Bytes::from(data);
                let stream = OutputStream::from(stream);
                let pending = match stream {
                    OutputStream::Stdout => &mut self.stdout,
                    OutputStream::Stderr => &mut self.stderr,
                };
                for piece in data.split_inclusive(|byte| *byte == b'\n') {
                    if pending.is_empty() && piece.len() <= LINE_BYTES_MAX && piece.ends_with(b"\n") {
                        // Most are like this, and need no copy.
                        self.ready.push_back(LogLine { at, stream, data: data.slice_ref(piece) });
                        continue;
                    }
                    for part in piece.chunks(LINE_BYTES_MAX) {
                        if pending.len() + part.len() > LINE_BYTES_MAX {
                            let data = std::mem::take(pending).into();
                            self.ready.push_back(LogLine { at, stream, data });
                        }
                        pending.extend_from_slice(part);
                        if part.ends_with(b"\n") {
                            let data = std::mem::take(pending).into();
                            self.ready.push_back(LogLine { at, stream, data });
                        }
                    }
                }
            }
            // A run's last line may lack its newline; it ends here all the same.
            Body::Started(_) | Body::Exited(_) | Body::StartFailed(_) => self.flush(),
        }
    }

    fn flush(&mut self) {
        for (stream, pending) in
            [(OutputStream::Stdout, &mut self.stdout), (OutputStream::Stderr, &mut self.stderr)]
        {
            if !pending.is_empty() {
                let data = std::mem::take(pending).into();
                self.ready.push_back(LogLine { at: self.last_at, stream, data });
            }
        }
    }
}

struct Tail {
    cursor: Option<Cursor>,
    lines: Lines,
    query: LogQuery,
    /// Lines that were there already, cut to the wanted number.
    backlog: VecDeque<LogLine>,
    /// A line came that is later than any that is wanted.
    past: bool,
}

impl Engine {
    pub async fn logs(&self, session: &Session, text: &str, query: LogQuery) -> Result<Log, EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerLogs, text).await?;
        if container.desired.goal == Goal::Gone {
            return Err(EngineError::Conflict(
                "can not get logs from container which is dead or marked for removal".into(),
            ));
        }
        let (spec, terminal) = (&container.spec, container.spec.stdio.tty);
        if spec.log.driver == LogDriver::None {
            return Err(EngineError::LogNotKept);
        }
        let details = spec.log.details(&spec.labels, &spec.env);
        let live = matches!(container.status, Status::Starting { .. } | Status::Running { .. });
        let follow = query.follow && live;
        let mut tail =
            Tail { cursor: None, lines: Lines::default(), query, backlog: VecDeque::new(), past: false };
        match query.tail {
            None => {
                let last_run = follow.then(|| current_or_next_run(&container));
                tail.cursor = Some(self.cursor(&container, true, last_run, false).await?);
            }
            Some(count) => {
                let mut cursor = self.cursor(&container, true, None, false).await?;
                while let Some(record) = cursor.next().await? {
                    tail.lines.push(record);
                    while let Some(line) = tail.lines.ready.pop_front() {
                        tail.remember(line, count);
                    }
                }
                if follow && !tail.past {
                    cursor.follow(current_or_next_run(&container));
                    tail.cursor = Some(cursor);
                } else {
                    tail.lines.flush();
                    while let Some(line) = tail.lines.ready.pop_front() {
                        tail.remember(line, count);
                    }
                }
            }
        }
        let lines = stream::unfold(tail, |mut tail| async move {
            let item = tail.next().await.transpose()?;
            Some((item, tail))
        })
        .boxed();
        Ok(Log { lines, terminal, details })
    }
}

impl Tail {
    fn wanted(&self, line: &LogLine) -> bool {
        let stream = match line.stream {
            OutputStream::Stdout => self.query.stdout,
            OutputStream::Stderr => self.query.stderr,
        };
        stream && self.query.since.is_none_or(|since| line.at >= since)
    }

    fn remember(&mut self, line: LogLine, count: u64) {
        let early = self.query.until.is_none_or(|until| line.at <= until);
        self.past |= !early;
        if !early || !self.wanted(&line) {
            return;
        }
        self.backlog.push_back(line);
        while u64::try_from(self.backlog.len()).unwrap_or(u64::MAX) > count {
            self.backlog.pop_front();
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<LogLine>>, EngineError> {
        let at_once = self.backlog.len().min(LINES_AT_ONCE);
        let mut lines: Vec<LogLine> = self.backlog.drain(..at_once).collect();
        loop {
            while lines.len() < LINES_AT_ONCE
                && let Some(line) = self.lines.ready.pop_front()
            {
                if self.query.until.is_some_and(|until| line.at > until) {
                    self.cursor = None;
                    self.lines.ready.clear();
                } else if self.wanted(&line) {
                    lines.push(line);
                }
            }
            let waits = !self.cursor.as_ref().is_some_and(Cursor::is_ready);
            if lines.len() >= LINES_AT_ONCE || !lines.is_empty() && waits {
                return Ok(Some(lines));
            }
            let Some(cursor) = self.cursor.as_mut() else { return Ok(None) };
            match cursor.next().await? {
                Some(record) => self.lines.push(record),
                None => {
                    self.cursor = None;
                    self.lines.flush();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_guest_protocol::journal::Stream;

    fn check(pieces: &[&str], expect: &[&str]) {
        let mut lines = Lines::default();
        for (seq, piece) in pieces.iter().enumerate() {
            let body = Body::Output { stream: Stream::Stdout, data: piece.as_bytes().to_vec() };
            lines.push(Record { run: 1, seq: seq as u64, unix_ns: 0, body });
        }
        lines.flush();
        let got: Vec<_> =
            lines.ready.iter().map(|line| String::from_utf8_lossy(&line.data).into_owned()).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn pieces_become_lines() {
        check(&["a\nb", "c\n", "d"], &["a\n", "bc\n", "d"]);
        check(&["\n\n"], &["\n", "\n"]);
    }

    #[test]
    fn long_lines_come_in_pieces_and_only_the_last_has_the_newline() {
        let long = "x".repeat(LINE_BYTES_MAX);
        check(&[&long, "yz\n"], &[&long, "yz\n"]);
    }
}
