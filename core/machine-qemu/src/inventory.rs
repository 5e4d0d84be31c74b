//! What this server has on the host: folders and files below its data folder, processes that hold such files, and what
//! is in the namespaces of its VCHs.

use crate::networks::QemuNetworks;
use crate::record::MachineFolder;
use crate::shared::Shared;
use crate::{spares, templates};
use async_trait::async_trait;
use bulkhead_machine::MachineError;
use bulkhead_machine::inventory::{Found, Inventory, Kind};
use bulkhead_model::ContainerId;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(crate) struct QemuInventory {
    pub(crate) shared: Arc<Shared>,
    pub(crate) networks: QemuNetworks,
}

#[async_trait]
impl Inventory for QemuInventory {
    async fn found(&self) -> Result<Vec<Found>, MachineError> {
        let own = self.clone();
        let done = tokio::task::spawn_blocking(move || own.look()).await;
        done.map_err(io::Error::other).flatten().map_err(MachineError::io("looking over the host"))
    }
}

impl QemuInventory {
    /// Processes of machines, and of spares and what becomes a template, which are nobody's.
    fn known(&self) -> io::Result<HashMap<u32, Option<ContainerId>>> {
        let nobodys = [spares::pids(&self.shared)?, templates::pids(&self.shared)?].concat();
        let mut known: HashMap<_, _> = nobodys.into_iter().map(|pid| (pid, None)).collect();
        for (id, folder) in MachineFolder::all(&self.shared.machines_folder())? {
            if let Some(record) = folder.record()? {
                known.insert(record.process.pid, Some(id));
            }
        }
        Ok(known)
    }

    fn look(&self) -> io::Result<Vec<Found>> {
        let data = &self.shared.data_dir;
        let mut all = Vec::new();
        for (id, folder) in MachineFolder::all(&self.shared.machines_folder())? {
            all.push(found(Kind::Machine, id.as_str(), &folder.path().display().to_string()));
        }
        for name in names(&data.join("journals"))? {
            all.push(found(Kind::Journal, &name, &format!("journals/{name}")));
        }
        for vch in names(&data.join("vchs"))? {
            for file in names(&data.join("vchs").join(&vch).join("disks"))? {
                let id = file.strip_suffix(".ext4").unwrap_or(&file);
                all.push(found(Kind::Disk, id, &format!("vchs/{vch}/disks/{file}")));
            }
        }
        for folder in self.shared.disks.disk_folders() {
            for vch in names(&folder)? {
                for file in names(&folder.join(&vch))? {
                    let id = file.strip_suffix(".ext4").unwrap_or(&file);
                    all.push(found(Kind::Disk, id, &folder.join(&vch).join(&file).display().to_string()));
                }
            }
        }
        all.extend(processes(data, &self.known()?)?);
        all.extend(self.networks.found()?);
        Ok(all)
    }
}

pub(crate) fn found(kind: Kind, of: &str, name: &str) -> Found {
    Found { kind, of: of.to_owned(), name: name.to_owned() }
}

/// What is in a folder; nothing, where there is none.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Hypervisors of this server: they hold files below its data folder. Whose one is that no record knows, its name says.
fn processes(data: &Path, known: &HashMap<u32, Option<ContainerId>>) -> io::Result<Vec<Found>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        // One that ends while it is looked at is none any more.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let Some(named) = named(&line) else { continue };
        let id = match name.to_str().and_then(|pid| known.get(&pid.parse().ok()?)) {
            Some(Some(id)) => id,
            // It is nobody's.
            Some(None) => continue,
            None => &named,
        };
        let open = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let mut files = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        if files.any(|file| file.starts_with(data)) {
            all.push(found(Kind::Process, id.as_str(), pid));
        }
    }
    Ok(all)
}

/// `qemu-system-x86_64 … -name ID …`
fn named(command_line: &[u8]) -> Option<ContainerId> {
    let mut words = command_line.split(|byte| *byte == 0).map(|word| std::str::from_utf8(word).unwrap_or(""));
    let program = words.next()?.rsplit('/').next()?;
    program.starts_with("qemu").then_some(())?;
    words.find(|word| *word == "-name")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_known_by_their_command_line() {
        let id = "ab".repeat(32);
        let line = format!("/usr/bin/qemu-system-x86_64\0-M\0q35\0-name\0{id}\0-m\0128\0");
        assert_eq!(named(line.as_bytes()).unwrap().as_str(), id);
        for other in ["bash\0-name\0x", "qemu-system-x86_64\0-name\0x\0", "qemu-img\0", ""] {
            assert_eq!(named(other.as_bytes()), None, "{other}");
        }
    }
}
