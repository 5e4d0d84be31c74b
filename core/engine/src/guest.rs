//! The conversation with one agent: many calls and streams over one channel. What the agent says is hostile: everything
//! is bounded by the protocol's decoder, by windows and deadlines, and the machine it speaks for is known from the
//! channel, never from its words.
//!
//! ```text
//!   driver ─ Link ─┐                 ┌─ calls, by id
//!   exec, attach ─ Agent ─▶ channel ─┤
//!                                    └─ streams, by number
//! ```

mod stream;

pub(crate) use stream::{GuestInput, GuestStream, StreamEvent};

use bulkhead_guest_protocol::frame::{self, Decoder};
use bulkhead_guest_protocol::message::{
    AgentState, Event, Hello, NO_REPLY, Reply, ReplyBody, Request, RequestBody,
};
use bulkhead_guest_protocol::{PROTOCOL_MAX, PROTOCOL_MIN};
use bulkhead_machine::Channel;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Most bytes that nobody asked for, before the agent counts as gone mad.
const UNASKED_BYTES_MAX: usize = 4 << 20;
/// Requests that wait for the channel to take them.
const REQUESTS_WAITING: usize = 16;
const HELLO_ID: u32 = 0;

#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
    #[error("the agent's channel closed")]
    Closed,
    #[error("the agent did not answer within {0:?}")]
    Silent(Duration),
    #[error("the agent is not the one of this machine")]
    Impostor,
    #[error("the agent refused: {0}")]
    Refused(String),
    /// There is no protocol that both speak.
    #[error("the agent in the machine is of another version than the server: {0}")]
    OtherVersion(String),
    #[error("the agent broke the protocol: {0}")]
    Protocol(String),
}

/// A channel on which the agent has been asked who it is, and perhaps has answered. Ends with its owner.
#[derive(Debug)]
pub(crate) struct Link {
    agent: Agent,
    hello: Option<oneshot::Receiver<ReplyBody>>,
    _end: DropGuard,
}

/// The agent at the other end of a [`Link`], for as many as like; of no use once the link is gone.
#[derive(Debug, Clone)]
pub(crate) struct Agent(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    requests: mpsc::Sender<Vec<u8>>,
    waiting: Mutex<Waiting>,
    next_id: AtomicU32,
    /// Of the first question: an answer to another one is to somebody who was connected before.
    nonce: [u8; 16],
    closed: CancellationToken,
}

/// Who waits for what the agent says.
#[derive(Debug, Default)]
struct Waiting {
    calls: HashMap<u32, oneshot::Sender<ReplyBody>>,
    streams: HashMap<u32, stream::Inbox>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Sends the first question. The guest may still be booting: its answer comes by [`Link::greeting`].
    pub(crate) fn open(channel: Box<dyn Channel>, nonce: [u8; 16], tasks: &TaskTracker) -> Self {
        let (requests, outbox) = mpsc::channel(REQUESTS_WAITING);
        let closed = CancellationToken::new();
        let shared = Arc::new(Shared {
            requests,
            waiting: Mutex::default(),
            next_id: AtomicU32::new(HELLO_ID + 1),
            nonce,
            closed: closed.clone(),
        });
        let (answer, hello) = oneshot::channel();
        shared.waiting().calls.insert(HELLO_ID, answer);
        let body = RequestBody::Hello { protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX, nonce };
        // Encoded, a greeting is a few bytes, and the queue is empty.
        if let Ok(bytes) = frame::encode(&Request { id: HELLO_ID, body }) {
            let _ = shared.requests.try_send(bytes);
        }
        tasks.spawn(converse(channel, shared.clone(), outbox));
        Self { agent: Agent(shared), hello: Some(hello), _end: closed.drop_guard() }
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The answer to the first question; `None` if there is none yet.
    pub(crate) async fn greeting(
        &mut self,
        token: &[u8; 32],
        patience: Duration,
    ) -> Result<Option<Hello>, GuestError> {
        let Some(hello) = self.hello.as_mut() else { return Err(GuestError::Closed) };
        let reply = match timeout(patience, hello).await {
            Err(_) => return Ok(None),
            Ok(reply) => reply.map_err(|_| GuestError::Closed)?,
        };
        self.hello = None;
        match reply {
            ReplyBody::Hello(hello) if !is_believed(&hello, token) => Err(GuestError::Impostor),
            ReplyBody::Hello(hello) if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&hello.protocol) => {
                Err(GuestError::Protocol(format!("protocol {} was not offered", hello.protocol)))
            }
            ReplyBody::Hello(hello) => Ok(Some(hello)),
            ReplyBody::Refused { message } => Err(GuestError::OtherVersion(printable(&message))),
            other => Err(GuestError::Protocol(format!("{other:?} instead of a greeting"))),
        }
    }

