//! What a container changed: its own disk is the upper folder of an overlay (kernel documentation, overlayfs), where a
//! character device 0:0 hides what is below, and an opaque folder all of it.

use super::archive::Archive;
use super::path::{clean, follow};
use super::{At, Failed, Wrong, said};
use crate::own_files::OWN_FILES;
use crate::sys;
use bulkhead_guest_protocol::files::{Change, ChangeKind, encode_item};
use std::collections::BTreeSet;
use std::ffi::{CStr, OsString};
use std::fs::{self, Metadata};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const UPPER: &str = "/upper";
const LOWER: &str = "/lower";
const ROOT: &str = "/root";
const OPAQUE: &CStr = c"trusted.overlay.opaque";
/// Mounted in every container.
const MOUNTS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// One path that differs, from the root without a slash.
struct Found<'a> {
    path: &'a Path,
    kind: ChangeKind,
    /// Nothing of the image shows through this folder.
    opaque: bool,
    /// Deleted with all else in an opaque folder.
    implied: bool,
}

/// Says each.
pub fn changes(mounts: &[String], out: &mut impl Write) -> Result<(), Wrong> {
    walk(mounts, &mut |found| {
        let path = [b"/", found.path.as_os_str().as_bytes()].concat();
        let item = encode_item(&Change { kind: found.kind, path });
        let item = item.map_err(|error| Wrong::new(Failed::Other, format!("tell a change: {error}")))?;
        said(out.write_all(&item))
    })
}

pub fn layer(mounts: &[String], out: &mut impl Write) -> Result<(), Wrong> {
    let mut archive = Archive::new(out);
    walk(mounts, &mut |found| {
        let name = found.path.as_os_str().as_bytes();
        if found.kind != ChangeKind::Deleted {
            archive.add(&Path::new(UPPER).join(found.path), name)?;
            return if found.opaque { archive.mark(&[name, b"/.wh..wh..opq"].concat()) } else { Ok(()) };
        }
        let hidden = found.path.file_name().unwrap_or_default().as_bytes();
        let at = name.len() - hidden.len();
        match found.implied {
            true => Ok(()),
            false => archive.mark(&[name.get(..at).unwrap_or_default(), b".wh.", hidden].concat()),
        }
    })?;
    archive.finish()
}

fn walk(mounts: &[String], tell: &mut dyn FnMut(Found<'_>) -> Result<(), Wrong>) -> Result<(), Wrong> {
    let own = OWN_FILES.map(|name| format!("/etc/{name}"));
    let paths = own.iter().chain(mounts).map(String::as_str).chain(MOUNTS);
    // As it is written and where it leads: an image may have links there.
    let left_out = paths
        .flat_map(|path| [clean(Path::new(path)), follow(Path::new(ROOT), Path::new(path))])
        .map(|path| path.strip_prefix("/").unwrap_or(&path).to_owned())
        .collect();
    Walk { left_out, waiting: Vec::new(), tell }.folder(Path::new(""), false).map(drop)
}

struct Walk<'a> {
    left_out: BTreeSet<PathBuf>,
    /// Folders on the way here that are told once something in them is.
    waiting: Vec<(PathBuf, ChangeKind)>,
    tell: &'a mut dyn FnMut(Found<'_>) -> Result<(), Wrong>,
}

impl Walk<'_> {
    /// Whether something in it was left out.
    fn folder(&mut self, path: &Path, opaque: bool) -> Result<bool, Wrong> {
        let names = names(&Path::new(UPPER).join(path))?;
        let mut omitted = false;
        for name in &names {
            let below = path.join(name);
            match self.left_out.contains(&below) {
                true => omitted = true,
                false => omitted |= self.one(&below)?,
            }
        }
        if opaque {
            for name in self::names(&Path::new(LOWER).join(path))?.difference(&names) {
                let path = path.join(name);
                self.found(Found { path: &path, kind: ChangeKind::Deleted, opaque: false, implied: true })?;
            }
        }
        Ok(omitted)
    }

    fn one(&mut self, path: &Path) -> Result<bool, Wrong> {
        let here = Path::new(UPPER).join(path);
        let Ok(now) = fs::symlink_metadata(&here) else { return Ok(false) };
        let before = fs::symlink_metadata(Path::new(LOWER).join(path)).ok();
        if now.file_type().is_char_device() && now.rdev() == 0 {
            let found = Found { path, kind: ChangeKind::Deleted, opaque: false, implied: false };
            return self.found(found).map(|()| false);
        }
        let kind = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        if !now.is_dir() {
            return self.found(Found { path, kind, opaque: false, implied: false }).map(|()| false);
        }
        let replaced = before.is_some() && is_opaque(&here)?;
        let differs = before.as_ref().is_some_and(|before| !is_alike(before, &now));
        if replaced || differs {
            self.found(Found { path, kind, opaque: replaced, implied: false })?;
            return self.folder(path, replaced);
        }
        self.waiting.push((path.to_owned(), kind));
        let depth = self.waiting.len();
        let omitted = self.folder(path, false)?;
        if self.waiting.len() == depth {
            self.waiting.pop();
            // What was only made to mount something in it is nobody's change.
            if kind == ChangeKind::Added && !omitted {
                self.found(Found { path, kind, opaque: false, implied: false })?;
            }
        }
        Ok(omitted)
    }

    fn found(&mut self, found: Found<'_>) -> Result<(), Wrong> {
        for (path, kind) in std::mem::take(&mut self.waiting) {
            (self.tell)(Found { path: &path, kind, opaque: false, implied: false })?;
        }
        (self.tell)(found)
    }
}

/// What is no folder has none.
fn names(folder: &Path) -> Result<BTreeSet<OsString>, Wrong> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(BTreeSet::new()) };
    entries.map(|entry| entry.map(|entry| entry.file_name()).at("read", folder)).collect()
}

fn is_opaque(folder: &Path) -> Result<bool, Wrong> {
    let value = sys::attribute(folder, OPAQUE).at("read attributes of", folder)?;
    Ok(value.is_some_and(|value| value == b"y"))
}

/// A folder comes up unchanged with whatever is changed in it.
fn is_alike(before: &Metadata, now: &Metadata) -> bool {
    before.is_dir() && (before.mode(), before.uid(), before.gid()) == (now.mode(), now.uid(), now.gid())
}
