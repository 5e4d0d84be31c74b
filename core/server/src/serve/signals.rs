//! What the operator says with signals: SIGTERM and SIGINT stop, SIGHUP reads the policies again.

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Reload,
    Stop,
}

#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// As a shell tells of an end by SIGTERM.
const CODE_AT_ONCE: i32 = 143;

impl Signals {
    pub fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::Stop,
            _ = self.interrupt.recv() => Wanted::Stop,
            _ = self.hang_up.recv() => Wanted::Reload,
        }
    }

    /// From now on a signal to stop ends the process at once. Nothing is lost by that: everything that counts is
    /// committed, and the next start finds the machines and the database.
    pub fn abort_on_second(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            while self.next().await == Wanted::Reload {}
            tracing::warn!("stopping at once");
            std::process::exit(CODE_AT_ONCE);
        })
    }
}
