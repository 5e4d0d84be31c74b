//! How to get an archive back, byte for byte, from the layer disk that was made of it.
//!
//! The archive is a run of pieces: bytes that are no file's content (headers, padding) and contents, which lie uncompressed
//! on the disk already. The list of pieces, compressed, takes about one part in two hundred; it is kept in the same file,
//! between the contents and behind the filesystem's end, where the guest does not look. So `save` gives the
//! archive that was pulled, its digest unchanged, and an image keeps its id from machine to machine.
//!
//! Pieces: `0, length, bytes` or `1, offset in the file, length`, numbers as LEB128; one zstd stream, spread over frames.
//! The last 128 bytes of the file are the footer, before it the table of frames.

use crate::erofs::BLOCK;
use crate::erofs::disk::DiskWriter;
use crate::layer_error::LayerError;
use crate::store::LayerFacts;
use bulkhead_model::Digest;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

const MAGIC: &[u8; 8] = b"BHLAYER1";
const FOOTER_BYTES: u64 = 128;
const FRAME_BYTES: usize = 256 << 10;
/// More frames than the largest archive needs.
const FRAMES_MAX: u64 = 1 << 20;
const LITERAL_MAX: u64 = 32 << 20;

const LITERAL: u8 = 0;
const CONTENT: u8 = 1;

pub(crate) struct RecipeWriter {
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
    frames: Vec<(u64, u64)>,
    /// The content piece that may still grow.
    open: Option<(u64, u64)>,
}

/// What the footer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    pub table: u64,
    pub frames: u64,
    pub archive_bytes: u64,
    pub size_bytes: u64,
    pub entries: u64,
    pub diff_id: [u8; 32],
}

impl RecipeWriter {
    pub fn new() -> Result<Self, LayerError> {
        let encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).map_err(LayerError::Write)?;
        Ok(Self { encoder, frames: Vec::new(), open: None })
    }

    pub fn literal(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.close()?;
        let mut head = vec![LITERAL];
        put_number(&mut head, bytes.len() as u64);
        self.put(&head)?;
        self.put(bytes)
    }

    pub fn content(&mut self, offset: u64, length: u64) -> Result<(), LayerError> {
        if let Some((from, so_far)) = &mut self.open
            && *from + *so_far == offset
        {
            *so_far += length;
            return Ok(());
        }
        self.close()?;
        self.open = (length > 0).then_some((offset, length));
        Ok(())
    }

    /// Moves what has piled up to the disk; called between two files.
    pub fn spill(&mut self, disk: &mut DiskWriter) -> Result<(), LayerError> {
        if self.encoder.get_ref().len() >= FRAME_BYTES { self.write_frame(disk) } else { Ok(()) }
    }

    /// Ends the file: last frame, table, footer.
    pub fn finish(mut self, disk: &mut DiskWriter, mut footer: Footer) -> Result<(), LayerError> {
        self.close()?;
        self.encoder.do_finish().map_err(LayerError::Write)?;
        self.write_frame(disk)?;
        footer.table = disk.position();
        footer.frames = self.frames.len() as u64;
        let mut table = Vec::with_capacity(self.frames.len() * 16);
        for (offset, length) in &self.frames {
            table.extend(offset.to_le_bytes());
            table.extend(length.to_le_bytes());
        }
        disk.write(&table)?;
        // The file ends at a full block, the footer right before.
        let end = (disk.position() + FOOTER_BYTES).next_multiple_of(BLOCK);
        disk.zeros_to(end - FOOTER_BYTES)?;
        disk.write(&footer.encode())
    }

    fn write_frame(&mut self, disk: &mut DiskWriter) -> Result<(), LayerError> {
        let frame = std::mem::take(self.encoder.get_mut());
        disk.align()?;
        self.frames.push((disk.position(), frame.len() as u64));
        disk.write(&frame)?;
        disk.align()?;
        Ok(())
    }

    fn close(&mut self) -> Result<(), LayerError> {
        if let Some((offset, length)) = self.open.take() {
            let mut piece = vec![CONTENT];
            put_number(&mut piece, offset);
            put_number(&mut piece, length);
            self.put(&piece)?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.encoder.write_all(bytes).map_err(LayerError::Write)
    }
}

