//! Where things lie in an archive.

use crate::error::ImageError;
use crate::layer_error::LayerError;
use crate::limits::LayerLimits;
use crate::tar::{EntryKind, TarReader};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Members of an image archive: a few for each layer.
const MEMBERS_MAX: u64 = 100_000;
const LINKS_MAX: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    pub offset: u64,
    pub bytes: u64,
}

enum Member {
    File(Section),
    /// A symlink, relative to its folder, or a hard link, relative to the root: already made absolute.
    Link(Vec<String>),
}

/// An archive in a file, and its table of contents.
pub(super) struct Index {
    pub file: File,
    members: BTreeMap<String, Member>,
}

impl Index {
    /// Reads all headers. Blocking.
    pub fn read(mut file: File, limits: &LayerLimits) -> Result<Self, ImageError> {
        file.seek(SeekFrom::Start(0)).map_err(ImageError::io("reading the archive"))?;
        let limits = LayerLimits { entries: limits.entries.min(MEMBERS_MAX), ..limits.clone() };
        let input = file.try_clone().map_err(ImageError::io("reading the archive"))?;
        let members = members(BufReader::with_capacity(1 << 20, input), limits)?;
        Ok(Self { file, members })
    }

    /// A file by its name; symlinks are followed inside the archive.
    pub fn find(&self, name: &str) -> Option<Section> {
        let mut parts = parts(name, &[])?;
        for _ in 0..LINKS_MAX {
            match self.members.get(&parts.join("/"))? {
                Member::File(section) => return Some(*section),
                Member::Link(target) => parts.clone_from(target),
            }
        }
        None
    }

    /// A small file, whole. Blocking.
    pub fn read_small(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(section) = self.find(name) else { return Ok(None) };
        let length =
            usize::try_from(section.bytes).ok().filter(|length| *length <= max).ok_or_else(|| {
                ImageError::Limit { what: format!("`{name}` in the archive"), limit: format!("{max} bytes") }
            })?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, section.offset).map_err(ImageError::io("reading the archive"))?;
        Ok(Some(bytes))
    }
}

fn members(input: impl std::io::Read, limits: LayerLimits) -> Result<BTreeMap<String, Member>, LayerError> {
    let mut reader = TarReader::new(input, limits).without_literals();
    let mut members = BTreeMap::new();
    while let Some(entry) = reader.next_entry()? {
        // What cannot be a name that is looked for is passed over.
        let Ok(name) = String::from_utf8(entry.path) else { continue };
        let Some(name) = parts(&name, &[]) else {
            return Err(LayerError::refused(format!("the name {name:?} leaves the archive")));
        };
        let member = match entry.kind {
            EntryKind::File if entry.pieces.is_none() => {
                Member::File(Section { offset: reader.position(), bytes: entry.stored })
            }
            EntryKind::Symlink(target) => {
                let folder = name.split_last().map_or(&[][..], |(_, folder)| folder);
                match String::from_utf8(target).ok().and_then(|target| parts(&target, folder)) {
                    Some(target) => Member::Link(target),
                    None => continue,
                }
            }
            EntryKind::HardLink(target) => {
                match String::from_utf8(target).ok().and_then(|target| parts(&target, &[])) {
                    Some(target) => Member::Link(target),
                    None => continue,
                }
            }
            _ => continue,
        };
        if members.insert(name.join("/"), member).is_some() {
            return Err(LayerError::refused(format!("`{}` is twice in the archive", name.join("/"))));
        }
    }
    Ok(members)
}

/// The parts of a name from a folder on; `None` if it leaves the archive.
fn parts(name: &str, folder: &[String]) -> Option<Vec<String>> {
    let mut parts = if name.starts_with('/') { Vec::new() } else { folder.to_vec() };
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part.to_owned()),
        }
    }
    Some(parts)
}
