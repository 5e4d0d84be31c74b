//! The conversation with one agent. What it says is hostile: everything is bounded by the protocol's decoder, by
//! deadlines, and the machine it speaks for is known from the channel, never from its words.

use bulkhead_guest_protocol::frame::{self, Decoder};
use bulkhead_guest_protocol::message::{Hello, Reply, ReplyBody, Request, RequestBody};
use bulkhead_guest_protocol::{PROTOCOL_MAX, PROTOCOL_MIN};
use bulkhead_machine::Channel;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// Most bytes that are read past while waiting for one reply.
const IGNORED_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
    #[error("the agent's channel broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the agent's channel closed")]
    Closed,
    #[error("the agent did not answer within {0:?}")]
    Silent(Duration),
    #[error("the agent is not the one of this machine")]
    Impostor,
    #[error("the agent refused: {0}")]
    Refused(String),
    #[error("the agent broke the protocol: {0}")]
    Protocol(String),
}

/// A channel on which the agent has been asked who it is, and perhaps has answered.
pub(crate) struct Link {
    channel: Box<dyn Channel>,
    decoder: Decoder,
    nonce: [u8; 16],
    next_id: u32,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("next_id", &self.next_id).finish_non_exhaustive()
    }
}

impl Link {
    /// Sends the first question. The guest may still be booting: its answer comes by [`Link::greeting`].
    pub(crate) async fn open(channel: Box<dyn Channel>, nonce: [u8; 16]) -> Result<Self, GuestError> {
        let mut link = Self { channel, decoder: Decoder::default(), nonce, next_id: 1 };
        let body = RequestBody::Hello { protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX, nonce };
        link.send(0, body, Duration::from_secs(5)).await?;
        Ok(link)
    }

    /// The answer to the first question; `None` if there is none yet.
    pub(crate) async fn greeting(
        &mut self,
        token: &[u8; 32],
        patience: Duration,
    ) -> Result<Option<Hello>, GuestError> {
        let reply = match self.reply(0, patience).await {
            Err(GuestError::Silent(_)) => return Ok(None),
            other => other?,
        };
        match reply {
            ReplyBody::Hello(hello) if hello.nonce != self.nonce => {
                Err(GuestError::Protocol("an answer to another question".into()))
            }
            ReplyBody::Hello(hello) if hello.token != *token => Err(GuestError::Impostor),
            ReplyBody::Hello(hello) if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&hello.protocol) => {
                Err(GuestError::Protocol(format!("protocol {} was not offered", hello.protocol)))
            }
            ReplyBody::Hello(hello) => Ok(Some(hello)),
            ReplyBody::Refused { message } => Err(GuestError::Refused(printable(&message))),
            other => Err(GuestError::Protocol(format!("{other:?} instead of a greeting"))),
        }
    }

    /// Asks and waits for the answer. After an error the link is of no use any more.
    pub(crate) async fn call(
        &mut self,
        body: RequestBody,
        deadline: Duration,
    ) -> Result<ReplyBody, GuestError> {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.send(id, body, deadline).await?;
        match self.reply(id, deadline).await? {
            ReplyBody::Refused { message } => Err(GuestError::Refused(printable(&message))),
            reply => Ok(reply),
        }
    }

    async fn send(&mut self, id: u32, body: RequestBody, deadline: Duration) -> Result<(), GuestError> {
        let frame =
            frame::encode(&Request { id, body }).map_err(|error| GuestError::Protocol(error.to_string()))?;
        tokio::time::timeout(deadline, self.channel.write_all(&frame))
            .await
            .map_err(|_| GuestError::Silent(deadline))??;
        Ok(())
    }

    /// The reply with this id; others are answers to questions that nobody waits for any more.
    async fn reply(&mut self, id: u32, patience: Duration) -> Result<ReplyBody, GuestError> {
        let until = Instant::now() + patience;
        let mut buffer = vec![0; 16 << 10];
        let mut ignored = 0;
        loop {
            while let Some(payload) = self.decoder.next_frame() {
                match frame::decode::<Reply>(&payload) {
                    Ok(reply) if reply.id == id => return Ok(reply.body),
                    Ok(_) => {}
                    // What another connection left half read may look like a frame.
                    Err(error) => tracing::debug!(%error, "skipped a frame of the agent"),
                }
            }
            let count = timeout_at(until, self.channel.read(&mut buffer))
                .await
                .map_err(|_| GuestError::Silent(patience))??;
            if count == 0 {
                return Err(GuestError::Closed);
            }
            ignored += count;
            if ignored > IGNORED_BYTES_MAX {
                return Err(GuestError::Protocol("megabytes of noise".into()));
            }
            self.decoder.push(buffer.get(..count).unwrap_or_default());
        }
    }
}

/// Text of a guest, fit for a log and an error message.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(1024).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
