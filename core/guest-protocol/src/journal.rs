//! Records that the agent appends to the machine's journal: output of the process, and how it began and ended.
//!
//! ```text
//!   0 magic │ 4 sum │ 8 kind │ 9 zeros │ 12 run │ 16 seq │ 24 unix_ns │ 32 length │ 36 payload …    (little endian)
//! ```
//!
//! `sum` is the [`checksum`] of everything behind it. The payload is output as it came (not split by lines), or a postcard
//! structure.
//!
//! **Invariant:** the magic is at the beginning of a record and nowhere else in it. The [`Writer`] parts output between
//! records where the process wrote the magic itself. So a [`Reader`] may begin anywhere, output that imitates a record
//! is never taken for one, and a record that was cut by a power loss ends where the next begins.

use crate::checksum;
use serde::{Deserialize, Serialize};

/// Most output in one record, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// Longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + OUTPUT_BYTES_MAX;
/// Bytes of a record besides its payload.
pub const HEADER_BYTES: usize = 36;

/// Not UTF-8, and no end of it is its beginning.
const MAGIC: [u8; 4] = [0xf5, 0x4a, 0xfe, 0xb1];
/// Longest text in a record, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// Kinds as written.
mod kind {
    pub(super) const STDOUT: u8 = 1;
    pub(super) const STDERR: u8 = 2;
    pub(super) const STARTED: u8 = 3;
    pub(super) const EXITED: u8 = 4;
    pub(super) const START_FAILED: u8 = 5;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which run of the container wrote it.
    pub run: u32,
    /// Counts the records of a run from 0.
    pub seq: u64,
    /// When, by the guest's clock: nanoseconds since 1970.
    pub unix_ns: u64,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Output {
        stream: Stream,
        data: Vec<u8>,
    },
    /// The process runs; first record of a run, unless it is `StartFailed`.
    Started(Started),
    /// The process ended and all its output is before this; last record of a run.
    Exited(Exited),
    /// There is and will be no process; the only record of its run.
    StartFailed(StartFailed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// In the guest, as its agent sees it.
    pub pid: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// 128 + signal if a signal ended it.
    pub code: i32,
    pub signal: Option<u8>,
    /// The kernel killed it, or a process of the container, for want of memory.
    pub oom_killed: bool,
    /// What went wrong besides; empty: nothing.
    pub error: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailed {
    /// 127: no such program; 126: it cannot be run; else 125 or 128.
    pub code: i32,
    pub message: String,
}

/// Makes the records of one run.
#[derive(Debug)]
pub struct Writer {
    run: u32,
    seq: u64,
}

impl Writer {
    pub fn new(run: u32) -> Self {
        Self { run, seq: 0 }
    }

    /// Appends records with all of `data` to `out`.
    pub fn output(&mut self, stream: Stream, unix_ns: u64, data: &[u8], out: &mut Vec<u8>) {
        let kind = match stream {
            Stream::Stdout => kind::STDOUT,
            Stream::Stderr => kind::STDERR,
        };
        let mut rest = data;
        while !rest.is_empty() {
            let mut length = rest.len().min(OUTPUT_BYTES_MAX);
            if let Some(at) = rest.get(..length).and_then(find_magic) {
                length = at + MAGIC.len() / 2;
            }
            let Some((piece, more)) = rest.split_at_checked(length) else { return };
            self.record(kind, unix_ns, piece, out);
            rest = more;
        }
    }

    pub fn started(&mut self, unix_ns: u64, started: &Started, out: &mut Vec<u8>) {
        self.structure(kind::STARTED, unix_ns, started, out);
    }

    /// A longer error text is cut.
    pub fn exited(&mut self, unix_ns: u64, mut exited: Exited, out: &mut Vec<u8>) {
        truncate(&mut exited.error);
        self.structure(kind::EXITED, unix_ns, &exited, out);
    }

    /// A longer message is cut.
    pub fn start_failed(&mut self, unix_ns: u64, mut failed: StartFailed, out: &mut Vec<u8>) {
        truncate(&mut failed.message);
        self.structure(kind::START_FAILED, unix_ns, &failed, out);
    }

    fn structure<T: Serialize>(&mut self, kind: u8, unix_ns: u64, body: &T, out: &mut Vec<u8>) {
        // Numbers and strings in a vector: this cannot fail.
        if let Ok(payload) = postcard::to_stdvec(body) {
            self.record(kind, unix_ns, &payload, out);
        }
    }

    fn record(&mut self, kind: u8, mut unix_ns: u64, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        // A checksum that looks like the magic once in 2^32 records: a nanosecond later it does not.
        for _ in 0..4 {
            out.truncate(start);
            let mut summed = Vec::with_capacity(HEADER_BYTES - 8);
            summed.extend([kind, 0, 0, 0]);
            summed.extend(self.run.to_le_bytes());
            summed.extend(self.seq.to_le_bytes());
            summed.extend(unix_ns.to_le_bytes());
            summed.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend(MAGIC);
            out.extend(checksum::of(&[&summed, payload]));
            out.extend(summed);
            out.extend_from_slice(payload);
            // The payload has none in itself.
            let header = start + 1..out.len().min(start + HEADER_BYTES + MAGIC.len() - 1);
            if out.get(header).and_then(find_magic).is_none() {
                break;
            }
            unix_ns = unix_ns.wrapping_add(1);
        }
        self.seq += 1;
    }
}

fn truncate(text: &mut String) {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + find_first_of_magic(bytes.get(from..)?)?;
        if bytes.get(at..)?.starts_with(&MAGIC) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Eight bytes at a time: all output passes here, in a guest whose instructions may be emulated.
fn find_first_of_magic(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let [first, ..] = MAGIC;
    let (words, _) = bytes.as_chunks::<8>();
    let without = words.iter().take_while(|word| {
        // A byte of zero, and only such a one or those above it, borrows from a bit that it does not have.
        let difference = u64::from_le_bytes(**word) ^ (ONES * u64::from(first));
        difference.wrapping_sub(ONES) & !difference & (ONES << 7) == 0
    });
    let from = 8 * without.count();
    Some(from + bytes.get(from..)?.iter().position(|byte| *byte == first)?)
}

/// Finds records in a journal that is read from any offset on.
///
/// Take every record before more is pushed: then it keeps less than [`RECORD_BYTES_MAX`] besides the last piece.
#[derive(Debug)]
pub struct Reader {
    buffer: Vec<u8>,
    /// Of the first byte in `buffer`, in the journal.
    base: u64,
    /// Bytes of `buffer` that are done with.
    taken: usize,
    skipped: u64,
}

impl Reader {
    /// The first bytes to be pushed are those at `offset`.
    pub fn new(offset: u64) -> Self {
        Self { buffer: Vec::new(), base: offset, taken: 0, skipped: 0 }
    }

    /// Bytes of the journal at `offset`. If they do not join the last ones, what was begun is thrown away.
    pub fn push(&mut self, offset: u64, bytes: &[u8]) {
        if offset == self.end() {
            self.buffer.drain(..self.taken);
            self.base = self.base.saturating_add(count(self.taken));
        } else {
            self.skipped += count(self.buffer.len() - self.taken);
            self.buffer.clear();
            self.base = offset;
        }
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record and its offset; `None` if more bytes are needed.
    pub fn next_record(&mut self) -> Option<(u64, Record)> {
        loop {
            let rest = self.buffer.get(self.taken..)?;
            if !rest.starts_with(&MAGIC) {
                let garbage = find_magic(rest).unwrap_or_else(|| rest.len() - beginning_at_end(rest));
                if garbage == 0 {
                    return None;
                }
                self.skip(garbage);
                continue;
            }
            // The next magic is the end of this record, whatever its header says.
            let whole = rest.get(1..).and_then(find_magic).map(|at| at + 1);
            match parse(rest.get(..whole.unwrap_or(rest.len()))?) {
                Parsed::Record(record, length) => {
                    let offset = self.offset();
                    self.taken += length;
                    return Some((offset, record));
                }
                Parsed::Incomplete => match whole {
                    Some(cut) => self.skip(cut),
                    None => return None,
                },
                Parsed::Garbage => self.skip(1),
            }
        }
    }

    /// Everything before this was given out or skipped: where to go on reading after a restart, and how far the
    /// journal may be released.
    pub fn offset(&self) -> u64 {
        self.base.saturating_add(count(self.taken))
    }

    /// One past the last byte pushed: where to read next.
    pub fn end(&self) -> u64 {
        self.base.saturating_add(count(self.buffer.len()))
    }

    /// Bytes so far that were no record.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn skip(&mut self, bytes: usize) {
        self.taken += bytes;
        self.skipped += count(bytes);
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// How many of the last bytes may be the beginning of the magic.
fn beginning_at_end(bytes: &[u8]) -> usize {
    (1..MAGIC.len())
        .rev()
        .find(|length| MAGIC.get(..*length).is_some_and(|head| bytes.ends_with(head)))
        .unwrap_or(0)
}

enum Parsed {
    Record(Record, usize),
    Incomplete,
    Garbage,
}

/// `bytes` begin with the magic.
fn parse(bytes: &[u8]) -> Parsed {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Parsed::Incomplete };
    let mut fields = Fields(header);
    let _magic = fields.u32();
    let sum = fields.take();
    let [kind, run] = [fields.u32(), fields.u32()];
    let [seq, unix_ns] = [fields.u64(), fields.u64()];
    let Ok(length) = usize::try_from(fields.u32()) else { return Parsed::Garbage };
    if length > OUTPUT_BYTES_MAX {
        return Parsed::Garbage;
    }
    let total = HEADER_BYTES + length;
    let Some(summed) = bytes.get(8..total) else { return Parsed::Incomplete };
    let payload = summed.get(HEADER_BYTES - 8..).unwrap_or_default();
    if checksum::of(&[summed]) != sum {
        return Parsed::Garbage;
    }
    match u8::try_from(kind).ok().and_then(|kind| body(kind, payload)) {
        Some(body) => Parsed::Record(Record { run, seq, unix_ns, body }, total),
        None => Parsed::Garbage,
    }
}

fn body(kind: u8, payload: &[u8]) -> Option<Body> {
    let output = |stream| Body::Output { stream, data: payload.to_vec() };
    match kind {
        kind::STDOUT => Some(output(Stream::Stdout)),
        kind::STDERR => Some(output(Stream::Stderr)),
        kind::STARTED => postcard::from_bytes(payload).ok().map(Body::Started),
        kind::EXITED => postcard::from_bytes(payload).ok().map(Body::Exited),
        kind::START_FAILED => postcard::from_bytes(payload).ok().map(Body::StartFailed),
        _ => None,
    }
}

/// Reads little-endian numbers one after the other; zeros after the end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
