//! Volumes: writable disks with a life of their own, and where containers mount them.

use crate::container::SpecError;
use crate::ids::{VchId, VolumeId};
use crate::vch::VolumeStoreName;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Smallest disk that a file system is made on, in bytes.
pub const VOLUME_BYTES_MIN: u64 = 16 << 20;
/// Largest, in bytes: 16 TiB.
pub const VOLUME_BYTES_MAX: u64 = 16 << 40;
/// Mounts of one container.
pub const MOUNTS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 255;

/// A volume of a VCH: a disk file in one of its volume stores, with an ext4 that only guests ever read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub vch: VchId,
    pub id: VolumeId,
    pub name: VolumeName,
    pub labels: BTreeMap<String, String>,
    /// As they were given, for those who look.
    pub options: BTreeMap<String, String>,
    /// Size of its disk; sparse.
    pub size_bytes: u64,
    pub owner: String,
    /// Nobody named it.
    pub anonymous: bool,
    pub created_at: DateTime<Utc>,
    /// Its file system is complete and was left clean: nothing has to be written before it can be read.
    pub settled: bool,
    pub store: VolumeStoreName,
    /// Of its store; `None`: the server's data folder.
    pub folder: Option<PathBuf>,
}

impl Volume {
    pub fn place(&self) -> VolumePlace {
        VolumePlace { id: self.id, folder: self.folder.clone() }
    }
}

/// Where the disk of a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePlace {
    pub id: VolumeId,
    /// Of its store; `None`: the server's data folder.
    #[serde(default)]
    pub folder: Option<PathBuf>,
}

/// A volume's name, unique in its VCH.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeNameError {
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    TooShort,
    #[error("volume name is too long: {0} bytes, at most 255")]
    TooLong(usize),
    #[error(
        "create {0}: \"{0}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" \
         are allowed. If you intended to pass a host directory, use absolute path"
    )]
    Characters(String),
}

impl VolumeName {
    /// For a volume that nobody names.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = VolumeNameError;
    fn from_str(text: &str) -> Result<Self, VolumeNameError> {
        if text.len() == 1 {
            return Err(VolumeNameError::TooShort);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(VolumeNameError::TooLong(text.len()));
        }
        let good = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if good { Ok(Self(text.into())) } else { Err(VolumeNameError::Characters(text.into())) }
    }
}

impl TryFrom<String> for VolumeName {
    type Error = VolumeNameError;
    fn try_from(text: String) -> Result<Self, VolumeNameError> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> String {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What of a volume can be asked for when it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeAsk {
    /// `None`: it gets a random one.
    pub name: Option<VolumeName>,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Size of its disk; `None`: what the VCH is set to.
    pub size_bytes: Option<u64>,
    /// `None`: the default one, or where the volume is.
    pub store: Option<VolumeStoreName>,
}

/// A mount as asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountAsk {
    /// An absolute path without needless parts; see [`clean_target`].
    pub target: String,
    /// The volume, made if it is not there.
    pub volume: VolumeAsk,
    pub read_only: bool,
    /// An empty volume stays empty: it is not filled with what the image has there.
    pub no_copy: bool,
    /// A folder in the volume; empty: all of it.
    pub subpath: String,
}

/// All mounts that another container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountsFrom {
    pub container: String,
    pub read_only: bool,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub target: String,
    pub volume: VolumeId,
    pub name: VolumeName,
    /// Its volume was made for this mount.
    pub anonymous: bool,
    pub read_only: bool,
    /// An empty volume is filled with what the image has there.
    pub fills: bool,
    pub subpath: String,
}

/// A volume as a container has it, through all of its mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUse {
    pub id: VolumeId,
    /// No mount of it can be written.
    pub read_only: bool,
}

/// The volumes behind mounts, each once; one can be written if a mount of it can.
pub fn uses(mounts: &[Mount]) -> Vec<VolumeUse> {
    let mut uses: Vec<VolumeUse> = Vec::new();
    for mount in mounts {
        match uses.iter_mut().find(|found| found.id == mount.volume) {
            Some(found) => found.read_only &= mount.read_only,
            None => uses.push(VolumeUse { id: mount.volume, read_only: mount.read_only }),
        }
    }
    uses
}

/// A path in a container where something can be mounted, without needless parts.
pub fn clean_target(path: &str) -> Result<String, SpecError> {
    let invalid = |why: &str| Err(SpecError::Target(path.chars().take(200).collect(), why.to_owned()));
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
        None => Err(SpecError::TargetIsRoot),
        Some(&"proc" | &"sys") => invalid("must not be inside /proc or /sys"),
        Some(_) if path.contains('\0') => invalid("has a zero in it"),
        Some(_) => Ok(format!("/{}", parts.join("/"))),
    }
}

