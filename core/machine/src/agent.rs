//! The least that talks to an agent: one request, its reply. For tests of back ends, and for trying one out; the
//! engine has a client of its own that does many things at once.

use crate::Channel;
use bulkhead_guest_protocol::frame::{self, Decoder, FrameError};
use bulkhead_guest_protocol::message::{Hello, Reply, ReplyBody, Request, RequestBody};
use bulkhead_guest_protocol::{PROTOCOL_MAX, PROTOCOL_MIN};
use std::fmt;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const READ_BYTES: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent did not answer within {0:?}")]
    Silent(Duration),
    #[error("the agent hung up")]
    HungUp,
    #[error("the connection to the agent broke")]
    Io(#[from] io::Error),
    #[error("the agent was not understood")]
    Frame(#[from] FrameError),
    #[error("the agent answered something else: {0:?}")]
    Unexpected(Box<ReplyBody>),
}

pub struct AgentClient {
    channel: Box<dyn Channel>,
    decoder: Decoder,
    next_id: u32,
}

impl fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentClient").field("next_id", &self.next_id).finish_non_exhaustive()
    }
}

impl AgentClient {
    pub fn new(channel: Box<dyn Channel>) -> Self {
        Self { channel, decoder: Decoder::default(), next_id: 1 }
    }

    /// The first request on a channel: waits until the guest has booted. `nonce` must be new.
    pub async fn hello(&mut self, nonce: [u8; 16], deadline: Duration) -> Result<Hello, AgentError> {
        let hello = RequestBody::Hello { protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX, nonce };
        match self.call(hello, deadline).await? {
            ReplyBody::Hello(hello) if hello.nonce == nonce => Ok(hello),
            other => Err(AgentError::Unexpected(Box::new(other))),
        }
    }

    /// Sends the request and returns the reply to it; what answers something else is skipped.
    pub async fn call(&mut self, body: RequestBody, deadline: Duration) -> Result<ReplyBody, AgentError> {
        let nonce = match body {
            RequestBody::Hello { nonce, .. } => Some(nonce),
            _ => None,
        };
        let exchange = async {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            self.channel.write_all(&frame::encode(&Request { id, body })?).await?;
            self.channel.flush().await?;
            loop {
                while let Some(payload) = self.decoder.next_frame() {
                    match frame::decode::<Reply>(&payload) {
                        Ok(reply) if reply.id == id && !is_to_another(&reply.body, nonce) => {
                            return Ok(reply.body);
                        }
                        // Meant for whoever was connected before.
                        Ok(_) | Err(_) => {}
                    }
                }
                let mut buffer = vec![0; READ_BYTES];
                match self.channel.read(&mut buffer).await? {
                    0 => return Err(AgentError::HungUp),
                    count => self.decoder.push(buffer.get(..count).unwrap_or_default()),
                }
            }
        };
        tokio::time::timeout(deadline, exchange).await.map_err(|_| AgentError::Silent(deadline))?
    }
}

/// Whether it answers the greeting of somebody who was connected before.
fn is_to_another(body: &ReplyBody, nonce: Option<[u8; 16]>) -> bool {
    matches!(body, ReplyBody::Hello(hello) if Some(hello.nonce) != nonce)
}
