//! Folders that an operator gave for the disks of containers:
//!
//! ```text
//!   FOLDER/bulkhead-datastore             whose it is; where it is missing, so is what the folder lies on
//!   FOLDER/disks/<vch id>/<container id>.ext4
//!   DATA/datastores/<name>                it was there once: its folder is not taken for a new one
//! ```

use super::file;
use crate::record;
use bulkhead_machine::MachineError;
use bulkhead_machine::places::{DatastoreFacts, Space};
use bulkhead_model::placement::DatastoreName;
use bulkhead_model::{ServerId, VchId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A datastore, as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datastore {
    pub name: DatastoreName,
    pub folder: PathBuf,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    server: ServerId,
    datastore: DatastoreName,
}

const MARK: &str = "bulkhead-datastore";

#[derive(Debug)]
pub(crate) struct Datastores {
    data_dir: PathBuf,
    named: Vec<Datastore>,
}

impl Datastores {
    /// Makes new ones ready. One that was there before and is not now is told in the log, and has no room.
    pub(crate) fn open(data_dir: &Path, named: Vec<Datastore>, server: ServerId) -> io::Result<Self> {
        let known = data_dir.join("datastores");
        file::make_folder(&known)?;
        for datastore in &named {
            let wrong = |why: String| {
                let (name, folder) = (&datastore.name, datastore.folder.display());
                io::Error::other(format!("datastore `{name}` cannot be in `{folder}`: {why}"))
            };
            let note = known.join(datastore.name.as_str());
            let mark = Mark { server, datastore: datastore.name.clone() };
            match record::read::<Mark>(&datastore.folder.join(MARK))
                .map_err(|error| wrong(error.to_string()))?
            {
                Some(found) if found == mark => {}
                Some(found) => {
                    return Err(wrong(format!(
                        "datastore `{}` of server {} is there",
                        found.datastore, found.server
                    )));
                }
                None if note.exists() => {
                    let (name, folder) = (&datastore.name, datastore.folder.display());
                    tracing::error!(%name, %folder, "a datastore is not there: is what it lies on mounted?");
                    continue;
                }
                None => {
                    check(&datastore.folder).map_err(wrong)?;
                    record::write(&datastore.folder, MARK, &mark)
                        .map_err(|error| wrong(error.to_string()))?;
                }
            }
            file::make_folder(&datastore.folder.join("disks"))?;
            fs::write(&note, "")?;
        }
        Ok(Self { data_dir: data_dir.to_owned(), named })
    }

    /// Where the disks of a VCH are.
    pub(crate) fn disks(&self, vch: VchId, name: &DatastoreName) -> Result<PathBuf, MachineError> {
        if name.is_default() {
            return Ok(self.data_dir.join("vchs").join(vch.to_string()).join("disks"));
        }
        let found = self.named.iter().find(|datastore| datastore.name == *name);
        let datastore = found.ok_or_else(|| MachineError::NoSuchDatastore(name.clone()))?;
        match datastore.is_there() {
            true => Ok(datastore.disks().join(vch.to_string())),
            false => Err(MachineError::DatastoreAway(name.clone())),
        }
    }

    /// Of all that are there, the folders of disks, a folder for each VCH in each.
    pub(crate) fn all_disks(&self) -> impl Iterator<Item = PathBuf> {
        self.named.iter().filter(|datastore| datastore.is_there()).map(Datastore::disks)
    }

    /// Where nobody named any, there is the data folder.
    pub(crate) fn facts(&self) -> Vec<DatastoreFacts> {
        if self.named.is_empty() {
            return vec![DatastoreFacts { space: space(&self.data_dir), ..DatastoreFacts::default() }];
        }
        let facts = |datastore: &Datastore| DatastoreFacts {
            name: datastore.name.clone(),
            labels: datastore.labels.clone(),
            space: datastore.is_there().then(|| space(&datastore.folder)).flatten(),
        };
        self.named.iter().map(facts).collect()
    }
}

impl Datastore {
    fn is_there(&self) -> bool {
        self.folder.join(MARK).exists()
    }

    fn disks(&self) -> PathBuf {
        self.folder.join("disks")
    }
}

fn space(folder: &Path) -> Option<Space> {
    let found = nix::sys::statvfs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Some(Space { bytes: bytes(found.blocks()), free_bytes: bytes(found.blocks_available()) })
}

/// Nobody but the server may exchange what is in it, and its file system must do what disks need.
fn check(folder: &Path) -> Result<(), String> {
    let found = fs::metadata(folder).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err("it is not a folder".into());
    }
    let me = nix::unistd::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != me {
        return Err(format!("it belongs to user {}, who could exchange what is in it", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return Err("others than its owner may write to it".into());
    }
    let unnamed = file::unnamed(folder, 0o600).map(drop);
    unnamed.map_err(|error| format!("its file system makes no files without a name: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u128) -> ServerId {
        ServerId(uuid::Uuid::from_u128(number))
    }

    fn named(name: &str, folder: PathBuf) -> Datastore {
        Datastore { name: name.parse().unwrap(), folder, labels: BTreeMap::new() }
    }

    #[test]
    fn what_is_not_mounted_is_never_taken_for_new() {
        let dir = tempfile::tempdir().unwrap();
        let (data, fast) = (dir.path().join("data"), dir.path().join("fast"));
        fs::create_dir(&data).unwrap();
        let open = |number| Datastores::open(&data, vec![named("fast", fast.clone())], server(number));
        assert!(open(1).unwrap_err().to_string().contains("No such file"));
        fs::create_dir(&fast).unwrap();
        let (vch, name) = (VchId(uuid::Uuid::from_u128(7)), "fast".parse().unwrap());
        let datastores = open(1).unwrap();
        assert_eq!(datastores.disks(vch, &name).unwrap(), fast.join("disks").join(vch.to_string()));
        assert!(datastores.facts()[0].space.is_some_and(|space| space.bytes > space.free_bytes));
        assert!(open(2).unwrap_err().to_string().contains("datastore `fast` of server"));
        // As when another file system is taken away from above it.
        fs::rename(&fast, dir.path().join("away")).unwrap();
        fs::create_dir(&fast).unwrap();
        let gone = open(1).unwrap();
        assert!(matches!(gone.disks(vch, &name), Err(MachineError::DatastoreAway(_))));
        assert_eq!((gone.facts()[0].space, gone.all_disks().count()), (None, 0));
        assert!(!fast.join(MARK).exists());
        let unnamed = gone.disks(vch, &"slow".parse().unwrap());
        assert!(matches!(unnamed, Err(MachineError::NoSuchDatastore(_))));
        // The data folder is there whoever is named.
        assert!(gone.disks(vch, &DatastoreName::default()).unwrap().starts_with(&data));
        fs::remove_dir(&fast).unwrap();
        fs::rename(dir.path().join("away"), &fast).unwrap();
        assert!(gone.disks(vch, &name).is_ok(), "it is found again");
    }

    #[test]
    fn a_folder_that_others_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let data = tempfile::tempdir().unwrap();
        let error =
            Datastores::open(data.path(), vec![named("fast", dir.path().into())], server(1)).unwrap_err();
        assert!(error.to_string().contains("others than its owner may write to it"), "{error}");
    }
}
