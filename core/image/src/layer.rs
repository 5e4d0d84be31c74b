//! One layer: a stream of a compressed archive in, a disk out. Runs in the child (see [`crate::convert`]).

use crate::compression::Compression;
use crate::erofs::disk::DiskWriter;
use crate::erofs::metadata;
use crate::layer_error::{LayerError, shown};
use crate::limits::LayerLimits;
use crate::recipe::{Footer, RecipeWriter};
use crate::tar::{Entry, EntryKind, TarReader};
use crate::tree::{Attributes, Node, NodeKind, Tree, keep_xattrs};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::rc::Rc;

const BUFFER_BYTES: usize = 256 << 10;

/// What became of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Of the uncompressed archive.
    pub sha256: [u8; 32],
    pub archive_bytes: u64,
    pub size_bytes: u64,
    pub entries: u64,
    pub disk_bytes: u64,
}

/// Turns a compressed archive into a layer disk in an empty file.
pub(crate) fn write(
    input: impl Read,
    expected: Option<Compression>,
    output: File,
    limits: &LayerLimits,
) -> Result<Written, LayerError> {
    let archive = open(input, expected, limits)?;
    let tally = archive.tally();
    let mut reader = TarReader::new(BufReader::with_capacity(BUFFER_BYTES, archive), limits.clone());
    let mut tree = Tree::new(limits);
    let mut disk = DiskWriter::new(output)?;
    let mut recipe = RecipeWriter::new()?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut file_bytes = 0_u64;
    while let Some(entry) = reader.next_entry()? {
        recipe.literal(&reader.take_literals())?;
        recipe.spill(&mut disk)?;
        file_bytes += entry.size;
        if file_bytes > limits.uncompressed_bytes {
            let limit = format!("{} bytes", limits.uncompressed_bytes);
            return Err(LayerError::limit("the size of all files", limit));
        }
        let block = copy_content(&mut reader, &entry, &mut disk, &mut recipe, &mut buffer)?;
        add(&mut tree, entry, block)?;
    }
    recipe.literal(&reader.take_literals())?;
    let size_bytes = metadata::write(&tree, &mut disk)?;
    let (sha256, archive_bytes) = tally.finish();
    let entries = reader.entries();
    let footer = Footer { table: 0, frames: 0, archive_bytes, size_bytes, entries, diff_id: sha256 };
    recipe.finish(&mut disk, footer)?;
    let disk_bytes = disk.finish()?;
    Ok(Written { sha256, archive_bytes, size_bytes, entries, disk_bytes })
}

/// Only decompresses, into an empty file; its length.
pub(crate) fn inflate(
    input: impl Read,
    output: &mut impl Write,
    limits: &LayerLimits,
) -> Result<u64, LayerError> {
    let mut archive = open(input, None, limits)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total = 0;
    loop {
        let got = archive.read(&mut buffer).map_err(LayerError::Read)?;
        let part = buffer.get(..got).unwrap_or_default();
        if part.is_empty() {
            output.flush().map_err(LayerError::Write)?;
            return Ok(total);
        }
        total += got as u64;
        if total > limits.uncompressed_bytes {
            let limit = format!("{} bytes", limits.uncompressed_bytes);
            return Err(LayerError::limit("the uncompressed archive", limit));
        }
        output.write_all(part).map_err(LayerError::Write)?;
    }
}

/// Streams a file's content to the disk; the block where it begins.
fn copy_content<R: Read>(
    reader: &mut TarReader<R>,
    entry: &Entry,
    disk: &mut DiskWriter,
    recipe: &mut RecipeWriter,
    buffer: &mut [u8],
) -> Result<u32, LayerError> {
    let block = disk.align()?;
    let base = disk.position();
    let whole = [(0, entry.stored)];
    for &(offset, length) in entry.pieces.as_deref().unwrap_or(&whole) {
        disk.zeros_to(base + offset)?;
        recipe.content(base + offset, length)?;
        let mut left = length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let got = reader.read_body(buffer.get_mut(..want).unwrap_or_default())?;
            if got == 0 {
                return Err(LayerError::Truncated("in a sparse file"));
            }
            disk.write(buffer.get(..got).unwrap_or_default())?;
            left -= got as u64;
        }
    }
    disk.zeros_to(base + entry.size)?;
    disk.align()?;
    Ok(block)
}

fn add(tree: &mut Tree, entry: Entry, block: u32) -> Result<(), LayerError> {
    let Entry { path, kind, mode, uid, gid, mtime, size, xattrs, .. } = entry;
    let kind = match kind {
        EntryKind::HardLink(target) => return tree.link(&path, &target, mtime),
        EntryKind::File => NodeKind::File { block, size },
        EntryKind::Directory => NodeKind::Directory(BTreeMap::new()),
        EntryKind::Fifo => NodeKind::Fifo,
        EntryKind::CharDevice { major, minor } => NodeKind::CharDevice(device(major, minor)),
        EntryKind::BlockDevice { major, minor } => NodeKind::BlockDevice(device(major, minor)),
        EntryKind::Symlink(target) => {
            // The kernel follows no longer ones.
            if target.is_empty() || target.len() > 4095 {
                return Err(LayerError::refused(format!(
                    "the symlink {} has a target of {} bytes",
                    shown(&path),
                    target.len()
                )));
            }
            NodeKind::Symlink(target.into())
        }
    };
    let attributes = Attributes { mode, uid, gid, mtime };
    tree.insert(&path, Node { kind, attributes, xattrs: keep_xattrs(xattrs)?, opaque: false })
}

/// A device number as the kernel keeps it on disk (`new_encode_dev`).
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The uncompressed bytes, hashed, counted and held against the ratio as they come.
struct Archive<'a> {
    decoder: Box<dyn Read + 'a>,
    tally: Tally,
    compressed: Rc<Cell<u64>>,
    ratio: u64,
    ratio_free: u64,
}

#[derive(Clone, Default)]
struct Tally {
    hash: Rc<RefCell<Sha256>>,
    bytes: Rc<Cell<u64>>,
}

impl Tally {
    fn finish(&self) -> ([u8; 32], u64) {
        (self.hash.borrow().clone().finalize().into(), self.bytes.get())
    }
}

fn open<'a>(
    input: impl Read + 'a,
    expected: Option<Compression>,
    limits: &LayerLimits,
) -> Result<Archive<'a>, LayerError> {
    let compressed = Rc::new(Cell::new(0));
    let mut input = BufReader::with_capacity(BUFFER_BYTES, Counted { input, count: Rc::clone(&compressed) });
    let found = Compression::detect(input.fill_buf().map_err(LayerError::Read)?)?;
    if let Some(expected) = expected
        && expected != found
    {
        return Err(LayerError::refused(format!("the layer is {found}, its media type says {expected}")));
    }
    let decoder = found.decoder(input).map_err(LayerError::Read)?;
    Ok(Archive {
        decoder,
        tally: Tally::default(),
        compressed,
        ratio: limits.ratio,
        ratio_free: limits.ratio_free_bytes,
    })
}

impl Archive<'_> {
    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}

impl Read for Archive<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.decoder.read(buffer)?;
        self.tally.hash.borrow_mut().update(buffer.get(..got).unwrap_or_default());
        let total = self.tally.bytes.get() + got as u64;
        self.tally.bytes.set(total);
        if total > self.ratio_free && total / self.ratio.max(1) > self.compressed.get() {
            let text = format!("{} times its compressed size", self.ratio);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
        }
        Ok(got)
    }
}

struct Counted<R> {
    input: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.count.set(self.count.get() + got as u64);
        Ok(got)
    }
}
