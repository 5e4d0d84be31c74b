//! A plugin that fails again and again is not asked for a while: each of its failures would cost a request its deadline.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many failures within [`WINDOW`] are too many.
const FAILURES_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Then it is not asked for so long.
pub(super) const PAUSE: Duration = Duration::from_secs(300);

/// Of one binding; a change of the binding begins anew.
#[derive(Debug, Default)]
pub(super) struct Quarantine(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: Vec<Instant>,
    until: Option<Instant>,
}

impl Quarantine {
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.state().until.is_some_and(|until| now < until)
    }

    /// One more failure. `true`: it was one too many, and the quarantine begins now.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.failures.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        state.failures.push(now);
        if state.failures.len() < FAILURES_MAX {
            return false;
        }
        state.failures.clear();
        state.until = Some(now + PAUSE);
        true
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_minute_are_too_many() {
        let (quarantine, start) = (Quarantine::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..4 {
            assert!(!quarantine.failed(at(second)));
        }
        // The first four are too old by then.
        assert!(!quarantine.failed(at(70)) && !quarantine.holds(at(70)));
        for second in 71..74 {
            assert!(!quarantine.failed(at(second)));
        }
        assert!(quarantine.failed(at(74)) && quarantine.holds(at(75)) && quarantine.holds(at(373)));
        // Whoever is asked again has the whole patience again.
        assert!(!quarantine.holds(at(374)) && !quarantine.failed(at(375)));
    }
}
