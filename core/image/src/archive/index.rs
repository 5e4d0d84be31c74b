//! Where things lie in an archive.

use crate::error::ImageError;
use crate::layer_error::{LayerError, shown};
use crate::limits::LayerLimits;
use crate::tar::{EntryKind, TarReader};
use bytes::Bytes;
use futures_util::Stream;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Members of an image archive: a few for each layer.
const MEMBERS_MAX: u64 = 100_000;
/// Bytes of one name or target; the longest that tools write has about 160.
const NAME_BYTES_MAX: usize = 1024;
/// Bytes of all names and targets together: they stay in memory.
const NAMES_BYTES_MAX: usize = 16 << 20;
/// Links followed from a name to its file.
const LINKS_MAX: u32 = 16;
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    pub offset: u64,
    pub bytes: u64,
}

enum Member {
    File(Section),
    /// Name of another member. Old archives have a layer once, and links to it from elsewhere.
    Link(String),
}

/// An archive in a file, and its table of contents.
pub(super) struct Index {
    file: Arc<File>,
    members: BTreeMap<String, Member>,
}

impl Index {
    /// Reads all headers. Blocking.
    pub fn read(mut file: File, limits: &LayerLimits) -> Result<Self, ImageError> {
        file.seek(SeekFrom::Start(0)).map_err(reading())?;
        let limits = LayerLimits { entries: MEMBERS_MAX, name_bytes: NAME_BYTES_MAX, ..limits.clone() };
        let members = members(BufReader::with_capacity(1 << 20, &file), limits).map_err(of_archive)?;
        Ok(Self { file: Arc::new(file), members })
    }

    /// A file by its name; links are followed inside the archive.
    pub fn find(&self, name: &str) -> Result<Option<Section>, ImageError> {
        let asked = name;
        let Some(mut name) = normal(asked, "") else { return Ok(None) };
        for _ in 0..=LINKS_MAX {
            match self.members.get(&name) {
                None => return Ok(None),
                Some(Member::File(section)) => return Ok(Some(*section)),
                Some(Member::Link(target)) => name.clone_from(target),
            }
        }
        let why = format!("{} is missing: more than {LINKS_MAX} links lead there", shown(asked.as_bytes()));
        Err(ImageError::invalid("the archive", why))
    }

    /// [`Index::find`] for what must be there.
    pub fn need(&self, name: &str) -> Result<Section, ImageError> {
        self.find(name)?.ok_or_else(|| {
            ImageError::invalid("the archive", format!("{} is missing", shown(name.as_bytes())))
        })
    }

    /// A small file, whole. Blocking.
    pub fn read_small(&self, name: &str, section: Section, max: usize) -> Result<Vec<u8>, ImageError> {
        let length = usize::try_from(section.bytes).ok().filter(|length| *length <= max);
        let length = length.ok_or_else(|| ImageError::Limit {
            what: format!("{} in the archive", shown(name.as_bytes())),
            limit: format!("{max} bytes"),
        })?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, section.offset).map_err(reading())?;
        Ok(bytes)
    }

    /// A file's content, piece by piece.
    pub fn stream(&self, section: Section) -> impl Stream<Item = Result<Bytes, ImageError>> + Send + use<> {
        stream(Arc::clone(&self.file), section)
    }
}

/// A part of a file, read without moving the position that its handles share.
pub(super) fn stream(
    file: Arc<File>,
    section: Section,
) -> impl Stream<Item = Result<Bytes, ImageError>> + Send {
    futures_util::stream::try_unfold(section, move |Section { offset, bytes }| {
        let file = Arc::clone(&file);
        async move {
            if bytes == 0 {
                return Ok(None);
            }
            let want = usize::try_from(bytes).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; want];
                file.read_exact_at(&mut chunk, offset).map(|()| Bytes::from(chunk))
            });
            let chunk = read.await.map_err(|error| reading()(error.into()))?.map_err(reading())?;
            let rest = Section { offset: offset + want as u64, bytes: bytes - want as u64 };
            Ok(Some((chunk, rest)))
        }
    })
}

/// What the parser says of the archive as a whole speaks of no layer.
pub(super) fn of_archive(error: impl Into<ImageError>) -> ImageError {
    match error.into() {
        ImageError::Layer(why) => ImageError::invalid("the archive", why),
        other => other,
    }
}

fn reading() -> impl FnOnce(std::io::Error) -> ImageError {
    ImageError::io("reading the archive")
}

fn members(input: impl Read, limits: LayerLimits) -> Result<BTreeMap<String, Member>, LayerError> {
    let mut reader = TarReader::new(input, limits).without_literals();
    let mut members = BTreeMap::new();
    let mut name_bytes = 0;
    while let Some(entry) = reader.next_entry()? {
        // What cannot be a name that is looked for is passed over.
        let Ok(path) = String::from_utf8(entry.path) else { continue };
        let name = normal(&path, "").ok_or_else(|| {
            LayerError::refused(format!("the name {} leaves the archive", shown(path.as_bytes())))
        })?;
        let member = match entry.kind {
            EntryKind::File if entry.pieces.is_none() => {
                Some(Member::File(Section { offset: reader.position(), bytes: entry.stored }))
            }
            EntryKind::Symlink(target) => {
                link(target, name.rsplit_once('/').map_or("", |(folder, _)| folder))
            }
            EntryKind::HardLink(target) => link(target, ""),
            _ => None,
        };
        let Some(member) = member else { continue };
        name_bytes += name.len();
        if let Member::Link(target) = &member {
            name_bytes += target.len();
        }
        if name_bytes > NAMES_BYTES_MAX {
            let limit = format!("{NAMES_BYTES_MAX} bytes");
            return Err(LayerError::limit("the length of all names in the archive", limit));
        }
        // Readers disagree on which of two counts.
        if members.insert(name, member).is_some() {
            return Err(LayerError::refused(format!("{} is twice in the archive", shown(path.as_bytes()))));
        }
    }
    Ok(members)
}

/// `None` if it leads out of the archive: then there is nothing to be found.
fn link(target: Vec<u8>, folder: &str) -> Option<Member> {
    normal(&String::from_utf8(target).ok()?, folder).map(Member::Link)
}

/// A name from a folder on, without `.`, `..` and doubled slashes; `None` if it leaves the archive.
fn normal(name: &str, folder: &str) -> Option<String> {
    let folder = if name.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn names_stay_in_the_archive() {
        for (name, folder, expected) in [
            ("./manifest.json", "", Some("manifest.json")),
            ("/manifest.json", "", Some("manifest.json")),
            ("../b/layer.tar", "a", Some("b/layer.tar")),
            ("/b//layer.tar", "a", Some("b/layer.tar")),
            ("../../etc/passwd", "a", None),
            ("../x", "", None),
            ("a/../../x", "", None),
        ] {
            assert_eq!(normal(name, folder).as_deref(), expected, "{name} from {folder:?}");
        }
    }
}
