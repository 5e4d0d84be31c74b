//! A machine that is nobody's yet: one that is captured as a template, or one that waits as a spare. It is confined,
//! limited and written down like any other before it may run, and ends with its handle.
//!
//! ```text
//!   <folder>/   as a machine's
//!     unclaimed.json   which process it is, for a server that comes after a crash
//! ```

use crate::cgroups::Share;
use crate::drives::Drive;
use crate::launch::{LOG_BYTES, PARKED, confined, listen};
use crate::networks::tap::Parked;
use crate::plan::{LaunchPlan, Origin};
use crate::process::{Pidfd, ProcessId};
use crate::record::{self, MachineFolder};
use crate::shared::Shared;
use crate::spawn;
use crate::templates::Class;
use bulkhead_model::ContainerId;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use tokio::io::unix::AsyncFd;

const NOTE: &str = "unclaimed.json";
/// For the end of a process that was killed.
const END_WAIT_MS: u16 = 20_000;

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    id: ContainerId,
    process: ProcessId,
    uid: u32,
}

/// What differs from one to the other.
pub(crate) struct Wanted<'a> {
    pub(crate) class: Class,
    pub(crate) origin: Origin,
    pub(crate) memory: &'a File,
    /// Of what it is cloned from.
    pub(crate) state: Option<&'a File>,
    pub(crate) drives: &'a [(Drive, File)],
    /// The journal's name in the folder; without one, what it would write belongs to nobody.
    pub(crate) journal: Option<&'a str>,
}

/// A machine that runs. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    pub(crate) id: ContainerId,
    pub(crate) folder: MachineFolder,
    pub(crate) process: ProcessId,
    pub(crate) uid: u32,
    /// The hypervisor's words.
    pub(crate) log: File,
    pub(crate) parked: Parked,
    guard: Guard,
}

/// Ends its process when it is dropped.
#[derive(Debug)]
struct Guard(Option<Pidfd>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(Pidfd::kill) {
            tracing::error!(%error, "a machine that is nobody's could not be ended");
        }
    }
}

impl Unclaimed {
    /// Starts one. On an error nothing of it is left. Blocks for some ten milliseconds.
    pub(crate) fn launch(
        shared: &Shared,
        id: ContainerId,
        folder: MachineFolder,
        wanted: &Wanted<'_>,
    ) -> io::Result<Self> {
        let uid = shared.uids.take().map_err(io::Error::other)?;
        let started = start(shared, &id, &folder, uid, wanted);
        match started {
            Ok((process, pidfd, log, parked)) => {
                Ok(Self { id, folder, process, uid, log, parked, guard: Guard(Some(pidfd)) })
            }
            Err(error) => {
                forget(shared, &id, &folder, uid)?;
                Err(error)
            }
        }
    }

    pub(crate) fn alive(&self) -> bool {
        self.process.alive().unwrap_or(false)
    }

    /// Becomes readable when it ends.
    pub(crate) fn watch(&self) -> io::Result<AsyncFd<Pidfd>> {
        let pidfd = Pidfd::open(&self.process)?.ok_or(io::ErrorKind::BrokenPipe)?;
        // SAFETY: it owns its descriptor, which stays open and the same as long as it lives.
        Ok(unsafe { AsyncFd::register(pidfd) }?)
    }

    /// Its log and its process, which does not end with this handle any more.
    pub(crate) fn keep(mut self) -> (File, Option<Pidfd>) {
        (self.log, self.guard.0.take())
    }

    /// Ends it, and removes what it had. Blocks until it is over.
    pub(crate) fn dismiss(mut self, shared: &Shared) -> io::Result<()> {
        self.guard.0.take().map_or(Ok(()), |pidfd| end(&pidfd))?;
        forget(shared, &self.id, &self.folder, self.uid)
    }
}

fn start(
    shared: &Shared,
    id: &ContainerId,
    folder: &MachineFolder,
    uid: u32,
    wanted: &Wanted<'_>,
) -> io::Result<(ProcessId, Pidfd, File, Parked)> {
    folder.create()?;
    let mut journal = OpenOptions::new();
    journal.append(true);
    let journal = match wanted.journal {
        Some(name) => journal.create_new(true).mode(0o600).open(folder.path().join(name))?,
        None => journal.open("/dev/null")?,
    };
    let (agent_socket, qmp_socket) = (listen(folder, "agent.sock")?, listen(folder, "qmp.sock")?);
    let parked = Parked::make()?;
    let log = spawn::log_file(LOG_BYTES)?;
    let class = wanted.class;
    let plan = LaunchPlan {
        qemu_binary: shared.qemu_binary.clone(),
        accelerator: shared.accelerator,
        id: id.clone(),
        vcpus: class.vcpus,
        memory_mib: class.memory_mib,
        origin: wanted.origin,
        memory: wanted.memory.as_raw_fd(),
        state: wanted.state.map(|state| state.as_raw_fd()),
        drives: wanted.drives.iter().map(|(drive, file)| (drive.clone(), file.as_raw_fd())).collect(),
        journal: journal.as_raw_fd(),
        agent_socket: agent_socket.as_raw_fd(),
        qmp_socket: qmp_socket.as_raw_fd(),
        nics: vec![(PARKED, parked.tap.as_raw_fd())],
    };
    let waiting = confined(shared, &plan, uid, folder, &log, 0)?;
    let process = ProcessId::of(waiting.pid)?;
    shared.cgroups.enter(id, Share::whole(class.vcpus, class.memory_mib << 20), process.pid)?;
    let pidfd = Pidfd::open(&process)?.ok_or_else(|| io::Error::other("it ended before it was started"))?;
    record::write(folder.path(), NOTE, &Note { id: id.clone(), process: process.clone(), uid })?;
    waiting.go()?;
    Ok((process, pidfd, log, parked))
}

/// Which process an unclaimed machine is, by its folder.
pub(crate) fn pid(folder: &MachineFolder) -> io::Result<Option<u32>> {
    Ok(record::read::<Note>(&folder.path().join(NOTE))?.map(|note| note.process.pid))
}

/// Ends what an earlier server left in a folder.
pub(crate) fn clear(shared: &Shared, folder: &MachineFolder) -> io::Result<()> {
    let Some(note) = record::read::<Note>(&folder.path().join(NOTE))? else { return folder.remove() };
    Pidfd::open(&note.process)?.map_or(Ok(()), |pidfd| end(&pidfd))?;
    forget(shared, &note.id, folder, note.uid)
}

/// What one had that has ended.
fn forget(shared: &Shared, id: &ContainerId, folder: &MachineFolder, uid: u32) -> io::Result<()> {
    shared.cgroups.leave(id);
    folder.remove()?;
    shared.uids.give_back(uid);
    Ok(())
}

/// Kills it and waits for its end.
fn end(pidfd: &Pidfd) -> io::Result<()> {
    pidfd.kill()?;
    let mut poll = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
    match nix::poll::poll(&mut poll, END_WAIT_MS)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
