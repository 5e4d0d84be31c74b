//! Listeners: from an accepted socket to a request that carries its caller.
//!
//! ```text
//!   accept ──▶ Peer: who is it (uid, certificate) ──▶ slots: not too many ──▶ HTTP/1 with deadlines ──▶ Router
//!                         └── not allowed: every request is answered 403, saying which setting
//! ```
//!
//! **Invariant:** a [`bulkhead_model::Caller`] is made here and nowhere else, from what the kernel or TLS vouches for.

mod bind;
mod connection;
mod gone;
mod guard;
mod peer;
mod slots;

pub use bind::{bind_tcp, bind_unix};
pub use guard::Origins;
pub use peer::{Access, Refusal};

use crate::config::LimitsSection;
use crate::tls::TlsServer;
use anyhow::{Context as _, Result};
use axum::Router;
use connection::Served;
use peer::Peer;
use slots::Slots;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long accepting pauses after an error that would repeat at once (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where connections come from.
#[derive(Debug)]
pub enum Source {
    Unix { listener: UnixListener, access: Access },
    Tls { listener: TcpListener, tls: TlsServer },
    Loopback { listener: TcpListener },
}

/// When to stop, in two steps.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// No new connections and requests; those under way end.
    pub soft: CancellationToken,
    /// Whatever is left is cut.
    pub hard: CancellationToken,
}

impl Stop {
    /// Stops with its parent, or alone.
    pub fn child(&self) -> Self {
        Self { soft: self.soft.child_token(), hard: self.hard.child_token() }
    }
}

/// One listener and what it leads to.
#[derive(Debug)]
pub struct Listener {
    /// For logs: `admin`, `telemetry`, `vch dev`.
    pub name: String,
    pub source: Source,
    pub app: Router,
    pub origins: Origins,
    pub limits: LimitsSection,
}

impl Listener {
    /// Accepts until told to stop; returns when its last connection has ended.
    pub async fn run(self, stop: Stop) {
        let connections = TaskTracker::new();
        let slots = Slots::new(self.limits.connections_max, self.limits.connections_per_peer_max);
        loop {
            // First a free slot, then a connection: the surplus waits in the kernel.
            let accepted = tokio::select! {
                () = stop.soft.cancelled() => break,
                accepted = async { let slot = slots.free().await; (slot, self.accept().await) } => accepted,
            };
            let (slot, peer) = accepted;
            match peer {
                Ok(peer) => match slots.admit(slot, peer.key()) {
                    Some(slot) => {
                        let served = self.served();
                        let stop = stop.clone();
                        connections.spawn(async move {
                            served.run(peer, stop).await;
                            drop(slot);
                        });
                    }
                    None => {
                        tracing::warn!(listener = %self.name, peer = %peer.key(), "too many connections of one peer")
                    }
                },
                Err(error) => {
                    tracing::warn!(listener = %self.name, error = %format!("{error:#}"), "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // The socket goes first, so that new clients are told at once.
        drop(self.source);
        connections.close();
        connections.wait().await;
    }

    fn served(&self) -> Served {
        Served {
            app: self.app.clone(),
            origins: self.origins,
            timeout: Duration::from_secs(self.limits.header_timeout_s),
        }
    }

    async fn accept(&self) -> Result<Peer> {
        match &self.source {
            Source::Unix { listener, access } => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().context("cannot tell who the peer is")?.uid();
                Ok(Peer::Unix { stream, uid, refusal: access.refuse(uid) })
            }
            Source::Tls { listener, tls } => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Peer::Tls { stream, address, acceptor: tls.acceptor()? })
            }
            Source::Loopback { listener } => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Peer::Loopback { stream, address })
            }
        }
    }
}

#[cfg(test)]
mod tests;
