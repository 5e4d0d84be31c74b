//! The simulated agent: the real protocol, and processes that are scripts.

use super::process::{Process, Streams};
use super::{Shared, Sim};
use super::{facts, script};
use crate::MachineSpec;
use bulkhead_guest_protocol::frame::{self, Decoder};
use bulkhead_guest_protocol::journal::{StartFailed, Started, Writer};
use bulkhead_guest_protocol::message::{
    AgentState, Exec, Hello, Limits, MAIN_STREAM, NO_REPLY, Reply, ReplyBody, Request, RequestBody, Start,
    Took,
};
use bulkhead_guest_protocol::network::Network;
use bulkhead_guest_protocol::{PROTOCOL_MAX, PROTOCOL_MIN};
use bulkhead_model::ContainerId;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// What is inside a machine, over all its channels.
pub(super) struct Guest {
    id: ContainerId,
    inside: Mutex<Inside>,
    pub(super) signals: Notify,
    pub(super) limit: watch::Sender<u64>,
    pub(super) streams: Streams,
    /// Its vCPUs stand still.
    pub(super) frozen: watch::Sender<bool>,
    /// Its agent holds the processes.
    pub(super) still: watch::Sender<bool>,
    /// As it was last told.
    pub(super) limits: Mutex<Limits>,
    /// What its processes hold.
    pub(super) memory_bytes: AtomicU64,
    /// What a step `probe` ends with.
    pub(super) probe_code: std::sync::atomic::AtomicI32,
    /// How often its clock was set.
    pub(super) clock_sets: AtomicU32,
    /// As it was last told.
    pub(super) network: Mutex<Network>,
}

pub(super) struct Inside {
    token: Option<[u8; 32]>,
    pub(super) state: AgentState,
    answer: Option<ReplyBody>,
    /// Of the container's own process.
    pub(super) args: Vec<String>,
    pub(super) pending: Vec<u8>,
}

