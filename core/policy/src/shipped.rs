//! The policies that come with Bulkhead, inside the program: it works without a checkout.

use crate::error::PolicyError;
use bulkhead_model::PolicyFiles;
use std::fs;
use std::io::Write as _;
use std::path::Path;

macro_rules! shipped {
    ($($folder:literal / $name:literal),+ $(,)?) => {
        &[$(($folder, $name, include_str!(concat!("../../../policies/", $folder, "/", $name)))),+]
    };
}

/// Folder, file, text; in the order in which they are read from disk.
const FILES: &[(&str, &str, &str)] = shipped![
    "base" / "operators.cedar",
    "base" / "system.cedar",
    "base" / "tenants.cedar",
    "dev" / "users.cedar",
    "prod" / "containers.cedar",
    "prod" / "images.cedar",
    "prod" / "users.cedar",
    "test" / "memory.cedar",
    "test" / "users.cedar",
];

/// As a set's files.
pub(crate) fn files() -> PolicyFiles {
    FILES.iter().map(|(folder, name, text)| (format!("{folder}/{name}"), (*text).to_owned())).collect()
}

/// Writes the shipped policies into a folder that is not there yet; says whether it did. A folder that exists is
/// the operator's and stays as it is.
pub fn write_defaults(dir: &Path) -> Result<bool, PolicyError> {
    if fs::symlink_metadata(dir).is_ok() {
        return Ok(false);
    }
    // Written beside and renamed, so that a crash cannot leave half of them in force.
    let mut beside = dir.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| PolicyError::Io { path, source }
    };
    if beside.exists() {
        fs::remove_dir_all(beside).map_err(io(beside))?;
    }
    for (folder, name, text) in FILES {
        let folder = beside.join(folder);
        fs::create_dir_all(&folder).map_err(io(&folder))?;
        let path = folder.join(name);
        let mut file = fs::File::create_new(&path).map_err(io(&path))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io(&path))?;
    }
    fs::rename(beside, dir).map_err(io(dir))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicySet;

    #[test]
    fn every_policy_file_is_inside() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
        let mut on_disk = crate::read_folder(&root).unwrap();
        on_disk.retain(|name, _| name.ends_with(".cedar"));
        let inside = files();
        assert_eq!(on_disk, inside);
    }

    #[test]
    fn defaults_are_written_once_and_never_over_the_operator_s() {
        let dir = tempfile::tempdir().unwrap();
        let policies = dir.path().join("policies");
        fs::create_dir_all(dir.path().join("policies.new/base")).unwrap();
        fs::write(dir.path().join("policies.new/base/half.cedar"), "permit").unwrap();
        assert!(write_defaults(&policies).unwrap());
        let shipped = PolicySet::shipped().unwrap();
        assert_eq!(PolicySet::load(&policies).unwrap().digest(), shipped.digest());
        fs::remove_file(policies.join("test/memory.cedar")).unwrap();
        assert!(!write_defaults(&policies).unwrap());
        assert_ne!(PolicySet::load(&policies).unwrap().digest(), shipped.digest());
    }

    #[test]
    fn every_shipped_policy_says_why_and_what_would_pass() {
        for (name, text) in files() {
            let set: cedar_policy::PolicySet = text.parse().unwrap();
            for policy in set.policies() {
                for key in ["id", "reason", "advice"] {
                    let words = policy.annotation(key).unwrap_or_default();
                    assert!(!words.is_empty(), "{name}: a policy without @{key}: {policy}");
                    assert!(!words.ends_with('.'), "{name}: @{key} ends with a full stop");
                }
            }
        }
    }
}