impl Footer {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES as usize);
        bytes.extend_from_slice(MAGIC);
        for number in [self.table, self.frames, self.archive_bytes, self.size_bytes, self.entries] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.diff_id);
        bytes.resize(FOOTER_BYTES as usize, 0);
        bytes
    }

    /// Reads the footer of a layer disk and the length of the file.
    pub fn read(file: &File) -> io::Result<(Self, u64)> {
        let length = file.metadata()?.len();
        let at = length.checked_sub(FOOTER_BYTES).ok_or_else(|| damaged("it is too short"))?;
        let mut bytes = [0; FOOTER_BYTES as usize];
        file.read_exact_at(&mut bytes, at)?;
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it has no footer"))?;
        let mut numbers = [0_u64; 5];
        for number in &mut numbers {
            let (head, tail) = rest.split_first_chunk::<8>().ok_or_else(|| damaged("its footer is short"))?;
            *number = u64::from_le_bytes(*head);
            rest = tail;
        }
        let (diff_id, _) = rest.split_first_chunk::<32>().ok_or_else(|| damaged("its footer is short"))?;
        let [table, frames, archive_bytes, size_bytes, entries] = numbers;
        Ok((Self { table, frames, archive_bytes, size_bytes, entries, diff_id: *diff_id }, length))
    }
}

/// The sizes that a layer disk carries itself.
pub fn facts(file: &File) -> io::Result<LayerFacts> {
    let (footer, disk_bytes) = Footer::read(file)?;
    Ok(LayerFacts { size_bytes: footer.size_bytes, disk_bytes })
}

/// The digest of the archive that a layer disk was made of, as the disk says itself.
pub fn diff_id(file: &File) -> io::Result<Digest> {
    Ok(Digest::sha256(Footer::read(file)?.0.diff_id))
}

/// Bytes of the archive that a layer disk was made of, as the disk says itself.
pub fn archive_bytes(file: &File) -> io::Result<u64> {
    Ok(Footer::read(file)?.0.archive_bytes)
}

/// Writes the archive that the disk was made of. Everything in the file is taken as hostile; the caller checks the digest.
pub(crate) fn restore(file: &File, out: &mut impl Write) -> io::Result<()> {
    let (footer, file_bytes) = Footer::read(file)?;
    if footer.frames > FRAMES_MAX {
        return Err(damaged("it has too many recipe frames"));
    }
    let mut table =
        vec![0; usize::try_from(footer.frames * 16).map_err(|_| damaged("its table is too long"))?];
    file.read_exact_at(&mut table, footer.table)?;
    let frames: Vec<(u64, u64)> = table
        .chunks_exact(16)
        .filter_map(|pair| {
            let (offset, length) = pair.split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*offset), u64::from_le_bytes(length.try_into().ok()?)))
        })
        .collect();
    let frames = FrameReader { file, frames: frames.into_iter(), offset: 0, left: 0 };
    let mut recipe = io::BufReader::new(zstd::stream::read::Decoder::new(frames)?);
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0_u64;
    loop {
        let mut kind = [0];
        if recipe.read(&mut kind)? == 0 {
            break;
        }
        let (from, length) = match kind {
            [LITERAL] => (None, get_number(&mut recipe)?),
            [CONTENT] => (Some(get_number(&mut recipe)?), get_number(&mut recipe)?),
            _ => return Err(damaged("its recipe has an unknown piece")),
        };
        total = total.checked_add(length).ok_or_else(|| damaged("its recipe is too long"))?;
        if total > footer.archive_bytes {
            return Err(damaged("its recipe is too long"));
        }
        match from {
            None if length > LITERAL_MAX => return Err(damaged("its recipe has a piece that is too long")),
            None => copy(length, &mut buffer, out, |part, _| recipe.read_exact(part))?,
            Some(from) => {
                let end = from.checked_add(length).filter(|end| *end <= file_bytes);
                end.ok_or_else(|| damaged("its recipe points beyond its end"))?;
                copy(length, &mut buffer, out, |part, done| file.read_exact_at(part, from + done))?;
            }
        }
    }
    if total != footer.archive_bytes {
        return Err(damaged("its recipe is too short"));
    }
    out.flush()
}

fn copy(
    length: u64,
    buffer: &mut [u8],
    out: &mut impl Write,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let want = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..want).unwrap_or_default();
        read(part, done)?;
        out.write_all(part)?;
        done += want as u64;
    }
    Ok(())
}

/// The frames, one after the other.
struct FrameReader<'a> {
    file: &'a File,
    frames: std::vec::IntoIter<(u64, u64)>,
    offset: u64,
    left: u64,
}

impl Read for FrameReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some((offset, length)) = self.frames.next() else { return Ok(0) };
            (self.offset, self.left) = (offset, length);
        }
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.file.read_at(buffer.get_mut(..want).unwrap_or_default(), self.offset)?;
        if got == 0 && want > 0 {
            return Err(damaged("its recipe is cut off"));
        }
        self.offset = self.offset.saturating_add(got as u64);
        self.left -= got as u64;
        Ok(got)
    }
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn get_number(input: &mut impl Read) -> io::Result<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        let [byte] = byte;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(damaged("its recipe has a number that is too long"))
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the layer disk is damaged: {why}"))
}
