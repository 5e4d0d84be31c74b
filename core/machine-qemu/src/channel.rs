//! The agent's byte stream: one client at a time.
//!
//! QEMU serves one connection of a socket and lets the next wait until that one is gone, so the last stream is shut
//! down before a new one is handed out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

#[derive(Debug)]
pub(crate) struct AgentStream(UnixStream);

/// Ends a stream that was handed out.
#[derive(Debug)]
pub(crate) struct Hangup(OwnedFd);

impl AgentStream {
    pub(crate) fn new(stream: UnixStream) -> io::Result<(Self, Hangup)> {
        let hangup = Hangup(stream.as_fd().try_clone_to_owned()?);
        Ok((Self(stream), hangup))
    }
}

impl Drop for AgentStream {
    /// The duplicate that [`Hangup`] holds keeps the connection open otherwise.
    fn drop(&mut self) {
        shut_down(&self.0);
    }
}

impl Drop for Hangup {
    fn drop(&mut self) {
        shut_down(&self.0);
    }
}

fn shut_down(socket: &impl AsFd) {
    use std::os::fd::AsRawFd;
    // Not connected any more is what was wanted.
    let _ = nix::sys::socket::shutdown(socket.as_fd().as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

impl AsyncRead for AgentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