/// What is mounted where, parents first: what is asked for, what other containers have (`inherited`) unless asked for
/// otherwise, and a volume of its own at each of `paths` where nothing else is. `covered`: file systems in memory.
pub fn plan_mounts(
    asked: &[MountAsk],
    inherited: Vec<PlannedMount>,
    paths: &[String],
    covered: &[&str],
) -> Result<Vec<PlannedMount>, SpecError> {
    let mut planned = BTreeMap::new();
    for mount in inherited {
        planned.insert(mount.target().to_owned(), mount);
    }
    let mut own = std::collections::BTreeSet::new();
    for mount in asked {
        if covered.contains(&mount.target.as_str()) || !own.insert(&mount.target) {
            return Err(SpecError::DuplicateTarget(mount.target.clone()));
        }
        planned.insert(mount.target.clone(), PlannedMount::Asked(mount.clone()));
    }
    for path in paths {
        // In an image, what is written without a slash is meant from the root.
        let target = clean_target(&format!("/{path}"))?;
        if !planned.contains_key(&target) && !covered.contains(&target.as_str()) {
            let mount = MountAsk { target: target.clone(), ..MountAsk::default() };
            planned.insert(target, PlannedMount::Asked(mount));
        }
    }
    if planned.len() > MOUNTS_MAX {
        return Err(SpecError::TooMany { what: "mounts", len: planned.len(), max: MOUNTS_MAX });
    }
    Ok(planned.into_values().collect())
}

/// A mount whose volume may still have to be found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedMount {
    Asked(MountAsk),
    /// As another container has it.
    Inherited(Mount),
}

impl PlannedMount {
    pub fn target(&self) -> &str {
        match self {
            Self::Asked(mount) => &mount.target,
            Self::Inherited(mount) => &mount.target,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["aa", "A1", "web_data.v-1", &"x".repeat(255)] {
            assert_eq!(good.parse::<VolumeName>().unwrap().as_str(), good);
        }
        for bad in ["", "a", ".a", "-a", "a/b", "a b", "../x", "ä1", &"x".repeat(256)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
    }

    fn named(target: &str, name: &str) -> MountAsk {
        let volume = VolumeAsk { name: Some(name.parse().unwrap()), ..VolumeAsk::default() };
        MountAsk { target: target.into(), volume, ..MountAsk::default() }
    }

    fn inherited(target: &str, volume: u128, read_only: bool) -> Mount {
        Mount {
            target: target.into(),
            volume: VolumeId(uuid::Uuid::from_u128(volume)),
            name: "other".parse().unwrap(),
            anonymous: false,
            read_only,
            fills: false,
            subpath: String::new(),
        }
    }

    #[test]
    fn what_is_asked_for_comes_before_what_is_inherited_and_what_the_image_has() {
        let from = vec![
            PlannedMount::Inherited(inherited("/a", 1, false)),
            PlannedMount::Inherited(inherited("/b", 2, false)),
        ];
        let image = ["/b/".to_owned(), "/c".into(), "/run".into(), "/a/x".into()];
        let planned = plan_mounts(&[named("/a", "mine")], from, &image, &["/run"]).unwrap();
        let targets: Vec<_> = planned.iter().map(PlannedMount::target).collect();
        assert_eq!(targets, ["/a", "/a/x", "/b", "/c"]);
        assert_eq!(planned[0], PlannedMount::Asked(named("/a", "mine")));
        assert!(matches!(planned[2], PlannedMount::Inherited(_)));

        let twice = plan_mounts(&[named("/a", "one"), named("/a", "two")], Vec::new(), &[], &[]);
        assert_eq!(twice.unwrap_err().to_string(), "Duplicate mount point: /a");
        assert!(plan_mounts(&[named("/run", "one")], Vec::new(), &[], &["/run"]).is_err());
        let many: Vec<_> = (0..=MOUNTS_MAX).map(|n| named(&format!("/{n}"), "one")).collect();
        assert!(plan_mounts(&many, Vec::new(), &[], &[]).is_err());
        // An image is nobody's friend.
        for path in ["/", "/../..", "", "/proc/x", "sys"] {
            assert!(plan_mounts(&[], Vec::new(), &[path.to_owned()], &[]).is_err(), "{path}");
        }
    }

    #[test]
    fn a_volume_comes_once_and_is_written_if_any_mount_is() {
        let mounts = [inherited("/a", 1, true), inherited("/b", 2, true), inherited("/c", 1, false)];
        let uses: Vec<_> =
            uses(&mounts).iter().map(|found| (found.id.0.as_u128(), found.read_only)).collect();
        assert_eq!(uses, [(1, false), (2, true)]);
    }
}
