//! How a template is made: a machine boots with no disk and an interface that leads nowhere, its agent waits, and then
//! it is captured.
//!
//! ```text
//!   boot ─▶ agent answers ─▶ QMP: migrate to a file, memory left where it is ─▶ quit ─▶ seal
//! ```

use super::capture::Capture;
use super::key::Class;
use crate::kvm::random;
use crate::memfd;
use crate::plan::Origin;
use crate::qmp::Talk;
use crate::record::MachineFolder;
use crate::shared::Shared;
use crate::unclaimed::{Unclaimed, Wanted};
use crate::watch::{connect, last_words};
use bulkhead_guest_protocol::message::AgentState;
use bulkhead_machine::agent::AgentClient;
use bulkhead_model::ContainerId;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// Under emulation, on a machine that has much else to do.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);
const CAPTURE_DEADLINE: Duration = Duration::from_secs(60);
const LAST_WORDS_WAIT: Duration = Duration::from_millis(500);
const END_DEADLINE: Duration = Duration::from_secs(20);

/// Boots a machine of the class and captures it, in `folder`, which is gone afterwards.
pub(super) async fn build(shared: &Shared, class: Class, key: &str, folder: &Path) -> io::Result<Capture> {
    let id = ContainerId::from_random(random().map_err(io::Error::other)?);
    let memory = memfd::create(c"guest-memory", class.memory_mib << 20)?;
    let state = memfd::create(c"guest-state", 0)?;
    let wanted = Wanted { class, origin: Origin::Boot, memory: &memory, state: None, journal: None };
    let machine = Unclaimed::launch(shared, id, MachineFolder::at(folder.to_path_buf()), &wanted)?;
    let process = machine.watch()?;
    let mut captured = tokio::select! {
        captured = capture(&machine.folder, &state) => captured,
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
    captured?;
    let key = key.to_owned();
    tokio::task::spawn_blocking(move || Capture::seal(key, memory, state)).await.map_err(io::Error::other)?
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
