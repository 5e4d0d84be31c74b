//! How a template is made: a machine boots with no disk and an interface that leads nowhere, its agent waits, and then
//! it is captured.
//!
//! ```text
//!   boot ─▶ agent answers ─▶ QMP: migrate to a file, memory left where it is ─▶ quit ─▶ seal
//! ```

use super::capture::Capture;
use super::key::Class;
use crate::cgroups::Share;
use crate::kvm::random;
use crate::launch::{LOG_BYTES, PARKED, confined, listen};
use crate::memfd;
use crate::networks::tap::Parked;
use crate::plan::{LaunchPlan, Origin};
use crate::process::{Pidfd, ProcessId};
use crate::qmp::Talk;
use crate::record::{self, MachineFolder};
use crate::shared::Shared;
use crate::spawn;
use crate::watch::{connect, last_words};
use bulkhead_guest_protocol::message::AgentState;
use bulkhead_machine::agent::AgentClient;
use bulkhead_model::ContainerId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// Under emulation, on a machine that has much else to do.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);
const CAPTURE_DEADLINE: Duration = Duration::from_secs(60);
const LAST_WORDS_WAIT: Duration = Duration::from_millis(500);
const END_DEADLINE: Duration = Duration::from_secs(20);

/// The process that is being made a template of, for a server that comes after a crash.
#[derive(Debug, Serialize, Deserialize)]
struct Maker {
    id: ContainerId,
    process: ProcessId,
    uid: u32,
}

/// It ends with its owner, whatever happens.
struct Making(AsyncFd<Pidfd>);

impl Drop for Making {
    fn drop(&mut self) {
        if let Err(error) = self.0.get_ref().kill() {
            tracing::error!(%error, "a machine that was to be a template could not be ended");
        }
    }
}

/// Boots a machine of the class and captures it, in `folder`, which is gone afterwards.
pub(super) async fn build(shared: &Shared, class: Class, key: &str, folder: &Path) -> io::Result<Capture> {
    let folder = MachineFolder::at(folder.to_path_buf());
    let uid = shared.uids.take().map_err(io::Error::other)?;
    let id = ContainerId::from_random(random().map_err(io::Error::other)?);
    let built = build_as(shared, class, key, &folder, &id, uid).await;
    shared.cgroups.leave(&id);
    shared.uids.give_back(uid);
    folder.remove()?;
    built
}

async fn build_as(
    shared: &Shared,
    class: Class,
    key: &str,
    folder: &MachineFolder,
    id: &ContainerId,
    uid: u32,
) -> io::Result<Capture> {
    folder.create()?;
    let memory = memfd::create(c"guest-memory", class.memory_mib << 20)?;
    let state = memfd::create(c"guest-state", 0)?;
    let log = spawn::log_file(LOG_BYTES)?;
    let process = start(shared, class, folder, id, uid, &memory, &log)?;
    let mut captured = tokio::select! {
        captured = capture(folder, &state) => captured,
        _ = process.0.readable() => Err(io::ErrorKind::BrokenPipe.into()),
    };
    if captured.is_err() && timeout(LAST_WORDS_WAIT, process.0.readable()).await.is_ok() {
        // Why it ended explains more than what that broke.
        captured = Err(io::Error::other(last_words(Some(&log))));
    }
    // Whatever became of it, it is over before anybody goes on.
    process.0.get_ref().kill()?;
    timeout(END_DEADLINE, process.0.readable()).await??.retain_ready();
    captured?;
    let key = key.to_owned();
    tokio::task::spawn_blocking(move || Capture::seal(key, memory, state)).await.map_err(io::Error::other)?
}

fn start(
    shared: &Shared,
    class: Class,
    folder: &MachineFolder,
    id: &ContainerId,
    uid: u32,
    memory: &File,
    log: &File,
) -> io::Result<Making> {
    // What it would write belongs to nobody.
    let journal = OpenOptions::new().append(true).open("/dev/null")?;
    let (agent_socket, qmp_socket) = (listen(folder, "agent.sock")?, listen(folder, "qmp.sock")?);
    let tap = Parked::make()?.tap;
    let plan = LaunchPlan {
        qemu_binary: shared.qemu_binary.clone(),
        accelerator: shared.accelerator,
        id: id.clone(),
        vcpus: class.vcpus,
        memory_mib: class.memory_mib,
        origin: Origin::Boot,
        memory: memory.as_raw_fd(),
        state: None,
        drives: Vec::new(),
        journal: journal.as_raw_fd(),
        agent_socket: agent_socket.as_raw_fd(),
        qmp_socket: qmp_socket.as_raw_fd(),
        nics: vec![(PARKED, tap.as_raw_fd())],
    };
    let waiting = confined(shared, &plan, uid, folder, log, 0)?;
    let process = ProcessId::of(waiting.pid)?;
    let share = Share::whole(class.vcpus, class.memory_mib << 20);
    shared.cgroups.enter(id, share, process.pid)?;
    let pidfd = Pidfd::open(&process)?.ok_or_else(|| io::Error::other("it ended before it was started"))?;
    record::write(folder.path(), "maker.json", &Maker { id: id.clone(), process, uid })?;
    waiting.go()?;
    // SAFETY: it owns its descriptor, which stays open and the same as long as it lives.
    Ok(Making(unsafe { AsyncFd::register(pidfd) }?))
}

async fn capture(folder: &MachineFolder, state: &File) -> io::Result<()> {
    let stream = connect(folder, "agent.sock").await?;
    let hello =
        AgentClient::new(Box::new(stream)).hello(random().map_err(io::Error::other)?, BOOT_DEADLINE).await;
    let hello = hello.map_err(io::Error::other)?;
    if hello.state != AgentState::Ready || hello.token.is_some() {
        return Err(io::Error::other("its agent is somebody's already"));
    }
    timeout(CAPTURE_DEADLINE, migrate(folder, state)).await?
}

async fn migrate(folder: &MachineFolder, state: &File) -> io::Result<()> {
    let mut talk = Talk::begin(folder).await?;
    talk.call("migrate-set-capabilities", capabilities()).await?;
    talk.call("migrate-set-parameters", json!({ "max-bandwidth": 1_u64 << 40 })).await?;
    talk.call_with("getfd", json!({ "fdname": "state" }), state.as_fd()).await?;
    // Not stopped before: what is captured while it runs also runs when it is loaded.
    talk.call("migrate", json!({ "uri": "fd:state" })).await?;
    loop {
        let data = talk.event("MIGRATION").await?;
        match data.get("status").and_then(Value::as_str).unwrap_or_default() {
            "completed" => return Ok(()),
            status @ ("failed" | "cancelled") => {
                return Err(io::Error::other(format!("the capture {status}")));
            }
            _ => {}
        }
    }
}

/// Memory is a file that both sides have, so it is not part of the state; and what happens is told.
pub(crate) fn capabilities() -> Value {
    let on = |name: &str| json!({ "capability": name, "state": true });
    json!({ "capabilities": [on("x-ignore-shared"), on("events")] })
}

/// Ends what an earlier server was making.
pub(super) fn clear(shared: &Shared, folder: &Path) -> io::Result<()> {
    if let Some(maker) = record::read::<Maker>(&folder.join("maker.json"))? {
        if let Some(pidfd) = Pidfd::open(&maker.process)? {
            pidfd.kill()?;
        }
        shared.cgroups.leave(&maker.id);
    }
    MachineFolder::at(folder.to_path_buf()).remove()
}
