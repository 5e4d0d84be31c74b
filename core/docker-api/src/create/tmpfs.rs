//! `--tmpfs /run:rw,size=64m`: a map of paths to mount options.

use super::fields::{self, Rule::Mapped};
use crate::error::ApiError;
use crate::json::Fields;
use crate::query::clip;
use bulkhead_model::process::Tmpfs;
use bulkhead_model::volume::clean_target;
use serde_json::Value;
use std::collections::BTreeMap;

const OPTIONS: &[(&str, fields::Rule)] = &[("SizeBytes", Mapped), ("Mode", Mapped), ("Options", Mapped)];

pub fn read(map: &BTreeMap<String, String>) -> Result<Vec<Tmpfs>, ApiError> {
    let mut list: Vec<Tmpfs> = Vec::new();
    for (path, options) in map {
        let mut tmpfs = Tmpfs {
            target: clean_target(path).map_err(|error| ApiError::bad(error.to_string()))?,
            ..Tmpfs::default()
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let invalid = || ApiError::bad(format!("Invalid tmpfs option {:?}", clip(option)));
            apply(&mut tmpfs, option).ok_or_else(invalid)?;
        }
        list.push(tmpfs);
    }
    sorted(list)
}

/// `--mount type=tmpfs`: its options are fields.
pub fn of_mount(target: String, read_only: bool, options: &Fields) -> Result<Tmpfs, ApiError> {
    fields::check("HostConfig.Mounts.TmpfsOptions.", options, OPTIONS)?;
    let mut tmpfs = Tmpfs { target, read_only, ..Tmpfs::default() };
    let invalid = |name: &str| ApiError::bad(format!("invalid TmpfsOptions.{name}"));
    if let Some(bytes) = options.integer("SizeBytes")?.filter(|bytes| *bytes != 0) {
        tmpfs.size = Some(u64::try_from(bytes).map_err(|_| invalid("SizeBytes"))?.to_string());
    }
    if let Some(mode) = options.integer("Mode")?.filter(|mode| *mode != 0) {
        let mode = u32::try_from(mode).ok().filter(|mode| *mode <= 0o7777);
        tmpfs.mode = Some(mode.ok_or_else(|| invalid("Mode"))?);
    }
    let list = match options.get("Options") {
        Value::Null => &[][..],
        Value::Array(list) => list.as_slice(),
        _ => return Err(invalid("Options")),
    };
    for option in list {
        match option.as_array().map(Vec::as_slice) {
            Some([Value::String(word)]) if matches!(word.as_str(), "exec" | "noexec") => {
                tmpfs.executable = word == "exec";
            }
            _ => return Err(invalid("Options")),
        }
    }
    Ok(tmpfs)
}

/// Refuses the same path twice; gives parents before what is below them.
pub fn sorted(mut list: Vec<Tmpfs>) -> Result<Vec<Tmpfs>, ApiError> {
    list.sort_by(|one, other| one.target.cmp(&other.target));
    match list.windows(2).find(|pair| matches!(pair, [one, other] if one.target == other.target)) {
        Some(pair) => {
            let target = pair.first().map_or("", |one| one.target.as_str());
            Err(ApiError::bad(format!("Duplicate mount point: {}", clip(target))))
        }
        None => Ok(list),
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
