//! When there is time for what nobody waits for: a spare, or an image's template.

use crate::idle;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

/// Nobody has started anything for so long: the host's CPUs are free.
const CALM: Duration = Duration::from_secs(2);
/// How long CPUs are watched, and how many have to be idle for it to be calm sooner: one for what is made, one for
/// whatever else begins.
const LOOK: Duration = Duration::from_millis(250);
const IDLE_CPUS_MIN: f64 = 2.0;
/// The host keeps so much memory that nobody uses.
const HOST_RESERVE_BYTES: u64 = 1 << 30;

#[derive(Debug, Default)]
pub(crate) struct Calm {
    last_start: Mutex<Option<Instant>>,
    turn: tokio::sync::Mutex<()>,
}

impl Calm {
    /// A machine is being started.
    pub(crate) fn started(&self) {
        *self.last_start.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn last_start(&self) -> Option<Instant> {
        *self.last_start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is calm. Nobody else makes anything as long as this turn is held.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        let turn = self.turn.lock().await;
        loop {
            let since = self.last_start().map_or(CALM, |at| at.elapsed());
            let rest = CALM.saturating_sub(since);
            if rest.is_zero() {
                return turn;
            }
            let before = idle::Ticks::now();
            tokio::time::sleep(rest.min(LOOK)).await;
            if idle::cpus(before, idle::Ticks::now()) >= IDLE_CPUS_MIN {
                return turn;
            }
        }
    }
}

/// Whether the host has that much memory beside what it keeps.
pub(crate) fn has_room(bytes: u64) -> bool {
    available_bytes() > HOST_RESERVE_BYTES.saturating_add(bytes)
}

/// Memory of the host that is free or can be had at once, in bytes (proc(5)).
fn available_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok());
    kib.map_or(0, |kib: u64| kib << 10)
}
