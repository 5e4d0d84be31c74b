//! The one parser of tar archives, for layers, `load` and `import` (POSIX pax, ustar, GNU and v7; see `pax(1)` and the
//! GNU tar manual, "Basic Tar Format" and "Storing Sparse Files").
//!
//! It is strict where readers are known to disagree, because a scanner that saw another archive than we do is a hole:
//! a pax size beside a different header size, doubled or conflicting name records, bodies on entries that have none,
//! data after the end marks, and a missing end mark are refused.
//!
//! It hands out every byte that is not a file's content ([`TarReader::take_literals`]), so that the archive can be
//! put together again, byte for byte, from those and the files.

mod header;
mod pax;
mod sparse;

use crate::layer_error::{LayerError, shown};
use crate::limits::LayerLimits;
use header::{BLOCK, Header};
use pax::PaxRecords;
use std::io::Read;

/// Longest pax header: attributes in base 64 and names fit in with room to spare.
const PAX_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mtime {
    pub seconds: i64,
    pub nanoseconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    File,
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Directory,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
}

/// One member of an archive, names as they stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    /// Bytes of the body in the archive.
    pub stored: u64,
    /// Bytes of the file: more than `stored` if it is sparse.
    pub size: u64,
    /// Where the body's pieces belong in a sparse file: offset and length, in order.
    pub pieces: Option<Vec<(u64, u64)>>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads an archive as a stream.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    limits: LayerLimits,
    position: u64,
    entries: u64,
    body_left: u64,
    padding: u64,
    keep_literals: bool,
    literals: Vec<u8>,
    ended: bool,
}

impl<R: Read> TarReader<R> {
    pub fn new(input: R, limits: LayerLimits) -> Self {
        Self {
            input,
            limits,
            position: 0,
            entries: 0,
            body_left: 0,
            padding: 0,
            keep_literals: true,
            literals: Vec::new(),
            ended: false,
        }
    }

    /// For readers that only look: [`TarReader::take_literals`] stays empty.
    pub fn without_literals(mut self) -> Self {
        self.keep_literals = false;
        self
    }

