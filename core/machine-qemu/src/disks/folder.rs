//! Folders of the host that an operator gave for volumes: `FOLDER/<vch id>` is ours.

use super::file;
use bulkhead_machine::MachineError;
use bulkhead_model::VchId;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// The VCH's part of a folder.
pub(super) fn of(vch: VchId, folder: &Path) -> PathBuf {
    folder.join(vch.to_string())
}

/// Fails if what the folder lies on is not there.
pub(super) fn check(vch: VchId, folder: &Path) -> Result<(), MachineError> {
    match fs::symlink_metadata(of(vch, folder)) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(MachineError::io("looking at a folder for volumes")(error))
        }
        _ => Err(MachineError::NoFolder { folder: folder.to_owned() }),
    }
}

pub(super) fn open(vch: VchId, folder: &Path) -> Result<(), MachineError> {
    let bad = |why: String| MachineError::BadFolder { folder: folder.to_owned(), why };
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !folder.is_absolute() || !folder.components().all(plain) {
        return Err(bad("expected an absolute path without `..`".into()));
    }
    let found = fs::metadata(folder).map_err(|error| bad(error.to_string()))?;
    if !found.is_dir() {
        return Err(bad("it is not a folder".into()));
    }
    let me = nix::unistd::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != me {
        return Err(bad(format!("it belongs to user {}, who could exchange what is in it", found.uid())));
    }
    // Sticky: others may write there, but not exchange what is ours.
    if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
        return Err(bad("others than its owner may write to it".into()));
    }
    let ours = of(vch, folder);
    match fs::DirBuilder::new().mode(0o700).create(&ours) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(bad(error.to_string())),
        _ => {}
    }
    let found = fs::symlink_metadata(&ours).map_err(|error| bad(error.to_string()))?;
    if !found.is_dir() || found.uid() != me || found.mode() & 0o077 != 0 {
        return Err(bad(format!("`{vch}` in it is not a folder of this server alone")));
    }
    // Not every file system can.
    file::unnamed(&ours, 0o600)
        .map(drop)
        .map_err(|error| bad(format!("its file system makes no files without a name: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_is_the_servers_alone() {
        let vch = VchId(uuid::Uuid::from_u128(7));
        let dir = tempfile::tempdir().unwrap();
        let refused = |folder: &Path| open(vch, folder).unwrap_err().to_string();
        open(vch, dir.path()).unwrap();
        open(vch, dir.path()).unwrap();
        check(vch, dir.path()).unwrap();
        assert!(refused(Path::new("relative")).contains("absolute"));
        assert!(refused(&dir.path().join("../x")).contains("without `..`"));
        assert!(refused(&dir.path().join("missing")).contains("No such file"));
        let open_to_all = dir.path().join("open");
        fs::create_dir(&open_to_all).unwrap();
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&open_to_all).contains("may write to it"));
        assert!(matches!(check(vch, &open_to_all), Err(MachineError::NoFolder { .. })));
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o1777)).unwrap();
        std::os::unix::fs::symlink("/etc", of(vch, &open_to_all)).unwrap();
        assert!(refused(&open_to_all).contains("is not a folder of this server alone"));
        assert!(matches!(check(vch, &open_to_all), Err(MachineError::NoFolder { .. })));
    }
}
