//! Notices that the host slept, or that its clock was set: the wall clock then went another way than the monotonic
//! one. Guests know nothing of it, and are told the time again.

use crate::Engine;
use chrono::TimeDelta;
use std::time::Duration;
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Less is a busy machine, or a clock that is being disciplined.
const JUMP_MIN: TimeDelta = TimeDelta::seconds(2);

impl Engine {
    pub(crate) async fn watch_clock(self) {
        let (mut wall, mut steady) = (self.now(), Instant::now());
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let (now, then) = (self.now(), Instant::now());
            if jumped(now - wall, then - steady) {
                tracing::info!("the wall clock jumped: the guests' clocks are set");
                for handle in self.0.drivers.all() {
                    handle.clock_is_due();
                    handle.wake();
                }
            }
            (wall, steady) = (now, then);
        }
    }
}

fn jumped(wall: TimeDelta, steady: Duration) -> bool {
    let steady = TimeDelta::from_std(steady).unwrap_or(TimeDelta::MAX);
    (wall - steady).abs() >= JUMP_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_and_a_set_clock_are_jumps_and_a_late_look_is_none() {
        let seconds = TimeDelta::seconds;
        assert!(!jumped(seconds(5), Duration::from_secs(5)));
        assert!(!jumped(seconds(300), Duration::from_secs(299)), "the task itself came late");
        assert!(jumped(seconds(3605), Duration::from_secs(5)), "slept for an hour");
        assert!(jumped(seconds(-3600), Duration::from_secs(5)), "set back");
    }
}
