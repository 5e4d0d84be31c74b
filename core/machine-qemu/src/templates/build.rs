//! How a template is made. That of a class boots with no disk and an interface that leads nowhere; that of an image is a
//! clone of it, in a copy of its memory, whose agent stacks the image's layers under a new disk. Then it is captured.
//!
//! ```text
//!   boot ─▶ agent answers ────────────────────┐
//!   load ─▶ agent answers ─▶ agent stacks ────┴─▶ QMP: migrate to a file, memory left where it is ─▶ quit ─▶ seal
//! ```

use super::Template;
use super::capture::{Capture, Remains};
use super::key::{Class, Image};
use crate::kvm::random;
use crate::launch;
use crate::memfd;
use crate::plan::Origin;
use crate::qmp::Talk;
use crate::record::MachineFolder;
use crate::shared::Shared;
use crate::unclaimed::{Unclaimed, Wanted};
use crate::watch::{connect, last_words};
use bulkhead_guest_protocol::message::{AgentState, ReplyBody, RequestBody};
use bulkhead_machine::agent::AgentClient;
use bulkhead_model::ContainerId;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Under emulation, on a machine that has much else to do.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);
const STACK_DEADLINE: Duration = Duration::from_secs(60);
const CAPTURE_DEADLINE: Duration = Duration::from_secs(60);
const LAST_WORDS_WAIT: Duration = Duration::from_millis(500);
const END_DEADLINE: Duration = Duration::from_secs(20);

/// Boots a machine of the class and captures it, in `folder`, which is gone afterwards.
pub(super) async fn boot(shared: &Shared, class: Class, key: &str, folder: &Path) -> io::Result<Capture> {
    let memory = memfd::create(c"guest-memory", class.memory_mib << 20)?;
    let state = memfd::create(c"guest-state", 0)?;
    let origin = Origin::Boot;
    let machine = launch(
        shared,
        folder,
        &Wanted { class, origin, memory: &memory, state: None, drives: &[], journal: None },
    )?;
    let at = machine.folder.clone();
    let work = async {
        greet(&at, BOOT_DEADLINE).await?;
        capture(&mut Talk::begin(&at).await?, &state).await
    };
    until_captured(shared, machine, work).await?;
    seal(key, Remains { memory, state, disks: None }).await
}

/// Gives a clone of `base` the disks of an image and captures it, in `folder`, which is gone afterwards.
pub(super) async fn stack(
    shared: &Shared,
    base: Arc<Template>,
    image: &Image,
    key: &str,
    folder: &Path,
) -> io::Result<Capture> {
    let (class, from) = (base.kind.class, base.capture.state()?);
    let copied = tokio::task::spawn_blocking(move || base.capture.memory_copy()).await;
    let memory = copied.map_err(io::Error::other).flatten()?;
    let state = memfd::create(c"guest-state", 0)?;
    let disk = shared.disks.empty(image.disk_bytes).await.map_err(io::Error::other)?;
    let drives = launch::root_drives(shared, image.vch, &image.layers, disk.try_clone()?);
    let (origin, drives) = (Origin::Copy, drives.map_err(io::Error::other)?);
    let wanted =
        Wanted { class, origin, memory: &memory, state: Some(&from), drives: &drives, journal: None };
    let machine = launch(shared, folder, &wanted)?;
    let at = machine.folder.clone();
    let work = async {
        let mut talk = Talk::begin(&at).await?;
        load(&mut talk, from.as_raw_fd()).await?;
        let mut agent = greet(&at, STACK_DEADLINE).await?;
        let layer_count = u32::try_from(image.layers.len()).unwrap_or(u32::MAX);
        let answer = agent.call(RequestBody::Stack { layer_count }, STACK_DEADLINE).await;
        match answer.map_err(io::Error::other)? {
            ReplyBody::Done => {}
            ReplyBody::Refused { message } => return Err(io::Error::other(message)),
            _ => return Err(io::Error::other("the agent broke the protocol")),
        }
        capture(&mut talk, &state).await
    };
    until_captured(shared, machine, work).await?;
    seal(key, Remains { memory, state, disks: Some((image.clone(), disk)) }).await
}

fn launch(shared: &Shared, folder: &Path, wanted: &Wanted<'_>) -> io::Result<Unclaimed> {
    let id = ContainerId::from_random(random().map_err(io::Error::other)?);
    Unclaimed::launch(shared, id, MachineFolder::at(folder.to_path_buf()), wanted)
}

/// Does the work with a machine, and ends it whatever became of that.
async fn until_captured(
    shared: &Shared,
    machine: Unclaimed,
    work: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let process = machine.watch()?;
    let mut captured = tokio::select! {
        captured = work => captured,
        _ = process.readable() => Err(io::ErrorKind::BrokenPipe.into()),
    };
    if captured.is_err() && timeout(LAST_WORDS_WAIT, process.readable()).await.is_ok() {
        // Why it ended explains more than what that broke.
        captured = Err(io::Error::other(last_words(Some(&machine.log))));
    }
    // Whatever became of it, it is over before anybody goes on.
    process.get_ref().kill()?;
    timeout(END_DEADLINE, process.readable()).await??.retain_ready();
    machine.dismiss(shared)?;
    captured
}

async fn seal(key: &str, remains: Remains) -> io::Result<Capture> {
    let key = key.to_owned();
    tokio::task::spawn_blocking(move || Capture::seal(key, remains)).await.map_err(io::Error::other)?
}

/// Speaks to an agent that is nobody's.
async fn greet(folder: &MachineFolder, deadline: Duration) -> io::Result<AgentClient> {
    let mut agent = AgentClient::new(Box::new(connect(folder, "agent.sock").await?));
    let hello = agent.hello(random().map_err(io::Error::other)?, deadline).await.map_err(io::Error::other)?;
    match hello.state == AgentState::Ready && hello.token.is_none() {
        true => Ok(agent),
        false => Err(io::Error::other("its agent is somebody's already")),
    }
}

async fn capture(talk: &mut Talk, state: &File) -> io::Result<()> {
    talk.call("migrate-set-capabilities", capabilities()).await?;
    talk.call("migrate-set-parameters", json!({ "max-bandwidth": 1_u64 << 40 })).await?;
    talk.call_with("getfd", json!({ "fdname": "state" }), state.as_fd()).await?;
    // Not stopped before: what is captured while it runs also runs when it is loaded.
    talk.call("migrate", json!({ "uri": "fd:state" })).await?;
    timeout(CAPTURE_DEADLINE, migrated(talk)).await?
}

/// Has a hypervisor that was launched without one load a state, from the number of a descriptor that it has.
pub(crate) async fn load(talk: &mut Talk, state: RawFd) -> io::Result<()> {
    talk.call("migrate-set-capabilities", capabilities()).await?;
    talk.call("migrate-incoming", json!({ "uri": format!("fd:{state}") })).await?;
    talk.event("RESUME").await?;
    // It says so before it is done.
    migrated(talk).await
}

async fn migrated(talk: &mut Talk) -> io::Result<()> {
    loop {
        let data = talk.event("MIGRATION").await?;
        match data.get("status").and_then(Value::as_str).unwrap_or_default() {
            "completed" => return Ok(()),
            status @ ("failed" | "cancelled") => {
                return Err(io::Error::other(format!("the hypervisor's migration {status}")));
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
