//! Input and output of one process in a guest, at the pace of whoever uses them.

use super::{Agent, GuestError};
use bulkhead_guest_protocol::files::{FileTask, Files};
use bulkhead_guest_protocol::journal::{Exited, Stream};
use bulkhead_guest_protocol::message::{
    DATA_BYTES_MAX, Event, Exec, INPUT_WINDOW, MAIN_STREAM, Process, ReplyBody, RequestBody, Stdio,
    TerminalSize, output_cost,
};
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Output that may be on its way.
pub(super) const OUTPUT_WINDOW: u32 = 512 << 10;
/// Each piece costs at least this much credit, so no more pieces than this can be on their way.
const PIECES_MAX: usize = (OUTPUT_WINDOW / 256) as usize + 2;
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// What comes out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamEvent {
    Output { of: Stream, data: Bytes },
    Ended(Exited),
}

/// Where the channel's reader puts what is for a stream.
#[derive(Debug)]
pub(super) struct Inbox {
    events: mpsc::Sender<StreamEvent>,
    input_room: Arc<Semaphore>,
    /// Credit that the agent has.
    credit: Arc<std::sync::atomic::AtomicU32>,
}

impl Inbox {
    /// `Break`: the stream is over, or the agent broke its rules.
    pub(super) fn take(&mut self, event: Event) -> ControlFlow<()> {
        use std::sync::atomic::Ordering::Relaxed;
        match event {
            Event::InputTaken { bytes, .. } => {
                let room =
                    INPUT_WINDOW as usize - self.input_room.available_permits().min(INPUT_WINDOW as usize);
                self.input_room.add_permits(usize::try_from(bytes).unwrap_or(room).min(room));
                ControlFlow::Continue(())
            }
            Event::Output { of, data, .. } => {
                let cost = output_cost(data.len());
                let paid = self.credit.fetch_update(Relaxed, Relaxed, |credit| credit.checked_sub(cost));
                let event = StreamEvent::Output { of, data: data.into() };
                match paid.is_ok() && self.events.try_send(event).is_ok() {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            }
            Event::Ended { exited, .. } => {
                let _ = self.events.try_send(StreamEvent::Ended(exited));
                ControlFlow::Break(())
            }
        }
    }
}

/// The engine's end of a stream. Dropped, it leaves: the process goes on without it.
#[derive(Debug)]
pub(crate) struct GuestStream {
    events: mpsc::Receiver<StreamEvent>,
    input: GuestInput,
    /// Of what was taken, not yet given back to the agent.
    owed: u32,
    credit: Arc<std::sync::atomic::AtomicU32>,
    over: bool,
}

/// Input of a process; clones share its window.
#[derive(Debug, Clone)]
pub(crate) struct GuestInput {
    agent: Agent,
    stream: u32,
    room: Arc<Semaphore>,
}

impl Agent {
    /// Runs a process beside the container's own. `Ok(Err(..))`: it cannot run, with Docker's code for it.
    pub(crate) async fn exec(
        &self,
        process: Process,
        stdio: Stdio,
        deadline: Duration,
    ) -> Result<Result<(u32, GuestStream), (i32, String)>, GuestError> {
        let stream = self.next_id();
        let guest_stream = self.open_stream(stream);
        let exec = Exec { stream, process, stdio, window: OUTPUT_WINDOW };
        match self.call(RequestBody::Exec(Box::new(exec)), deadline).await? {
            ReplyBody::Started { pid, .. } => Ok(Ok((pid, guest_stream))),
            ReplyBody::StartFailed { code, message } => {
                self.0.waiting().streams.remove(&stream);
                Ok(Err((code, super::printable(&message))))
            }
            other => Err(GuestError::Protocol(format!("{other:?} instead of a process"))),
        }
    }

    /// Begins work on the container's files.
    pub(crate) async fn files(&self, task: FileTask, deadline: Duration) -> Result<GuestStream, GuestError> {
        let stream = self.next_id();
        let guest_stream = self.open_stream(stream);
        let files = Files { stream, task, window: OUTPUT_WINDOW };
        match self.call(RequestBody::Files(Box::new(files)), deadline).await? {
            ReplyBody::Started { .. } => Ok(guest_stream),
            other => Err(GuestError::Protocol(format!("{other:?} instead of a task"))),
        }
    }