    /// Bytes consumed: after [`TarReader::next_entry`], where the body begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// What was read since the last call and is no file's content: headers and padding.
    pub fn take_literals(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.literals)
    }

    /// The next member, after what is left of the last one's body.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        if self.ended {
            return Ok(None);
        }
        self.finish_body()?;
        let mut pax = PaxRecords::default();
        let mut pax_seen = false;
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        loop {
            let Some(header) = self.next_header()? else {
                if pax_seen || long_name.is_some() || long_link.is_some() {
                    return Err(LayerError::Truncated("an extended header is followed by no entry"));
                }
                self.read_to_end()?;
                self.ended = true;
                return Ok(None);
            };
            match header.kind() {
                b'x' | b'X' => {
                    if pax_seen {
                        return Err(LayerError::refused("two pax headers before one entry"));
                    }
                    pax_seen = true;
                    let body = self.read_extension(&header, PAX_BYTES_MAX)?;
                    pax = PaxRecords::parse(&body, &self.limits)?;
                }
                b'g' => {
                    let body = self.read_extension(&header, PAX_BYTES_MAX)?;
                    PaxRecords::parse(&body, &self.limits)?.refuse_as_global()?;
                }
                b'L' => self.read_long(&header, &mut long_name)?,
                b'K' => self.read_long(&header, &mut long_link)?,
                _ => {
                    let entry = self.entry(&header, pax, long_name, long_link)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads from the body of the current entry; 0 at its end.
    pub fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let want = usize::try_from(self.body_left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let part = buffer.get_mut(..want).unwrap_or_default();
        let got = self.input.read(part).map_err(LayerError::Read)?;
        if got == 0 {
            return Err(LayerError::Truncated("in a file's content"));
        }
        self.body_left -= got as u64;
        self.advance(got as u64)?;
        Ok(got)
    }

    /// The whole body of the current entry, if it is not longer than `max`.
    pub fn read_small_body(&mut self, max: u64) -> Result<Vec<u8>, LayerError> {
        if self.body_left > max {
            return Err(LayerError::limit("a file in the archive", format!("{max} bytes")));
        }
        let mut body = vec![0; usize::try_from(self.body_left).unwrap_or_default()];
        let mut filled = 0;
        while let Some(rest) = body.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += self.read_body(rest)?;
        }
        Ok(body)
    }

    fn advance(&mut self, bytes: u64) -> Result<(), LayerError> {
        self.position += bytes;
        if self.position > self.limits.uncompressed_bytes {
            let limit = format!("{} bytes", self.limits.uncompressed_bytes);
            return Err(LayerError::limit("the uncompressed archive", limit));
        }
        Ok(())
    }

    fn finish_body(&mut self) -> Result<(), LayerError> {
        let mut scrap = [0; 8192];
        while self.read_body(&mut scrap)? > 0 {}
        let padding = std::mem::take(&mut self.padding);
        self.read_literal(padding, "in the padding behind a file")?;
        Ok(())
    }

    /// Reads bytes that are no file's content.
    fn read_literal(&mut self, bytes: u64, place: &'static str) -> Result<Vec<u8>, LayerError> {
        let mut data = vec![0; usize::try_from(bytes).map_err(|_| LayerError::Truncated(place))?];
        self.input.read_exact(&mut data).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => LayerError::Truncated(place),
            _ => LayerError::Read(error),
        })?;
        self.advance(bytes)?;
        if self.keep_literals {
            self.literals.extend_from_slice(&data);
        }
        Ok(data)
    }

    /// `None` at the end marks: two blocks of zeros, or one and then nothing (some writers stop there).
    fn next_header(&mut self) -> Result<Option<Header>, LayerError> {
        let block = self.read_literal(BLOCK, "there is no end mark")?;
        if let Some(header) = Header::parse(&block)? {
            return Ok(Some(header));
        }
        Ok(None)
    }

    /// Behind the first block of zeros: nothing but zeros, in whole blocks or not.
    fn read_to_end(&mut self) -> Result<(), LayerError> {
        let mut buffer = [0; 8192];
        loop {
            let got = self.input.read(&mut buffer).map_err(LayerError::Read)?;
            let part = buffer.get(..got).unwrap_or_default();
            if part.is_empty() {
                return Ok(());
            }
            if part.iter().any(|&byte| byte != 0) {
                return Err(LayerError::refused("there is data behind the end mark"));
            }
            if self.keep_literals {
                self.literals.extend_from_slice(part);
                // Padding costs nothing in the recipe, but it must not pile up here.
                if self.literals.len() > 1 << 24 {
                    return Err(LayerError::limit("padding behind the end mark", "16777216 bytes"));
                }
            }
            self.advance(got as u64)?;
        }
    }

    fn read_extension(&mut self, header: &Header, max: u64) -> Result<Vec<u8>, LayerError> {
        let size = header.size()?;
        if size > max {
            return Err(LayerError::limit("an extended header", format!("{max} bytes")));
        }
        let body = self.read_literal(size, "in an extended header")?;
        self.read_literal(padding(size), "in an extended header")?;
        Ok(body)
    }

    fn read_long(&mut self, header: &Header, slot: &mut Option<Vec<u8>>) -> Result<(), LayerError> {
        if slot.is_some() {
            return Err(LayerError::refused("two long names before one entry"));
        }
        let mut name = self.read_extension(header, self.limits.name_bytes as u64 + 1)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        *slot = Some(name);
        Ok(())
    }

    fn entry(
        &mut self,
        header: &Header,
        pax: PaxRecords,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, LayerError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(LayerError::limit("the number of entries", self.limits.entries));
        }
        if (long_name.is_some() && pax.path.is_some()) || (long_link.is_some() && pax.link.is_some()) {
            return Err(LayerError::refused("an entry has both a GNU and a pax long name"));
        }
        let path = pax.path.clone().or(long_name).unwrap_or_else(|| header.path());
        let link = pax.link.clone().or(long_link).unwrap_or_else(|| header.link());
        for name in [&path, &link] {
            if name.len() > self.limits.name_bytes {
                return Err(LayerError::limit("the length of a name", self.limits.name_bytes));
            }
            if name.contains(&0) {
                return Err(LayerError::refused(format!("a zero byte in the name {}", shown(name))));
            }
        }
        let stored = pax.size(header)?;
        let kind = header.entry_kind(&path, link)?;
        let is_file = matches!(kind, EntryKind::File);
        if !is_file && stored != 0 {
            return Err(LayerError::refused(format!("{} has a body, but is not a file", shown(&path))));
        }
        let mut entry = Entry {
            kind,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax.mtime.map_or_else(|| header.mtime(), Ok)?,
            stored,
            size: stored,
            pieces: None,
            xattrs: pax.xattrs.clone(),
            path,
        };
        self.body_left = stored;
        self.padding = padding(stored);
        if is_file {
            self.apply_sparse(header, &pax, &mut entry)?;
        } else if header.kind() == b'S' || pax.sparse.is_some() {
            return Err(LayerError::refused(format!("{} is sparse, but not a file", shown(&entry.path))));
        }
        if entry.size > self.limits.uncompressed_bytes {
            let limit = format!("{} bytes", self.limits.uncompressed_bytes);
            return Err(LayerError::limit(format!("the size of {}", shown(&entry.path)), limit));
        }
        Ok(entry)
    }
}

/// Zeros up to the next block.
fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}
