//! Tells a client that went away from one that only has nothing more to say.
//!
//! The end of what a client sends is no news: docker closes its sending side and still reads. A client that is gone
//! altogether shows as a hang-up (POLLHUP, poll(2)), which nobody is woken for while there is nothing to write: a
//! `docker wait` that was killed would hold its connection until the container ends.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A peer that vanished without a word (network cut, power off) is given up after about a minute.
const KEEPALIVE_IDLE_S: u32 = 30;
const KEEPALIVE_INTERVAL_S: u32 = 10;
const KEEPALIVE_COUNT: u32 = 3;

/// Watches the socket that a connection reads and writes by another descriptor.
#[derive(Debug)]
pub(super) struct Gone(OwnedFd);

impl Gone {
    pub fn new(socket: &impl AsFd) -> io::Result<Self> {
        socket.as_fd().try_clone_to_owned().map(Self)
    }

    /// For TCP, where only the kernel's own probes find out.
    pub fn with_keepalive(socket: &impl AsFd) -> io::Result<Self> {
        setsockopt(socket, sockopt::KeepAlive, &true)?;
        setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
        setsockopt(socket, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S)?;
        setsockopt(socket, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
        Self::new(socket)
    }

    /// Returns when the client is gone.
    pub async fn wait(&self) {
        while !self.is_gone() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_gone(&self) -> bool {
        // Asked for nothing: hang-up and error are told in any case.
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) | Err(_) => false,
            Ok(_) => fds
                .iter()
                .filter_map(PollFd::revents)
                .any(|found| found.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)),
        }
    }
}
