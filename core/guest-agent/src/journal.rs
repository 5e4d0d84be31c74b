//! The journal port: records go out in whole batches, output only as far as the server's credit reaches.

use bulkhead_guest_protocol::journal::{
    Exited, HEADER_BYTES, OUTPUT_BYTES_MAX, StartFailed, Started, Stream, Writer,
};
use std::fs::File;
use std::io::{self, Write};

/// Output that is taken from a pipe at once.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub struct Journal<W = File> {
    port: W,
    writer: Writer,
    /// Where the journal ends, counted from the container's first run.
    position: u64,
    limit: u64,
    /// Records of output that do not fit below the limit yet.
    held: Vec<u8>,
}

impl<W: Write> Journal<W> {
    pub fn new(port: W, run: u32, position: u64, limit: u64) -> Self {
        Self { port, writer: Writer::new(run), position, limit, held: Vec::new() }
    }

    /// The limit only grows.
    pub fn raise_limit(&mut self, limit: u64) -> io::Result<()> {
        self.limit = self.limit.max(limit);
        self.release_held()
    }

    /// How much output may be taken now. With many records in it, it may still have to be held back for a while.
    pub fn room(&self) -> usize {
        if !self.held.is_empty() {
            return 0;
        }
        let free = usize::try_from(self.limit.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let headers = HEADER_BYTES * (1 + free.min(CHUNK_BYTES_MAX) / OUTPUT_BYTES_MAX);
        free.saturating_sub(headers).min(CHUNK_BYTES_MAX)
    }

    /// Whether all output that was taken is written.
    pub fn is_settled(&self) -> bool {
        self.held.is_empty()
    }

    pub fn output(&mut self, stream: Stream, unix_ns: u64, data: &[u8]) -> io::Result<()> {
        self.writer.output(stream, unix_ns, data, &mut self.held);
        self.release_held()
    }

    /// Gives up output that was held back.
    pub fn drop_held(&mut self) {
        self.held.clear();
    }

    pub fn started(&mut self, unix_ns: u64, pid: u32) -> io::Result<()> {
        let mut record = Vec::new();
        self.writer.started(unix_ns, &Started { pid }, &mut record);
        self.write(&record)
    }

    pub fn exited(&mut self, unix_ns: u64, exited: Exited) -> io::Result<()> {
        let mut record = Vec::new();
        self.writer.exited(unix_ns, exited, &mut record);
        self.write(&record)
    }

    pub fn start_failed(&mut self, unix_ns: u64, failed: StartFailed) -> io::Result<()> {
        let mut record = Vec::new();
        self.writer.start_failed(unix_ns, failed, &mut record);
        self.write(&record)
    }

    fn release_held(&mut self) -> io::Result<()> {
        let length = u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        if self.position.saturating_add(length) > self.limit {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        self.write(&held)
    }

    /// The port takes part of it at a time and answers when the back end has it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position = self.position.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.port.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_guest_protocol::journal::{Body, Reader};

    fn kinds(bytes: &[u8]) -> String {
        let mut reader = Reader::new(0);
        reader.push(0, bytes);
        std::iter::from_fn(|| reader.next_record())
            .map(|(_, record)| match record.body {
                Body::Output { data, .. } => char::from(data[0]),
                Body::Started(_) => 'S',
                Body::Exited(_) => 'E',
                Body::StartFailed(_) => 'F',
            })
            .collect()
    }

    #[test]
    fn output_stays_below_the_limit_and_the_exit_does_not_wait() {
        let mut journal = Journal::new(Vec::new(), 1, 1_000_000, 1_000_000 + 300);
        journal.started(1, 7).unwrap();
        let room = journal.room();
        assert!(room > 100 && room < 300 - HEADER_BYTES);
        journal.output(Stream::Stdout, 2, &vec![b'a'; room]).unwrap();
        assert!(journal.is_settled() && journal.position <= journal.limit);
        assert_eq!(journal.room(), 0);
        journal.output(Stream::Stdout, 3, b"b").unwrap();
        assert!(!journal.is_settled());
        journal.raise_limit(1_000_000 + 310).unwrap();
        assert!(!journal.is_settled());
        journal.raise_limit(2_000_000).unwrap();
        assert!(journal.is_settled());
        assert_eq!(journal.room(), CHUNK_BYTES_MAX);
        journal.raise_limit(0).unwrap();
        assert_eq!(journal.limit, 2_000_000);
        journal.exited(4, Exited::default()).unwrap();
        assert_eq!(kinds(&journal.port), "SabE");
        assert_eq!(journal.position, 1_000_000 + journal.port.len() as u64);
    }

    #[test]
    fn a_full_chunk_fits_into_the_room_it_was_given() {
        for free in [0, 36, 37, 16_420, 65_000, 65_536, 65_800, 70_000] {
            let mut journal = Journal::new(Vec::new(), 1, 0, free);
            journal.output(Stream::Stderr, 1, &vec![b'x'; journal.room()]).unwrap();
            assert!(journal.is_settled(), "{free}");
        }
    }
}
