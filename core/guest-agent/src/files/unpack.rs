//! Unpacking an archive into a folder of the container. The archive is anybody's; it cannot do more than the container's
//! root could: links lead where they lead inside the root, names that lead out of the folder are refused.

use super::{At, Failed, Wrong, path};
use crate::failure::reason;
use crate::{process, sys, user};
use flate2::read::GzDecoder;
use std::ffi::CString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

const XATTR: &str = "SCHILY.xattr.";
/// Archives that are compressed otherwise, by their first bytes.
const OTHERS: [(&[u8], &str); 3] =
    [(b"BZh", "bzip2"), (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"), (&[0x28, 0xb5, 0x2f, 0xfd], "zstd")];

type Entry<'a> = tar::Entry<'a, Box<dyn Read>>;

/// What an entry says beside its content.
#[derive(Debug)]
struct Facts {
    kind: EntryType,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    attributes: Vec<(String, Vec<u8>)>,
}

pub fn unpack(
    asked: &str,
    keep_kinds: bool,
    owner: Option<&str>,
    read_only: bool,
    input: impl Read + 'static,
) -> Result<(), Wrong> {
    let folder = path::folder(asked)?;
    check_writable(&folder, read_only)?;
    let owner = owner.map(identity).transpose()?;
    std::env::set_current_dir(&folder).at("enter", &folder)?;
    let mut archive = tar::Archive::new(plain(input)?);
    // Writing into a folder changes its time, so those are set last.
    let mut folders: Vec<(PathBuf, i64)> = Vec::new();
    for entry in archive.entries().map_err(|error| bad(&error))? {
        let mut entry = entry.map_err(|error| bad(&error))?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let name = inside(Path::new(std::ffi::OsStr::from_bytes(&entry.path_bytes())))?;
        let mut facts = facts(&mut entry)?;
        if let Some((uid, gid)) = owner {
            (facts.uid, facts.gid) = (uid, gid);
        }
        if make_room(&name, kind.is_dir(), keep_kinds)? {
            make(&mut entry, &name, &facts)?;
        }
        complete(&name, &facts)?;
        if facts.kind.is_dir() {
            folders.push((name, facts.mtime));
        }
    }
    for (name, mtime) in folders.iter().rev() {
        match sys::set_mtime(name, *mtime) {
            // A later entry took its place.
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at("set the time of", name)?,
            _ => {}
        }
    }
    Ok(())
}

/// `root_read_only`: of the container's root, which is so only once its process runs.
fn check_writable(folder: &Path, root_read_only: bool) -> Result<(), Wrong> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).at("stat", path);
    let in_root = device(folder)? == device(Path::new("/"))?;
    let why = match in_root {
        true if root_read_only => "container rootfs is marked read-only",
        false if sys::is_read_only(folder).at("look at", folder)? => "mounted volume is marked read-only",
        _ => return Ok(()),
    };
    Err(Wrong::new(Failed::ReadOnly, why))
}

fn identity(owner: &str) -> Result<(u32, u32), Wrong> {
    let groups = process::accounts("/etc/group")?;
    let found = user::resolve(owner, &process::accounts("/etc/passwd")?, &groups)?;
    Ok((found.uid, found.gid))
}

fn bad(error: &io::Error) -> Wrong {
    Wrong::new(Failed::BadArchive, format!("the archive cannot be read: {}", reason(error)))
}

fn plain(input: impl Read + 'static) -> Result<Box<dyn Read>, Wrong> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let begin = input.fill_buf().map_err(|error| bad(&error))?;
    if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| begin.starts_with(magic)) {
        let text = format!("an archive compressed with {name} is not supported: send it bare or with gzip");
        return Err(Wrong::new(Failed::BadArchive, text));
    }
    match begin.starts_with(&[0x1f, 0x8b]) {
        true => Ok(Box::new(GzDecoder::new(input))),
        false => Ok(Box::new(input)),
    }
}

/// A name of an archive below the folder; empty: the folder itself.
fn inside(name: &Path) -> Result<PathBuf, Wrong> {
    let mut clean = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir if !clean.pop() => {
                let text = format!("`{}` leads out of the folder", name.display());
                return Err(Wrong::new(Failed::BadArchive, text));
            }
            _ => {}
        }
    }
    Ok(if clean.as_os_str().is_empty() { PathBuf::from(".") } else { clean })
}

fn facts(entry: &mut Entry<'_>) -> Result<Facts, Wrong> {
    let header = entry.header();
    let number = |value: io::Result<u64>| value.map_err(|error| bad(&error));
    let id = |value: u64| u32::try_from(value).unwrap_or(0);
    let mut facts = Facts {
        kind: header.entry_type(),
        mode: header.mode().map_err(|error| bad(&error))? & 0o7777,
        uid: id(number(header.uid())?),
        gid: id(number(header.gid())?),
        mtime: i64::try_from(number(header.mtime())?).unwrap_or(0),
        attributes: Vec::new(),
    };
    let Some(records) = entry.pax_extensions().map_err(|error| bad(&error))? else { return Ok(facts) };
    for record in records {
        let record = record.map_err(|error| bad(&error))?;
        let (Ok(key), value) = (record.key(), record.value_bytes()) else { continue };
        let text = || String::from_utf8_lossy(value);
        match key {
            "uid" => facts.uid = text().parse().unwrap_or(facts.uid),
            "gid" => facts.gid = text().parse().unwrap_or(facts.gid),
            "mtime" => {
                let text = text();
                facts.mtime = text.split('.').next().unwrap_or_default().parse().unwrap_or(facts.mtime);
            }
            key => {
                let name = key.strip_prefix(XATTR).unwrap_or_default();
                // What else there is belongs to the kernel and its file systems.
                if name == "security.capability" || name.starts_with("user.") {
                    facts.attributes.push((name.to_owned(), value.to_vec()));
                }
            }
        }
    }
    Ok(facts)
}

