//! Writing tar archives: ustar headers, and pax records for what does not fit them. pax(1), "ustar Interchange Format"

use super::{At, Wrong, said};
use crate::sys;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

const BLOCK: usize = 512;
const NAME_BYTES: usize = 100;
/// Largest numbers of the octal fields.
const ID_MAX: u64 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;
/// Of files that have several names: what is beyond is written as files of their own.
const LINKS_MAX: usize = 100_000;
const CAPABILITY: &std::ffi::CStr = c"security.capability";

/// An archive that is being written.
pub struct Archive<'a, W: Write> {
    out: &'a mut W,
    /// Names of files that have several, by device and inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

struct Entry<'a> {
    name: &'a [u8],
    kind: u8,
    size: u64,
    link: &'a [u8],
    device: u64,
    records: Vec<(&'a [u8], Vec<u8>)>,
}

impl<'a, W: Write> Archive<'a, W> {
    pub fn new(out: &'a mut W) -> Self {
        Self { out, linked: HashMap::new() }
    }

    /// What is at the path, without what is in it. What is gone by now is left out, as are sockets.
    pub fn add(&mut self, path: &Path, name: &[u8]) -> Result<(), Wrong> {
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            found => found.at("stat", path)?,
        };
        let kind = found.file_type();
        let slashed = [name, b"/"].concat();
        let entry = Entry { name, kind: b'0', size: 0, link: b"", device: 0, records: Vec::new() };
        if kind.is_file() {
            self.add_file(path, name)
        } else if kind.is_dir() {
            self.head(&found, Entry { name: &slashed, kind: b'5', ..entry })
        } else if kind.is_symlink() {
            let target = fs::read_link(path).at("read the link", path)?;
            self.head(&found, Entry { kind: b'2', link: target.as_os_str().as_bytes(), ..entry })
        } else if kind.is_char_device() {
            self.head(&found, Entry { kind: b'3', device: found.rdev(), ..entry })
        } else if kind.is_block_device() {
            self.head(&found, Entry { kind: b'4', device: found.rdev(), ..entry })
        } else if kind.is_fifo() {
            self.head(&found, Entry { kind: b'6', ..entry })
        } else {
            Ok(())
        }
    }

    fn add_file(&mut self, path: &Path, name: &[u8]) -> Result<(), Wrong> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.at("open", path)?,
        };
        let found = file.metadata().at("stat", path)?;
        if !found.is_file() {
            return Ok(());
        }
        let entry = Entry { name, kind: b'0', size: 0, link: b"", device: 0, records: Vec::new() };
        if found.nlink() > 1 {
            let id = (found.dev(), found.ino());
            if let Some(link) = self.linked.get(&id).cloned() {
                return self.head(&found, Entry { kind: b'1', link: &link, ..entry });
            }
            if self.linked.len() < LINKS_MAX {
                self.linked.insert(id, name.to_vec());
            }
        }
        let mut records = Vec::new();
        if let Some(value) = sys::attribute(path, CAPABILITY).at("read attributes of", path)? {
            records.push((&b"SCHILY.xattr.security.capability"[..], value));
        }
        self.head(&found, Entry { size: found.len(), records, ..entry })?;
        self.content(file, found.len(), path)
    }

    /// An empty file that says something by its name.
    pub fn mark(&mut self, name: &[u8]) -> Result<(), Wrong> {
        let entry = Entry { name, kind: b'0', size: 0, link: b"", device: 0, records: Vec::new() };
        self.put(&entry, [0o600, 0, 0], 0)
    }

    pub fn finish(self) -> Result<(), Wrong> {
        said(self.out.write_all(&[0; 2 * BLOCK]))
    }

    fn head(&mut self, found: &Metadata, entry: Entry<'_>) -> Result<(), Wrong> {
        let numbers = [u64::from(found.mode() & 0o7777), found.uid().into(), found.gid().into()];
        self.put(&entry, numbers, found.mtime())
    }

    /// `numbers`: mode, user, group.
    fn put(&mut self, entry: &Entry<'_>, numbers: [u64; 3], mtime: i64) -> Result<(), Wrong> {
        let [mode, uid, gid] = numbers;
        let mut records: Vec<(&[u8], Vec<u8>)> = entry.records.clone();
        for (key, text) in [("path", entry.name), ("linkpath", entry.link)] {
            if text.len() > NAME_BYTES || !text.is_ascii() {
                records.push((key.as_bytes(), text.to_vec()));
            }
        }
        for (key, number, most) in
            [("size", entry.size, SIZE_MAX), ("uid", uid, ID_MAX), ("gid", gid, ID_MAX)]
        {
            if number > most {
                records.push((key.as_bytes(), number.to_string().into_bytes()));
            }
        }
        let seconds = u64::try_from(mtime).unwrap_or(0);
        if mtime < 0 || seconds > SIZE_MAX {
            records.push((b"mtime", mtime.to_string().into_bytes()));
        }
        if !records.is_empty() {
            let text: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            let length = text.len() as u64;
            said(self.out.write_all(&header(b"pax", b'x', length, b"", [0o644, 0, 0], 0, 0)))?;
            said(self.out.write_all(&text))?;
            self.pad(length)?;
        }
        let block =
            header(entry.name, entry.kind, entry.size, entry.link, [mode, uid, gid], seconds, entry.device);
        said(self.out.write_all(&block))
    }

    /// Exactly as long as was said, whatever becomes of the file meanwhile.
    fn content(&mut self, file: File, length: u64, path: &Path) -> Result<(), Wrong> {
        let mut file = file.take(length);
        let mut buffer = vec![0; 64 << 10];
        let mut left = length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..want).unwrap_or_default();
            let got = match file.read(part).at("read", path)? {
                0 => {
                    part.fill(0);
                    want
                }
                got => got,
            };
            said(self.out.write_all(part.get(..got).unwrap_or_default()))?;
            left -= got as u64;
        }
        self.pad(length)
    }

    fn pad(&mut self, length: u64) -> Result<(), Wrong> {
        let over = usize::try_from(length % BLOCK as u64).unwrap_or(0);
        let fill = if over == 0 { 0 } else { BLOCK - over };
        said(self.out.write_all([0; BLOCK].get(..fill).unwrap_or_default()))
    }
}