    /// See [`Agent::call`].
    pub(crate) async fn call(&self, body: RequestBody, deadline: Duration) -> Result<ReplyBody, GuestError> {
        self.agent.call(body, deadline).await
    }
}

impl Agent {
    /// Asks and waits for the answer.
    pub(crate) async fn call(&self, body: RequestBody, deadline: Duration) -> Result<ReplyBody, GuestError> {
        let id = self.next_id();
        let (answer, reply) = oneshot::channel();
        self.0.waiting().calls.insert(id, answer);
        let exchange = async {
            self.send(id, body).await?;
            tokio::select! {
                biased;
                reply = reply => reply.map_err(|_| GuestError::Closed),
                () = self.0.closed.cancelled() => Err(GuestError::Closed),
            }
        };
        let reply = timeout(deadline, exchange).await.unwrap_or(Err(GuestError::Silent(deadline)));
        self.0.waiting().calls.remove(&id);
        match reply? {
            ReplyBody::Refused { message } => Err(GuestError::Refused(printable(&message))),
            reply => Ok(reply),
        }
    }

    /// For what gets no answer.
    async fn tell(&self, body: RequestBody) -> Result<(), GuestError> {
        self.send(NO_REPLY, body).await
    }

    async fn send(&self, id: u32, body: RequestBody) -> Result<(), GuestError> {
        let frame =
            frame::encode(&Request { id, body }).map_err(|error| GuestError::Protocol(error.to_string()))?;
        tokio::select! {
            sent = self.0.requests.send(frame) => sent.map_err(|_| GuestError::Closed),
            () = self.0.closed.cancelled() => Err(GuestError::Closed),
        }
    }

    /// Resolves when nothing can be said to it any more.
    pub(crate) async fn closed(&self) {
        self.0.closed.cancelled().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    /// Calls and streams count together, and never meet the ids with a meaning of their own.
    fn next_id(&self) -> u32 {
        loop {
            let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
            if id != NO_REPLY && id != HELLO_ID {
                return id;
            }
        }
    }
}

/// An agent that was told whose it is proves it; one that was not has nothing in its machine yet.
fn is_believed(hello: &Hello, token: &[u8; 32]) -> bool {
    match &hello.token {
        Some(said) => said == token,
        None => hello.state == AgentState::Ready,
    }
}

/// Carries bytes both ways until one side ends; then nobody waits any more.
async fn converse(channel: Box<dyn Channel>, shared: Arc<Shared>, outbox: mpsc::Receiver<Vec<u8>>) {
    let (reader, writer) = tokio::io::split(channel);
    let ended = tokio::select! {
        () = shared.closed.cancelled() => Ok(()),
        ended = write(writer, outbox) => ended,
        ended = read(reader, &shared) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the conversation with an agent ended");
    }
    shared.closed.cancel();
    let mut waiting = shared.waiting();
    waiting.calls.clear();
    waiting.streams.clear();
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut outbox: mpsc::Receiver<Vec<u8>>,
) -> std::io::Result<()> {
    while let Some(frame) = outbox.recv().await {
        writer.write_all(&frame).await?;
        writer.flush().await?;
    }
    Ok(())
}

async fn read(mut reader: impl AsyncRead + Unpin, shared: &Shared) -> std::io::Result<()> {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 << 10];
    let mut unasked = 0;
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        decoder.push(buffer.get(..count).unwrap_or_default());
        let mut expected = false;
        while let Some(payload) = decoder.next_frame() {
            match frame::decode::<Reply>(&payload) {
                Ok(reply) => expected |= deliver(shared, reply),
                // What another connection left half read may look like a frame.
                Err(error) => tracing::debug!(%error, "skipped a frame of the agent"),
            }
        }
        unasked = if expected { 0 } else { unasked + count };
        if unasked > UNASKED_BYTES_MAX {
            return Err(std::io::Error::other("megabytes of noise"));
        }
    }
}

/// Whether anybody waited for it.
fn deliver(shared: &Shared, reply: Reply) -> bool {
    let mut waiting = shared.waiting();
    match reply.body {
        ReplyBody::Event(event) => {
            let number = match &event {
                Event::Output { stream, .. }
                | Event::InputTaken { stream, .. }
                | Event::Ended { stream, .. } => *stream,
            };
            let taken = waiting.streams.get_mut(&number).map(|inbox| inbox.take(event));
            if taken.is_none_or(|taken| taken.is_break()) {
                waiting.streams.remove(&number);
            }
            taken.is_some()
        }
        ReplyBody::Hello(hello) if hello.nonce != shared.nonce => false,
        body => match waiting.calls.remove(&reply.id) {
            Some(answer) => answer.send(body).is_ok(),
            None => false,
        },
    }
}

/// Text of a guest, fit for a log and an error message.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(1024).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
#[path = "guest/tests.rs"]
mod tests;
