//! Paths as Docker takes them: the last part is not followed, all before it is, and nothing leads out of the root.

use super::{At, Wrong, said};
use crate::failure::reason;
use bulkhead_guest_protocol::files::{Failed, PathStat, encode_item};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// As many symbolic links as Docker follows.
const LINKS_MAX: usize = 255;

/// Where a path leads.
#[derive(Debug)]
pub struct Located {
    /// With every link but the last part followed.
    pub target: PathBuf,
    pub stat: PathStat,
}

impl Located {
    /// What entries of an archive are named after; nothing for the root.
    pub fn name(&self) -> &str {
        self.stat.name.trim_matches('/')
    }
}

pub fn locate(asked: &str) -> Result<Located, Wrong> {
    let (folder, base, name) = split(asked);
    let followed = follow(Path::new("/"), &folder);
    let target = match &base {
        Some(base) => followed.join(base),
        None => followed,
    };
    let found = fs::symlink_metadata(&target).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Wrong::new(Failed::NotFound, "there is nothing"),
        _ => Wrong::new(Failed::Other, format!("stat {}: {}", target.display(), reason(&error))),
    })?;
    let link_target = match found.is_symlink() {
        true => follow(Path::new("/"), &target).to_string_lossy().into_owned(),
        false => String::new(),
    };
    let stat = PathStat {
        name,
        size: found.len(),
        mode: found.mode(),
        mtime_seconds: found.mtime(),
        mtime_nanoseconds: u32::try_from(found.mtime_nsec()).unwrap_or(0),
        link_target,
    };
    Ok(Located { target, stat })
}

/// The folder that a path leads to, all links followed.
pub fn folder(asked: &str) -> Result<PathBuf, Wrong> {
    let path = follow(Path::new("/"), Path::new(asked));
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(Wrong::new(Failed::NotFolder, "extraction point is not a directory")),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(Wrong::new(Failed::NotFound, "there is nothing"))
        }
        Err(error) => Err(error).at("stat", &path),
    }
}

pub fn say(located: &Located, out: &mut impl Write) -> Result<(), Wrong> {
    let bytes = encode_item(&located.stat)
        .map_err(|error| Wrong::new(Failed::Other, format!("tell what is there: {error}")))?;
    said(out.write_all(&bytes))
}

/// The folder, what is in it (`None`: the folder itself is meant), and the name that is told.
fn split(asked: &str) -> (PathBuf, Option<OsString>, String) {
    let clean = clean(Path::new(asked));
    let itself = asked.ends_with('/') || asked == "." || asked.ends_with("/.") || asked.is_empty();
    let name = match clean.file_name() {
        _ if asked == "." || asked.ends_with("/.") => ".".to_owned(),
        Some(name) => name.to_string_lossy().into_owned(),
        None => "/".to_owned(),
    };
    match (clean.parent(), clean.file_name()) {
        (Some(parent), Some(base)) if !itself => (parent.to_owned(), Some(base.to_owned()), name),
        _ => (clean, None, name),
    }
}

/// From the root, without `.` and `..`.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Follows every link of a path below `root`, as if that was the root; what is not there is taken as it is written.
/// The result is seen from `root`, too.
pub fn follow(root: &Path, path: &Path) -> PathBuf {
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        let here = done.join(&part);
        let seen = root.join(here.strip_prefix("/").unwrap_or(&here));
        match fs::read_link(seen) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(part);
                }
            }
            _ => done = here,
        }
    }
    done
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_last_part_is_told_from_the_folder_itself() {
        let check = |asked: &str, folder: &str, base: Option<&str>, name: &str| {
            assert_eq!(split(asked), (folder.into(), base.map(OsString::from), name.to_owned()), "{asked}");
        };
        check("/a/b", "/a", Some("b"), "b");
        check("a/b", "/a", Some("b"), "b");
        check("/a/b/", "/a/b", None, "b");
        check("/a/b/.", "/a/b", None, ".");
        check("/", "/", None, "/");
        check("", "/", None, "/");
        check(".", "/", None, ".");
        check("/a/../../b", "/", Some("b"), "b");
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/deep")).unwrap();
        symlink("/a", root.path().join("absolute")).unwrap();
        symlink("../../../../a/deep", root.path().join("a/up")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        let check = |path: &str, expect: &str| {
            assert_eq!(follow(root.path(), Path::new(path)), Path::new(expect), "{path}");
        };
        check("/absolute/deep", "/a/deep");
        check("absolute/up/x", "/a/deep/x");
        check("/../../a", "/a");
        check("/absolute/../b", "/b");
        check("/missing/x/..", "/missing");
        check("loop/x", "/loop/x");
    }
}
