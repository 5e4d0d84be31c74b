//! A simulated process: the container's own, which writes into the journal, or one beside it, which writes to a stream.

use super::agent::{Guest, now_ns};
use super::script::Step;
use super::{Shared, Sim};
use bulkhead_guest_protocol::journal::{Exited, Stream, Writer};
use bulkhead_guest_protocol::message::{AgentState, DATA_BYTES_MAX, Event, Stdio, TerminalSize, output_cost};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{Notify, mpsc};

const SIGKILL: u8 = 9;
const SIGTERM: u8 = 15;
/// How much of a flood is one piece.
const PIECE_BYTES: usize = 4 << 10;
const EVENTS_WAITING: usize = 64;

/// The streams of all processes in a machine.
#[derive(Default)]
pub(super) struct Streams {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
    events: Option<mpsc::Sender<Event>>,
    streams: HashMap<u32, Piped>,
}

/// Of one process.
#[derive(Default)]
struct Piped {
    input: VecDeque<u8>,
    input_ended: bool,
    terminal: Option<TerminalSize>,
    credit: u32,
    left: bool,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, stream: u32, body: impl FnOnce(&mut Piped) -> T) -> Option<T> {
        let done = self.lock().streams.get_mut(&stream).map(body);
        self.changed.notify_waiters();
        done
    }

    /// A new channel: whoever was there before has left all streams.
    pub(super) fn connect(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
        let mut table = self.lock();
        table.events = Some(sender);
        for (stream, piped) in &mut table.streams {
            if *stream != bulkhead_guest_protocol::message::MAIN_STREAM {
                (piped.left, piped.input_ended) = (true, true);
            }
        }
        drop(table);
        self.changed.notify_waiters();
        receiver
    }

    pub(super) fn open(&self, stream: u32, stdio: Stdio, credit: u32) {
        let piped = Piped { input_ended: !stdio.stdin, terminal: stdio.terminal, credit, ..Piped::default() };
        self.lock().streams.insert(stream, piped);
    }

    pub(super) fn input(&self, stream: u32, data: Vec<u8>) {
        self.with(stream, |piped| piped.input.extend(data));
    }

    pub(super) fn end_input(&self, stream: u32) {
        self.with(stream, |piped| piped.input_ended |= piped.terminal.is_none());
    }

    pub(super) fn credit(&self, stream: u32, bytes: u32) {
        self.with(stream, |piped| piped.credit = piped.credit.saturating_add(bytes));
    }

    pub(super) fn leave(&self, stream: u32) {
        self.with(stream, |piped| (piped.left, piped.input_ended) = (true, true));
    }

    /// Its process is over for whoever listens.
    pub(super) fn kill(&self, stream: u32) {
        let mut table = self.lock();
        if table.streams.remove(&stream).is_some()
            && let Some(events) = &table.events
        {
            let exited = Exited { code: 137, signal: Some(SIGKILL), ..Exited::default() };
            // Nobody there: nobody to tell.
            let _ = events.try_send(Event::Ended { stream, exited });
        }
        drop(table);
        self.changed.notify_waiters();
    }

    pub(super) fn resize(&self, stream: u32, size: TerminalSize) -> bool {
        self.with(stream, |piped| piped.terminal.as_mut().map(|terminal| *terminal = size))
            .flatten()
            .is_some()
    }

    async fn tell(&self, event: Event) {
        let events = self.lock().events.clone();
        if let Some(events) = events {
            // Nobody there: nobody to tell.
            let _ = events.send(event).await;
        }
    }

    /// Some input; `None` at its end.
    async fn take_input(&self, stream: u32) -> Option<Vec<u8>> {
        loop {
            let changed = self.changed.notified();
            let (data, ended) = self.with_quiet(stream, |piped| {
                let some = piped.input.len().min(DATA_BYTES_MAX);
                (piped.input.drain(..some).collect::<Vec<u8>>(), piped.input_ended)
            })?;
            if !data.is_empty() {
                let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
                self.tell(Event::InputTaken { stream, bytes }).await;
                return Some(data);
            }
            if ended {
                return None;
            }
            changed.await;
        }
    }

    fn with_quiet<T>(&self, stream: u32, body: impl FnOnce(&mut Piped) -> T) -> Option<T> {
        self.lock().streams.get_mut(&stream).map(body)
    }

    /// Waits for credit.
    async fn output(&self, stream: u32, of: Stream, data: &[u8]) {
        for piece in data.chunks(DATA_BYTES_MAX) {
            loop {
                let changed = self.changed.notified();
                let cost = output_cost(piece.len());
                let paid = self.with_quiet(stream, |piped| {
                    if piped.left {
                        return Some(false);
                    }
                    piped.credit = piped.credit.checked_sub(cost)?;
                    Some(true)
                });
                match paid.flatten() {
                    Some(true) => {
                        self.tell(Event::Output { stream, of, data: piece.to_vec() }).await;
                        break;
                    }
                    Some(false) => break,
                    None => changed.await,
                }
            }
        }
    }
}

/// Where a process's output goes.
enum Sink {
    Journal { writer: Writer, end: u64 },
    Stream(u32),
}

