//! `--tmpfs /run:rw,size=64m`: a map of paths to mount options.

use crate::error::ApiError;
use crate::query::clip;
use bulkhead_model::process::Tmpfs;
use std::collections::BTreeMap;

pub fn read(map: &BTreeMap<String, String>) -> Result<Vec<Tmpfs>, ApiError> {
    let mut list: Vec<Tmpfs> = Vec::new();
    for (path, options) in map {
        let mut tmpfs = Tmpfs { target: target(path)?, ..Tmpfs::default() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let invalid = || ApiError::bad(format!("Invalid tmpfs option {:?}", clip(option)));
            apply(&mut tmpfs, option).ok_or_else(invalid)?;
        }
        if list.iter().any(|other| other.target == tmpfs.target) {
            return Err(ApiError::bad(format!("Duplicate mount point: {}", clip(&tmpfs.target))));
        }
        list.push(tmpfs);
    }
    list.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(list)
}

/// The path without needless parts.
fn target(path: &str) -> Result<String, ApiError> {
    let invalid = |why: &str| Err(ApiError::bad(format!("invalid mount path: '{}' {why}", clip(path))));
    if !path.starts_with('/') {
        return invalid("mount path must be absolute");
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    match parts.first() {
        None => Err(ApiError::bad("invalid specification: destination can't be '/'")),
        Some(&"proc" | &"sys") => invalid("must not be inside /proc or /sys"),
        Some(_) if path.contains('\0') => invalid("has a zero in it"),
        Some(_) => Ok(format!("/{}", parts.join("/"))),
    }
}

/// A later option wins.
fn apply(tmpfs: &mut Tmpfs, option: &str) -> Option<()> {
    match option.split_once('=') {
        None => match option {
            "defaults" | "rw" => tmpfs.read_only = false,
            "ro" => tmpfs.read_only = true,
            "exec" => tmpfs.executable = true,
            "noexec" => tmpfs.executable = false,
            "suid" => tmpfs.set_user_id = true,
            "nosuid" => tmpfs.set_user_id = false,
            "dev" => tmpfs.devices = true,
            "nodev" => tmpfs.devices = false,
            // What the kernel does anyway.
            "async" | "relatime" | "rprivate" | "private" => {}
            _ => return None,
        },
        Some(("size", value)) => tmpfs.size = Some(size(value)?),
        Some(("mode", value)) => {
            tmpfs.mode = Some(u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777)?);
        }
        Some(("uid", value)) => tmpfs.uid = Some(id(value)?),
        Some(("gid", value)) => tmpfs.gid = Some(id(value)?),
        Some(("nr_inodes", value)) => tmpfs.inodes = Some(value.parse().ok()?),
        Some(_) => return None,
    }
    Some(())
}

/// Digits and at most one letter, as the kernel reads it.
fn size(value: &str) -> Option<String> {
    let lower = value.to_ascii_lowercase();
    let digits = lower.strip_suffix(['k', 'm', 'g', '%']).unwrap_or(&lower);
    let good = digits.parse::<u64>().is_ok() && digits.bytes().all(|byte| byte.is_ascii_digit());
    good.then_some(lower)
}

fn id(value: &str) -> Option<u32> {
    value.parse().ok().filter(|id| *id <= i32::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, options: &str) -> Result<Tmpfs, String> {
        let map = BTreeMap::from([(path.to_owned(), options.to_owned())]);
        read(&map).map(|mut list| list.remove(0)).map_err(|error| error.message)
    }

    #[test]
    fn options_are_dockers() {
        let plain = Tmpfs { target: "/run".into(), ..Tmpfs::default() };
        assert_eq!(check("/run", "").unwrap(), plain);
        assert_eq!(check("/./run//x/..", "rw,noexec,nosuid,nodev").unwrap(), plain);
        let full = check("/a/b", "ro,exec,suid,dev,size=64M,mode=1770,uid=5,gid=6,nr_inodes=9").unwrap();
        let expect = Tmpfs {
            target: "/a/b".into(),
            read_only: true,
            executable: true,
            set_user_id: true,
            devices: true,
            size: Some("64m".into()),
            inodes: Some(9),
            mode: Some(0o1770),
            uid: Some(5),
            gid: Some(6),
        };
        assert_eq!(full, expect);
        assert!(!check("/a", "exec,noexec").unwrap().executable);
    }

    #[test]
    fn others_are_refused() {
        for option in
            ["size=", "size=1x", "size=-1", "size=+1", "mode=9", "mode=77777", "uid=x", "bind", "remount"]
        {
            assert_eq!(check("/a", option).unwrap_err(), format!("Invalid tmpfs option {option:?}"));
        }
        for path in ["run", "/", "/a/..", "/proc", "/proc/x", "/sys/fs/cgroup"] {
            assert!(check(path, "").is_err(), "{path}");
        }
        let twice = BTreeMap::from([("/a".into(), String::new()), ("/a/".into(), String::new())]);
        assert_eq!(read(&twice).unwrap_err().message, "Duplicate mount point: /a");
    }
}