/// Whether something has to be made there: a folder is merged with what it has.
fn make_room(name: &Path, is_folder: bool, keep_kinds: bool) -> Result<bool, Wrong> {
    let found = match fs::symlink_metadata(name) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                DirBuilder::new().recursive(true).mode(0o755).create(parent).at("make", parent)?;
            }
            return Ok(true);
        }
        Err(error) => return Err(error).at("stat", name),
    };
    let shown = name.display();
    match (found.is_dir(), is_folder) {
        (true, true) => Ok(false),
        (true, false) if name == Path::new(".") => {
            Err(Wrong::new(Failed::BadArchive, "the archive would replace the folder itself"))
        }
        (true, false) if keep_kinds => Err(Wrong::new(
            Failed::OtherKind,
            format!("cannot overwrite directory \"{shown}\" with non-directory \"{shown}\""),
        )),
        (false, true) if keep_kinds => Err(Wrong::new(
            Failed::OtherKind,
            format!("cannot overwrite non-directory \"{shown}\" with directory \"{shown}\""),
        )),
        (true, false) => fs::remove_dir_all(name).at("replace", name).map(|()| true),
        (false, _) => fs::remove_file(name).at("replace", name).map(|()| true),
    }
}

fn make(entry: &mut Entry<'_>, name: &Path, facts: &Facts) -> Result<(), Wrong> {
    let link = |entry: &Entry<'_>| -> Result<PathBuf, Wrong> {
        let link = entry.link_name_bytes().unwrap_or_default();
        Ok(PathBuf::from(std::ffi::OsStr::from_bytes(&link)))
    };
    match facts.kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(name).at("make", name)?;
            copy(entry, &mut file, name)
        }
        EntryType::Directory => DirBuilder::new().mode(0o700).create(name).at("make", name),
        EntryType::Symlink => symlink(link(entry)?, name).at("make", name),
        EntryType::Link => {
            let target = inside(&link(entry)?)?;
            fs::hard_link(&target, name).at("link", name)
        }
        EntryType::Char => node(entry, name, libc::S_IFCHR),
        EntryType::Block => node(entry, name, libc::S_IFBLK),
        EntryType::Fifo => sys::make_node(name, libc::S_IFIFO | 0o600, 0, 0).at("make", name),
        other => {
            let text = format!(
                "`{}` is of a kind that is not known: {:?}",
                name.display(),
                char::from(other.as_byte())
            );
            Err(Wrong::new(Failed::BadArchive, text))
        }
    }
}

fn node(entry: &Entry<'_>, name: &Path, kind: libc::mode_t) -> Result<(), Wrong> {
    let header = entry.header();
    let number =
        |value: io::Result<Option<u32>>| value.map_err(|error| bad(&error)).map(Option::unwrap_or_default);
    let (major, minor) = (number(header.device_major())?, number(header.device_minor())?);
    sys::make_node(name, kind | 0o600, major, minor).at("make", name)
}

/// Tells an archive that ends early from a disk that is full.
fn copy(from: &mut Entry<'_>, to: &mut fs::File, name: &Path) -> Result<(), Wrong> {
    let (mut buffer, mut left) = (vec![0; 64 << 10], from.size());
    loop {
        let got = from.read(&mut buffer).map_err(|error| bad(&error))?;
        if got == 0 {
            break;
        }
        left = left.saturating_sub(got as u64);
        io::Write::write_all(to, buffer.get(..got).unwrap_or_default()).at("write", name)?;
    }
    if left > 0 && from.header().entry_type() != EntryType::GNUSparse {
        return Err(Wrong::new(Failed::BadArchive, "the archive ends too early"));
    }
    Ok(())
}

/// Owner before mode, as a change of owner takes set-user-ID bits away; attributes after both.
fn complete(name: &Path, facts: &Facts) -> Result<(), Wrong> {
    // A hard link is what it links to.
    if facts.kind.is_hard_link() {
        return Ok(());
    }
    lchown(name, Some(facts.uid), Some(facts.gid)).at("set the owner of", name)?;
    if !facts.kind.is_symlink() {
        fs::set_permissions(name, fs::Permissions::from_mode(facts.mode)).at("set the mode of", name)?;
    }
    for (key, value) in &facts.attributes {
        let Ok(key) = CString::new(key.as_bytes()) else { continue };
        match sys::set_attribute(name, &key, value) {
            // Not every file system has them, as under a tmpfs.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM)) => {
                Err(error).at("set attributes of", name)?;
            }
            _ => {}
        }
    }
    if facts.kind.is_dir() { Ok(()) } else { sys::set_mtime(name, facts.mtime).at("set the time of", name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_folder() {
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(inside(Path::new(name)).ok(), expect.map(PathBuf::from), "{name}");
        };
        check("a/b", Some("a/b"));
        check("/a//b/.", Some("a/b"));
        check("./", Some("."));
        check("a/../b", Some("b"));
        check("../b", None);
        check("a/../../b", None);
    }

    #[test]
    fn other_compressions_are_named() {
        let wrong = plain(&b"BZh91AY"[..]).err().unwrap();
        assert!(wrong.message.contains("bzip2"), "{}", wrong.message);
        assert!(plain(&b""[..]).is_ok());
    }
}