pub(super) struct Process {
    sim: Weak<Shared>,
    guest: Arc<Guest>,
    sink: Sink,
    ignores_term: bool,
}

impl Process {
    pub(super) fn first(sim: Weak<Shared>, guest: Arc<Guest>, writer: Writer, end: u64) -> Self {
        Self { sim, guest, sink: Sink::Journal { writer, end }, ignores_term: false }
    }

    pub(super) fn beside(sim: Weak<Shared>, guest: Arc<Guest>, stream: u32) -> Self {
        Self { sim, guest, sink: Sink::Stream(stream), ignores_term: false }
    }

    /// Whether its end was written.
    pub(super) async fn run_first(mut self, run: u32, steps: Vec<Step>) -> bool {
        let exited = self.run(steps).await;
        let mut bytes = Vec::new();
        if let Sink::Journal { writer, .. } = &mut self.sink {
            writer.exited(now_ns(), exited, &mut bytes);
        }
        let Some(shared) = self.sim.upgrade() else { return false };
        Sim(shared).append(self.guest.id(), &bytes);
        self.guest.lock().state = AgentState::Over { run };
        true
    }

    pub(super) async fn run_beside(mut self, steps: Vec<Step>) {
        let exited = self.run(steps).await;
        let stream = self.stream();
        self.guest.streams.tell(Event::Ended { stream, exited }).await;
        self.guest.streams.lock().streams.remove(&stream);
    }

    fn stream(&self) -> u32 {
        match self.sink {
            Sink::Journal { .. } => bulkhead_guest_protocol::message::MAIN_STREAM,
            Sink::Stream(stream) => stream,
        }
    }

    async fn run(&mut self, steps: Vec<Step>) -> Exited {
        for step in steps {
            self.guest.thawed().await;
            if let Some(ended) = self.step(step).await {
                return ended;
            }
        }
        Exited::default()
    }

    /// How the process ended, if this step ended it.
    async fn step(&mut self, step: Step) -> Option<Exited> {
        match step {
            Step::Print(text) => self.write(Stream::Stdout, format!("{text}\n").as_bytes()).await,
            Step::PrintError(text) => self.write(Stream::Stderr, format!("{text}\n").as_bytes()).await,
            Step::Count(lines) => {
                for line in 1..=lines {
                    let text = format!("line {line}\n");
                    if let Some(ended) = self.write(Stream::Stdout, text.as_bytes()).await {
                        return Some(ended);
                    }
                }
                None
            }
            Step::Flood(bytes) => self.flood(bytes).await,
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
            Step::Cat => self.cat().await,
            Step::Size => {
                let size = self.guest.streams.with_quiet(self.stream(), |piped| piped.terminal).flatten();
                let text = match size {
                    Some(size) => format!("{} {}\n", size.rows, size.columns),
                    None => "not a terminal\n".to_owned(),
                };
                self.write(Stream::Stdout, text.as_bytes()).await
            }
            Step::Probe => {
                let code = self.guest.probe_code.load(std::sync::atomic::Ordering::Relaxed);
                self.write(Stream::Stdout, format!("probe says {code}\n").as_bytes()).await;
                Some(Exited { code, ..Exited::default() })
            }
            Step::Exit(code) => Some(Exited { code, ..Exited::default() }),
        }
    }

    async fn flood(&mut self, bytes: u64) -> Option<Exited> {
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

    async fn cat(&mut self) -> Option<Exited> {
        let (guest, stream) = (self.guest.clone(), self.stream());
        loop {
            if let Some(ended) = self.signal() {
                return Some(ended);
            }
            let data = tokio::select! {
                data = guest.streams.take_input(stream) => data?,
                () = guest.signals.notified(), if matches!(self.sink, Sink::Journal { .. }) => continue,
            };
            if let Some(ended) = self.write(Stream::Stdout, &data).await {
                return Some(ended);
            }
        }
    }

    /// Writes output; waits while it may not, but hears signals meanwhile.
    async fn write(&mut self, stream: Stream, data: &[u8]) -> Option<Exited> {
        self.guest.thawed().await;
        let mut bytes = Vec::new();
        let end = match &mut self.sink {
            Sink::Stream(number) => {
                let number = *number;
                self.guest.streams.output(number, stream, data).await;
                return None;
            }
            Sink::Journal { writer, end } => {
                writer.output(stream, now_ns(), data, &mut bytes);
                *end + u64::try_from(bytes.len()).unwrap_or(0)
            }
        };
        let mut limit = self.guest.limit.subscribe();
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
        let written = Sim(shared).append(self.guest.id(), &bytes);
        if let Sink::Journal { end, .. } = &mut self.sink {
            *end = written;
        }
        tokio::task::yield_now().await;
        None
    }

    /// Signals are for the container's own process. One that stands still takes none but SIGKILL.
    fn signal(&self) -> Option<Exited> {
        if !matches!(self.sink, Sink::Journal { .. }) {
            return None;
        }
        let mut inside = self.guest.lock();
        if *self.guest.still.borrow() && !inside.pending.contains(&SIGKILL) {
            return None;
        }
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
