//! Waiting for a condition.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(25);

/// Asks until the answer is there; says `what` was missing when `limit` has passed.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= until {
            bail!("{what}: not within {} s", limit.as_secs_f32());
        }
        std::thread::park_timeout(INTERVAL);
    }
}
