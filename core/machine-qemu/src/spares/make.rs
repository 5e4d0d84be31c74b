//! How a spare is made: a clone that nobody waits for, which rehearses a start.
//!
//! ```text
//!   clone ─▶ plug in an empty layer and an empty disk ─▶ the agent rehearses ─▶ both are taken away again
//! ```

use super::{JOURNAL, Spare, discard, empty};
use crate::drives::Drive;
use crate::kvm::random;
use crate::memfd;
use crate::plan::Origin;
use crate::qmp::Talk;
use crate::record::MachineFolder;
use crate::shared::Shared;
use crate::templates::{self, Class, Template};
use crate::unclaimed::{Unclaimed, Wanted};
use crate::watch::connect;
use bulkhead_guest_protocol::message::{
    AgentState, Interior, Limits, Process, REHEARSAL, ReplyBody, RequestBody, Start, Stdio,
};
use bulkhead_guest_protocol::network::{Interface, Network};
use bulkhead_machine::agent::AgentClient;
use bulkhead_model::ContainerId;
use bulkhead_model::process::ProcessOptions;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);
/// As large as a container's disk usually is: what is rehearsed is then the same code.
const DISK_BYTES: u64 = 8 << 30;
const SHM_BYTES: u64 = 64 << 20;
/// Of an interface that is plugged into nothing (RFC 5737).
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

pub(super) async fn make(shared: &Arc<Shared>, class: Class, template: &Arc<Template>) -> io::Result<Spare> {
    let (host, of) = (shared.clone(), template.clone());
    let launched = tokio::task::spawn_blocking(move || launch(&host, class, of));
    let (spare, state) = launched.await.map_err(io::Error::other).flatten()?;
    let disk = shared.disks.empty(DISK_BYTES).await.map_err(io::Error::other)?;
    match timeout(DEADLINE, rehearse(&spare, state, &disk)).await.map_err(io::Error::from).flatten() {
        Ok(()) => Ok(spare),
        Err(error) => {
            let host = shared.clone();
            let ended = tokio::task::spawn_blocking(move || discard(&host, spare));
            ended.await.map_err(io::Error::other)?;
            Err(error)
        }
    }
}

/// A clone that has to load its state, and the number of its descriptor with that.
fn launch(shared: &Shared, class: Class, template: Arc<Template>) -> io::Result<(Spare, i32)> {
    let id = ContainerId::from_random(random().map_err(io::Error::other)?);
    let folder = MachineFolder::of(&shared.spares_folder(), &id);
    let (memory, state) = (template.capture.memory()?, template.capture.state()?);
    let (origin, journal) = (Origin::Capture, Some(JOURNAL));
    let wanted = Wanted { class, origin, memory: &memory, state: Some(&state), drives: &[], journal };
    let machine = Unclaimed::launch(shared, id, folder, &wanted)?;
    Ok((Spare { class, template, machine, memory: memory.as_raw_fd() }, state.as_raw_fd()))
}

async fn rehearse(spare: &Spare, state: i32, disk: &File) -> io::Result<()> {
    let mut talk = Talk::begin(&spare.machine.folder).await?;
    templates::load(&mut talk, state).await?;
    let image = empty::erofs();
    let layer = memfd::create(c"rehearsal", u64::try_from(image.len()).unwrap_or_default())?;
    layer.write_all_at(&image, 0)?;
    let drives = Drive::rehearsal();
    for (drive, file) in drives.iter().zip([&memfd::reopen(&layer)?, disk]) {
        plug(&mut talk, drive, file).await?;
    }
    let mut agent = AgentClient::new(Box::new(connect(&spare.machine.folder, "agent.sock").await?));
    let hello = agent.hello(random().map_err(io::Error::other)?, DEADLINE).await.map_err(io::Error::other)?;
    if hello.state != AgentState::Ready || hello.token.is_some() {
        return Err(io::Error::other("its agent is somebody's already"));
    }
    let answer = agent.call(RequestBody::Rehearse(Box::new(start())), DEADLINE).await;
    match answer.map_err(io::Error::other)? {
        ReplyBody::Done => {}
        ReplyBody::Refused { message } => return Err(io::Error::other(message)),
        _ => return Err(io::Error::other("the agent broke the protocol")),
    }
    for drive in &drives {
        talk.call("device_del", json!({ "id": drive.device_id() })).await?;
        let id = Value::from(drive.device_id());
        while talk.event("DEVICE_DELETED").await?.get("device") != Some(&id) {}
        talk.call("blockdev-del", json!({ "node-name": drive.node })).await?;
        talk.call("remove-fd", json!({ "fdset-id": drive.set })).await?;
    }
    Ok(())
}

/// Gives a machine that runs a disk.
pub(crate) async fn plug(talk: &mut Talk, drive: &Drive, file: &File) -> io::Result<()> {
    talk.call_with("add-fd", json!({ "fdset-id": drive.set }), file.as_fd()).await?;
    talk.call("blockdev-add", drive.blockdev_add()).await?;
    talk.call("device_add", drive.device_add()).await?;
    Ok(())
}

/// A container as most are.
fn start() -> Start {
    let usual = ProcessOptions::default();
    Start {
        run: 1,
        token: [0; 32],
        entropy: [0; 32],
        unix_ns: 0,
        hostname: "spare".into(),
        domain_name: String::new(),
        layer_count: 1,
        process: Process {
            args: vec![REHEARSAL.into()],
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            working_dir: "/".into(),
            user: String::new(),
            groups: Vec::new(),
            capabilities: usual.bounding_set(false),
            filtered: usual.is_filtered(false),
            no_new_privileges: false,
            limits: Vec::new(),
            oom_score_adj: 0,
        },
        interior: Interior {
            shm_bytes: SHM_BYTES,
            sysctls: usual.all_sysctls().into_iter().collect(),
            masked_paths: usual.masked(false),
            read_only_paths: usual.unwritable(false),
            limits: Limits::default(),
            ..Interior::default()
        },
        network: Network {
            interfaces: vec![Interface {
                mac: [2, 0, 0, 0, 0, 2],
                address: ADDRESS,
                prefix: 24,
                gateway: Some(GATEWAY),
                six: None,
            }],
            ..Network::default()
        },
        stdio: Stdio::default(),
        journal_offset: 0,
        journal_limit: 0,
    }
}
