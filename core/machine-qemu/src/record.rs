//! What a machine leaves on disk, so that the next server finds it:
//!
//! ```text
//!   DATA/machines/<container id>/   0700 root
//!     machine.json   what was asked, and which process it is; written before the process may run as this machine
//!     loaded         a clone has all of its state and disks; what has not never was a machine
//!     end.json       why it ended
//!     agent.sock, qmp.sock          listened on by QEMU
//!     root/          empty; QEMU's own root is mounted here, in its namespace only
//! ```
//!
//! A folder without `machine.json` never became a machine.

use crate::process::ProcessId;
use crate::templates::Class;
use bulkhead_machine::MachineSpec;
use bulkhead_machine::networks::Nic;
use bulkhead_machine::state::MachineState;
use bulkhead_model::ContainerId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) spec: MachineSpec,
    pub(crate) process: ProcessId,
    /// User and group that it runs under.
    pub(crate) uid: u32,
    pub(crate) since: DateTime<Utc>,
    /// Which interface is on which port now, counted from 1.
    #[serde(default)]
    pub(crate) ports: BTreeMap<usize, Nic>,
    /// `None`: it booted.
    #[serde(default)]
    pub(crate) cloned: Option<Cloned>,
    /// Sizes of the memory modules that came since its start, in bytes.
    #[serde(default)]
    pub(crate) modules: Vec<u64>,
    /// What its container was allowed after its start, where that is more.
    #[serde(default)]
    pub(crate) granted_bytes: u64,
}

impl Record {
    /// Of a machine that has the first `nics` of its interfaces.
    pub(crate) fn new(
        spec: &MachineSpec,
        process: ProcessId,
        uid: u32,
        nics: usize,
        cloned: Option<Cloned>,
    ) -> Self {
        let ports = spec.nics.iter().take(nics).cloned().enumerate();
        Self {
            spec: spec.clone(),
            process,
            uid,
            since: Utc::now(),
            ports: ports.map(|(place, nic)| (place + 1, nic)).collect(),
            cloned,
            modules: Vec::new(),
            granted_bytes: 0,
        }
    }

    /// Of memory that came since its start.
    pub(crate) fn plugged_bytes(&self) -> u64 {
        self.modules.iter().sum()
    }

    /// What its container may be allowed of what it has. Of what was plugged in, the guest's kernel takes its part.
    pub(crate) fn usable_bytes(&self) -> u64 {
        let plugged = self.plugged_bytes();
        Class::of(&self.spec).usable_bytes().saturating_add(plugged - plugged / 32)
    }
}

/// What a machine was cloned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cloned {
    /// Name of the template.
    pub(crate) template: String,
    /// The descriptor in the hypervisor that holds its memory.
    pub(crate) memory: RawFd,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct End {
    reason: String,
}

/// The folder of one machine.
#[derive(Debug, Clone)]
pub(crate) struct MachineFolder(PathBuf);

impl MachineFolder {
    pub(crate) fn of(machines: &Path, id: &ContainerId) -> Self {
        Self(machines.join(id.as_str()))
    }

    /// For what is not a container's machine.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// All of them, whether or not they became a machine.
    pub(crate) fn all(machines: &Path) -> io::Result<Vec<(ContainerId, Self)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(machines)? {
            let entry = entry?;
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                all.push((id, Self(entry.path())));
            }
        }
        Ok(all)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// Made anew: what an earlier attempt left is removed.
    pub(crate) fn create(&self) -> io::Result<()> {
        self.remove()?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder.create(&self.0)?;
        builder.create(self.root())
    }

    /// Fine if it is not there. The server's own folder: no guest has a way to put anything into it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn record(&self) -> io::Result<Option<Record>> {
        read(&self.0.join("machine.json"))
    }

    pub(crate) fn write_record(&self, record: &Record) -> io::Result<()> {
        write(&self.0, "machine.json", record)
    }

    /// Notes that a clone has all of its state. Of interest only while its process lives, so it need not reach the disk.
    pub(crate) fn write_loaded(&self) -> io::Result<()> {
        fs::write(self.0.join("loaded"), "")
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.0.join("loaded").exists()
    }

    /// Why it ended, if that was written down.
    pub(crate) fn end(&self) -> io::Result<Option<String>> {
        Ok(read::<End>(&self.0.join("end.json"))?.map(|end| end.reason))
    }

    /// The first reason stays.
    pub(crate) fn write_end(&self, reason: &str) -> io::Result<()> {
        match self.end()? {
            Some(_) => Ok(()),
            None => write(&self.0, "end.json", &End { reason: reason.into() }),
        }
    }

    /// What it is now: the disk says what was started, `/proc` whether it still runs.
    pub(crate) fn state(&self) -> io::Result<(MachineState, Option<Record>)> {
        let Some(record) = self.record()? else { return Ok((MachineState::Absent, None)) };
        let run = record.spec.run;
        let state = match self.end()? {
            Some(reason) => MachineState::Ended { run, reason },
            None if record.process.alive()? => MachineState::Running { run, since: record.since },
            None => MachineState::Ended { run, reason: UNKNOWN_END.into() },
        };
        Ok((state, Some(record)))
    }
}

/// When neither QEMU nor its log had the time to say why.
pub(crate) const UNKNOWN_END: &str = "the hypervisor process ended";

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole or not at all, also after a power loss.
pub(crate) fn write(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let draft = folder.join(format!(".{name}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_data()?;
    fs::rename(&draft, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_record_is_no_machine() {
        let machines = tempfile::tempdir().unwrap();
        let id = ContainerId::from_random([7; 32]);
        let folder = MachineFolder::of(machines.path(), &id);
        folder.create().unwrap();
        folder.create().unwrap();
        assert_eq!(folder.state().unwrap().0, MachineState::Absent);
        assert_eq!(MachineFolder::all(machines.path()).unwrap().len(), 1);
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert!(MachineFolder::all(machines.path()).unwrap().is_empty());
    }

    #[test]
    fn the_first_reason_of_an_end_stays() {
        let machines = tempfile::tempdir().unwrap();
        let folder = MachineFolder::of(machines.path(), &ContainerId::from_random([7; 32]));
        folder.create().unwrap();
        folder.write_end("killed").unwrap();
        folder.write_end("vanished").unwrap();
        assert_eq!(folder.end().unwrap().as_deref(), Some("killed"));
    }

    #[test]
    fn removal_follows_no_symlink() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("canary"), "alive").unwrap();
        let folder = MachineFolder::of(dir.path(), &ContainerId::from_random([7; 32]));
        folder.create().unwrap();
        std::os::unix::fs::symlink(dir.path(), folder.root().join("out")).unwrap();
        folder.remove().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("canary")).unwrap(), "alive");
    }
}