fn header(
    name: &[u8],
    kind: u8,
    size: u64,
    link: &[u8],
    ids: [u64; 3],
    mtime: u64,
    device: u64,
) -> [u8; BLOCK] {
    let [mode, uid, gid] = ids;
    let mut block = [0; BLOCK];
    let mut set = |at: usize, bytes: &[u8]| {
        for (to, from) in block.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    // What does not fit is in the records.
    let octal = |number: u64, digits: usize, most: u64| {
        let number = if number > most { 0 } else { number };
        format!("{number:0digits$o}\0").into_bytes()
    };
    set(0, name.get(..name.len().min(NAME_BYTES)).unwrap_or_default());
    set(100, &octal(mode, 7, ID_MAX));
    set(108, &octal(uid, 7, ID_MAX));
    set(116, &octal(gid, 7, ID_MAX));
    set(124, &octal(size, 11, SIZE_MAX));
    set(136, &octal(mtime, 11, SIZE_MAX));
    set(148, b"        ");
    set(156, &[kind]);
    set(157, link.get(..link.len().min(NAME_BYTES)).unwrap_or_default());
    set(257, b"ustar\x0000");
    set(329, &octal(libc::major(device).into(), 7, ID_MAX));
    set(337, &octal(libc::minor(device).into(), 7, ID_MAX));
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    for (to, from) in block.iter_mut().skip(148).zip(text.bytes()) {
        *to = from;
    }
    block
}

/// `length key=value\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        assert_eq!(record(b"path", b"x"), b"9 path=x\n");
        for length in [1, 80, 88, 89, 90, 91, 985, 990, 4000] {
            let text = record(b"path", &vec![b'y'; length]);
            let said: usize =
                String::from_utf8(text.clone()).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, text.len());
        }
    }

    #[test]
    fn an_archive_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![7; 1000]).unwrap();
        fs::hard_link(&path, folder.path().join("again")).unwrap();
        std::os::unix::fs::symlink("t".repeat(150), folder.path().join("link")).unwrap();
        let long = "n".repeat(140);
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.add(folder.path(), b"top").unwrap();
        archive.add(&path, long.as_bytes()).unwrap();
        archive.add(&folder.path().join("again"), "ümlaut".as_bytes()).unwrap();
        archive.add(&folder.path().join("link"), b"link").unwrap();
        archive.add(&folder.path().join("gone"), b"gone").unwrap();
        archive.mark(b"d/.wh.x").unwrap();
        archive.finish().unwrap();
        let mut read = tar::Archive::new(bytes.as_slice());
        let seen: Vec<_> = read
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                let link = entry.link_name_bytes().map(|link| link.len());
                (String::from_utf8(entry.path_bytes().to_vec()).unwrap(), content.len(), link)
            })
            .collect();
        let expect = [
            ("top/".to_owned(), 0, None),
            (long, 1000, None),
            ("ümlaut".to_owned(), 0, Some(140)),
            ("link".to_owned(), 0, Some(150)),
            ("d/.wh.x".to_owned(), 0, None),
        ];
        assert_eq!(seen, expect);
    }
}