    /// Input of the container's own process; its output is in the journal.
    pub(crate) fn main_input(&self) -> GuestInput {
        let mut waiting = self.0.waiting();
        let inbox = waiting.streams.entry(MAIN_STREAM).or_insert_with(|| Inbox {
            events: mpsc::channel(1).0,
            input_room: Arc::new(Semaphore::new(INPUT_WINDOW as usize)),
            credit: Arc::default(),
        });
        GuestInput { agent: self.clone(), stream: MAIN_STREAM, room: inbox.input_room.clone() }
    }

    fn open_stream(&self, stream: u32) -> GuestStream {
        let (sender, events) = mpsc::channel(PIECES_MAX);
        let room = Arc::new(Semaphore::new(INPUT_WINDOW as usize));
        let credit = Arc::new(std::sync::atomic::AtomicU32::new(OUTPUT_WINDOW));
        let inbox = Inbox { events: sender, input_room: room.clone(), credit: credit.clone() };
        self.0.waiting().streams.insert(stream, inbox);
        let input = GuestInput { agent: self.clone(), stream, room };
        GuestStream { events, input, owed: 0, credit, over: false }
    }
}

impl GuestStream {
    /// What comes next; `None`: the machine or the connection to it is gone.
    pub(crate) async fn next(&mut self) -> Option<StreamEvent> {
        if self.owed >= OUTPUT_WINDOW / 4 {
            let bytes = std::mem::take(&mut self.owed);
            self.credit.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            let credit = RequestBody::Credit { stream: self.input.stream, bytes };
            // A link that is gone says so below.
            let _ = self.input.agent.tell(credit).await;
        }
        let event = self.events.recv().await;
        match &event {
            Some(StreamEvent::Output { data, .. }) => self.owed += output_cost(data.len()),
            Some(StreamEvent::Ended(_)) | None => self.over = true,
        }
        event
    }

    /// Nobody listens any more; the end is still told.
    pub(crate) async fn leave(&self) {
        // A link that is gone says so with the next event.
        let _ = self.input.agent.tell(RequestBody::Leave { stream: self.input.stream }).await;
    }

    pub(crate) fn input(&self) -> GuestInput {
        self.input.clone()
    }
}

impl Drop for GuestStream {
    fn drop(&mut self) {
        let agent = &self.input.agent;
        agent.0.waiting().streams.remove(&self.input.stream);
        if !self.over {
            let leave = RequestBody::Leave { stream: self.input.stream };
            let request = bulkhead_guest_protocol::message::Request {
                id: bulkhead_guest_protocol::message::NO_REPLY,
                body: leave,
            };
            // If the channel has no room just now, the agent waits for credit that never comes, and the next greeting
            // ends the stream.
            if let Ok(frame) = bulkhead_guest_protocol::frame::encode(&request) {
                let _ = agent.0.requests.try_send(frame);
            }
        }
    }
}

impl GuestInput {
    /// Returns when the process, or the window to it, has taken all; `sent` counts, also when it fails.
    pub(crate) async fn write(&self, data: &[u8], sent: &mut usize) -> Result<(), GuestError> {
        for piece in data.chunks(DATA_BYTES_MAX) {
            let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let room = tokio::select! {
                room = self.room.acquire_many(bytes) => room.map_err(|_| GuestError::Closed)?,
                () = self.agent.closed() => return Err(GuestError::Closed),
            };
            self.agent.tell(RequestBody::Input { stream: self.stream, data: piece.to_vec() }).await?;
            room.forget();
            *sent += piece.len();
        }
        Ok(())
    }

    /// Ends the process, as kill(2) does.
    pub(crate) async fn kill(&self) -> Result<(), GuestError> {
        self.agent.tell(RequestBody::Kill { stream: self.stream }).await
    }

    /// There is no more.
    pub(crate) async fn end(&self) -> Result<(), GuestError> {
        self.agent.tell(RequestBody::InputEnd { stream: self.stream }).await
    }

    pub(crate) async fn resize(&self, size: TerminalSize) -> Result<(), GuestError> {
        self.agent.call(RequestBody::Resize { stream: self.stream, size }, CALL_DEADLINE).await.map(drop)
    }
}