impl Guest {
    pub(super) fn new(spec: &MachineSpec) -> Self {
        Self {
            id: spec.id.clone(),
            inside: Mutex::new(Inside {
                token: None,
                state: AgentState::Ready,
                answer: None,
                args: Vec::new(),
                pending: Vec::new(),
            }),
            signals: Notify::new(),
            limit: watch::Sender::new(0),
            streams: Streams::default(),
            frozen: watch::Sender::new(false),
            still: watch::Sender::new(false),
            limits: Mutex::default(),
            memory_bytes: AtomicU64::new(facts::MEMORY_BYTES),
            clock_sets: AtomicU32::new(0),
            probe_code: std::sync::atomic::AtomicI32::new(0),
            network: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Returns when its vCPUs go on.
    async fn resumed(&self) {
        // The sender is here: it cannot be gone.
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }

    /// Returns when its processes go on.
    pub(super) async fn thawed(&self) {
        self.resumed().await;
        let _ = self.still.subscribe().wait_for(|still| !still).await;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn now_ns() -> u64 {
    chrono::Utc::now().timestamp_nanos_opt().and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0)
}

/// Answers one channel until it closes.
pub(super) async fn serve(
    sim: Weak<Shared>,
    guest: Arc<Guest>,
    power: CancellationToken,
    mut channel: DuplexStream,
) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 16 << 10];
    let mut events = guest.streams.connect();
    loop {
        let read = tokio::select! {
            read = channel.read(&mut buffer) => read,
            Some(event) = events.recv() => {
                let body = ReplyBody::Event(event);
                let Ok(bytes) = frame::encode(&Reply { id: NO_REPLY, body }) else { continue };
                if channel.write_all(&bytes).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let count = match read {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        // A guest that is booting, or was silenced, leaves what it is told where it is.
        loop {
            let Some(shared) = sim.upgrade() else { return };
            let (booting, silent) = {
                let this = Sim(shared);
                let world = this.lock();
                (world.hold_boot, world.silent.contains(&guest.id))
            };
            if !booting && !silent {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        guest.resumed().await;
        decoder.push(buffer.get(..count).unwrap_or_default());
        while let Some(payload) = decoder.next_frame() {
            let Ok(request) = frame::decode::<Request>(&payload) else { continue };
            if matches!(request.body, RequestBody::Start(_) | RequestBody::Assemble(_)) {
                loop {
                    let Some(shared) = sim.upgrade() else { return };
                    {
                        let this = Sim(shared);
                        let mut world = this.lock();
                        if power.is_cancelled() || !world.hold_start {
                            break;
                        }
                        world.held.insert(guest.id.clone());
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            let body = answer(&sim, &guest, &power, request.body);
            if request.id == NO_REPLY {
                continue;
            }
            let Ok(bytes) = frame::encode(&Reply { id: request.id, body }) else { continue };
            if channel.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }
}

fn answer(sim: &Weak<Shared>, guest: &Arc<Guest>, power: &CancellationToken, body: RequestBody) -> ReplyBody {
    match body {
        RequestBody::Rehearse(_) | RequestBody::Stack { .. } => ReplyBody::Done,
        RequestBody::Hello { protocol_min, protocol_max, nonce } => {
            let protocol = protocol_max.min(PROTOCOL_MAX);
            let estranged =
                sim.upgrade().is_some_and(|shared| Sim(shared).lock().estranged.contains(&guest.id));
            if estranged || protocol < protocol_min.max(PROTOCOL_MIN) {
                let message = format!("this agent speaks protocol 0, not {protocol_min} to {protocol_max}");
                return ReplyBody::Refused { message };
            }
            let inside = guest.lock();
            ReplyBody::Hello(Hello {
                protocol,
                nonce,
                agent: env!("CARGO_PKG_VERSION").into(),
                kernel: "0.0.0-simulated".into(),
                token: inside.token,
                state: inside.state.clone(),
            })
        }
        RequestBody::Start(start) => start_process(sim, guest, power, *start),
        RequestBody::Signal { number } => {
            let mut inside = guest.lock();
            match inside.state {
                AgentState::Running { .. } => {
                    inside.pending.push(number);
                    guest.signals.notify_one();
                    ReplyBody::Done
                }
                AgentState::Ready | AgentState::Over { .. } => {
                    ReplyBody::Refused { message: "no process".into() }
                }
            }
        }
        // As the real agent: before there is a process, its limit comes with the start.
        RequestBody::JournalLimit { offset } => match guest.lock().state {
            AgentState::Running { .. } => {
                guest.limit.send_replace(offset);
                ReplyBody::Done
            }
            AgentState::Ready | AgentState::Over { .. } => {
                ReplyBody::Refused { message: "no process runs".into() }
            }
        },
        RequestBody::SetClock { .. } => {
            guest.clock_sets.fetch_add(1, Ordering::Relaxed);
            ReplyBody::Done
        }
        RequestBody::Network(network) => {
            *guest.network.lock().unwrap_or_else(PoisonError::into_inner) = *network;
            ReplyBody::Done
        }
        RequestBody::Limits(limits) => {
            let held = guest.memory_bytes.load(Ordering::Relaxed);
            if limits.memory_bytes > 0 && limits.memory_bytes < held {
                let limit = limits.memory_bytes;
                let message = format!("unable to set memory limit to {limit} (current usage: {held})");
                return ReplyBody::Refused { message };
            }
            *guest.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
            ReplyBody::Done
        }
        RequestBody::Freeze { still } => {
            guest.still.send_replace(still);
            guest.signals.notify_one();
            ReplyBody::Done
        }
        RequestBody::Exec(exec) => exec_process(sim, guest, power, *exec),
        RequestBody::Resize { stream, size } => match guest.streams.resize(stream, size) {
            true => ReplyBody::Done,
            false => ReplyBody::Refused { message: "resize: inappropriate ioctl for device".into() },
        },
        RequestBody::Input { stream, data } => {
            guest.streams.input(stream, data);
            ReplyBody::Done
        }
        RequestBody::InputEnd { stream } => {
            guest.streams.end_input(stream);
            ReplyBody::Done
        }
        RequestBody::Credit { stream, bytes } => {
            guest.streams.credit(stream, bytes);
            ReplyBody::Done
        }
        RequestBody::Kill { stream } => {
            guest.streams.kill(stream);
            ReplyBody::Done
        }
        RequestBody::Leave { stream } => {
            guest.streams.leave(stream);
            ReplyBody::Done
        }
        RequestBody::Processes => facts::processes(guest),
        RequestBody::Usage => facts::usage(guest),
        RequestBody::Assemble(assemble) => {
            guest.lock().token = Some(assemble.token);
            ReplyBody::Done
        }
        RequestBody::ReleaseVolumes => ReplyBody::Done,
        RequestBody::GrowVolume { .. } => ReplyBody::Done,
        RequestBody::Files(_) => ReplyBody::Refused { message: "a simulated guest has no files".into() },
        RequestBody::PowerOff => {
            if let Some(shared) = sim.upgrade() {
                Sim(shared).end(&guest.id, "guest powered off");
            }
            ReplyBody::Done
        }
    }
}

fn start_process(
    sim: &Weak<Shared>,
    guest: &Arc<Guest>,
    power: &CancellationToken,
    start: Start,
) -> ReplyBody {
    let mut inside = guest.lock();
    if let Some(answer) = &inside.answer {
        return answer.clone();
    }
    inside.token = Some(start.token);
    *guest.limits.lock().unwrap_or_else(PoisonError::into_inner) = start.interior.limits;
    guest.limit.send_replace(start.journal_limit);
    *guest.network.lock().unwrap_or_else(PoisonError::into_inner) = start.network;
    let at = now_ns();
    let mut writer = Writer::new(start.run);
    let mut bytes = Vec::new();
    let Some(shared) = sim.upgrade() else { return ReplyBody::Refused { message: "gone".into() } };
    let this = Sim(shared);
    let answer = match script::parse(&start.process.args) {
        Err(message) => {
            writer.start_failed(at, StartFailed { code: 127, message: message.clone() }, &mut bytes);
            inside.state = AgentState::Over { run: start.run };
            this.append(&guest.id, &bytes);
            power_off_soon(sim, guest, power);
            ReplyBody::StartFailed { code: 127, message }
        }
        Ok(steps) => {
            writer.started(at, &Started { pid: 1 }, &mut bytes);
            inside.state = AgentState::Running { run: start.run, pid: 1, started_unix_ns: at };
            inside.args = start.process.args;
            let end = this.append(&guest.id, &bytes);
            guest.streams.open(MAIN_STREAM, start.stdio, 0);
            let process = Process::first(sim.clone(), guest.clone(), writer, end);
            let (power, sim, guest) = (power.clone(), sim.clone(), guest.clone());
            // Owned by the machine's power token.
            tokio::spawn(async move {
                let ended = tokio::select! {
                    () = power.cancelled() => return,
                    ended = process.run_first(start.run, steps) => ended,
                };
                if ended {
                    power_off_soon(&sim, &guest, &power);
                }
            });
            ReplyBody::Started { pid: 1, unix_ns: at, took: Took::default() }
        }
    };
    inside.answer = Some(answer.clone());
    answer
}

fn exec_process(sim: &Weak<Shared>, guest: &Arc<Guest>, power: &CancellationToken, exec: Exec) -> ReplyBody {
    let running = matches!(guest.lock().state, AgentState::Running { .. });
    if !running {
        return ReplyBody::Refused { message: "no process runs".into() };
    }
    match script::parse(&exec.process.args) {
        Err(message) => ReplyBody::StartFailed { code: 127, message },
        Ok(steps) => {
            guest.streams.open(exec.stream, exec.stdio, exec.window);
            let process = Process::beside(sim.clone(), guest.clone(), exec.stream);
            let power = power.clone();
            // Owned by the machine's power token.
            tokio::spawn(async move {
                tokio::select! {
                    () = power.cancelled() => {}
                    () = process.run_beside(steps) => {}
                }
            });
            ReplyBody::Started { pid: 100 + exec.stream, unix_ns: now_ns(), took: Took::default() }
        }
    }
}

fn power_off_soon(sim: &Weak<Shared>, guest: &Arc<Guest>, power: &CancellationToken) {
    let (sim, id, power) = (sim.clone(), guest.id.clone(), power.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = power.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(2)) => {
                if let Some(shared) = sim.upgrade() {
                    Sim(shared).end(&id, "guest powered off");
                }
            }
        }
    });
}
