//! The simulated agent: the real protocol, and a process that is a script.

use super::script::{self, Step};
use super::{Shared, Sim};
use crate::MachineSpec;
use bulkhead_guest_protocol::frame::{self, Decoder};
use bulkhead_guest_protocol::journal::{Exited, StartFailed, Started, Stream, Writer};
use bulkhead_guest_protocol::message::{AgentState, Hello, Reply, ReplyBody, Request, RequestBody, Start};
use bulkhead_guest_protocol::{PROTOCOL_MAX, PROTOCOL_MIN};
use bulkhead_model::ContainerId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

const SIGKILL: u8 = 9;
const SIGTERM: u8 = 15;
/// How much of a flood is one piece.
const PIECE_BYTES: usize = 4 << 10;

/// What is inside a machine, over all its channels.
pub(super) struct Guest {
    id: ContainerId,
    token: [u8; 32],
    inside: Mutex<Inside>,
    signals: Notify,
    limit: watch::Sender<u64>,
}

struct Inside {
    state: AgentState,
    answer: Option<ReplyBody>,
    pending: Vec<u8>,
}

impl Guest {
    pub(super) fn new(spec: &MachineSpec) -> Self {
        Self {
            id: spec.id.clone(),
            token: spec.token,
            inside: Mutex::new(Inside { state: AgentState::Ready, answer: None, pending: Vec::new() }),
            signals: Notify::new(),
            limit: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ns() -> u64 {
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
    loop {
        let count = match channel.read(&mut buffer).await {
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
        decoder.push(buffer.get(..count).unwrap_or_default());
        while let Some(payload) = decoder.next_frame() {
            let Ok(request) = frame::decode::<Request>(&payload) else { continue };
            let body = answer(&sim, &guest, &power, request.body);
            let Ok(bytes) = frame::encode(&Reply { id: request.id, body }) else { continue };
            if channel.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }
}

fn answer(sim: &Weak<Shared>, guest: &Arc<Guest>, power: &CancellationToken, body: RequestBody) -> ReplyBody {
    match body {
        RequestBody::Hello { protocol_min, protocol_max, nonce } => {
            let protocol = protocol_max.min(PROTOCOL_MAX);
            if protocol < protocol_min.max(PROTOCOL_MIN) {
                return ReplyBody::Refused { message: "no protocol in common".into() };
            }
            ReplyBody::Hello(Hello {
                protocol,
                nonce,
                agent: env!("CARGO_PKG_VERSION").into(),
                kernel: "0.0.0-simulated".into(),
                token: guest.token,
                state: guest.lock().state.clone(),
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
        RequestBody::SetClock { .. } => ReplyBody::Done,
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
    guest.limit.send_replace(start.journal_limit);
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
            let end = this.append(&guest.id, &bytes);
            let process = Process {
                sim: sim.clone(),
                guest: guest.clone(),
                power: power.clone(),
                writer,
                end,
                ignores_term: false,
            };
            let power = power.clone();
            // Owned by the machine's power token.
            tokio::spawn(async move {
                tokio::select! {
                    () = power.cancelled() => {}
                    () = process.run(start.run, steps) => {}
                }
            });
            ReplyBody::Started { pid: 1, unix_ns: at }
        }
    };
    inside.answer = Some(answer.clone());
    answer
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

struct Process {
    sim: Weak<Shared>,
    guest: Arc<Guest>,
    power: CancellationToken,
    writer: Writer,
    end: u64,
    ignores_term: bool,
}

impl Process {
    async fn run(mut self, run: u32, steps: Vec<Step>) {
        let mut exited = Exited::default();
        for step in steps {
            if let Some(ended) = self.step(step).await {
                exited = ended;
                break;
            }
        }
        let mut bytes = Vec::new();
        self.writer.exited(now_ns(), exited, &mut bytes);
        let Some(shared) = self.sim.upgrade() else { return };
        Sim(shared).append(&self.guest.id, &bytes);
        self.guest.lock().state = AgentState::Over { run };
        power_off_soon(&self.sim, &self.guest, &self.power);
    }

    /// How the process ended, if this step ended it.
    async fn step(&mut self, step: Step) -> Option<Exited> {
        match step {
            Step::Print(text) => self.write(Stream::Stdout, format!("{text}\n").as_bytes()).await,
            Step::PrintError(text) => self.write(Stream::Stderr, format!("{text}\n").as_bytes()).await,
            Step::Count(lines) => {
                for line in 1..=lines {
                    if let Some(ended) = self.write(Stream::Stdout, format!("line {line}\n").as_bytes()).await
                    {
                        return Some(ended);
                    }
                }
                None
            }
            Step::Flood(bytes) => {
                let mut piece: Vec<u8> = [vec![b'x'; 99], vec![b'\n']].concat().repeat(PIECE_BYTES / 100 + 1);
                let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
                while left > 0 {
                    piece.truncate(left.max(1));
                    if let Some(ended) = self.write(Stream::Stdout, &piece).await {
                        return Some(ended);
                    }
                    left -= piece.len();
                }
                None
            }
            Step::Sleep => loop {
                if let Some(ended) = self.signal() {
                    return Some(ended);
                }
                self.guest.signals.notified().await;
            },
            Step::IgnoreTerm => {
                self.ignores_term = true;
                None
            }
            Step::OutOfMemory => {
                let error = "the kernel killed it for want of memory".to_owned();
                Some(Exited { code: 137, signal: Some(SIGKILL), oom_killed: true, error })
            }
            Step::Exit(code) => Some(Exited { code, ..Exited::default() }),
        }
    }

    /// Writes output; waits while the journal may not grow, but hears signals meanwhile.
    async fn write(&mut self, stream: Stream, data: &[u8]) -> Option<Exited> {
        let mut bytes = Vec::new();
        self.writer.output(stream, now_ns(), data, &mut bytes);
        let mut limit = self.guest.limit.subscribe();
        let end = self.end + u64::try_from(bytes.len()).unwrap_or(0);
        loop {
            if let Some(ended) = self.signal() {
                return Some(ended);
            }
            if *limit.borrow_and_update() >= end {
                break;
            }
            tokio::select! {
                changed = limit.changed() => if changed.is_err() { return Some(Exited::default()) },
                () = self.guest.signals.notified() => {}
            }
        }
        let shared = self.sim.upgrade()?;
        self.end = Sim(shared).append(&self.guest.id, &bytes);
        tokio::task::yield_now().await;
        None
    }

    fn signal(&mut self) -> Option<Exited> {
        let mut inside = self.guest.lock();
        while let Some(number) = inside.pending.pop() {
            if number == SIGTERM && self.ignores_term {
                continue;
            }
            let code = 128 + i32::from(number);
            return Some(Exited { code, signal: Some(number), ..Exited::default() });
        }
        None
    }
}
