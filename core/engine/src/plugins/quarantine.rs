//! A plugin that fails again and again is not asked for a while: each of its failures would cost a request its deadline.

use bulkhead_model::VchId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many failures within [`WINDOW`] are too many.
const FAILURES_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Then it is not asked for so long.
pub(super) const PAUSE: Duration = Duration::from_secs(300);

/// Of one binding, in each VCH by itself: a tenant whose requests make a plugin fail takes it from nobody else. A change of
/// the binding begins anew.
#[derive(Debug, Default)]
pub(super) struct Quarantine(Mutex<HashMap<VchId, State>>);

#[derive(Debug, Default)]
struct State {
    failures: Vec<Instant>,
    until: Option<Instant>,
}

impl Quarantine {
    pub(super) fn holds(&self, vch: VchId, now: Instant) -> bool {
        self.all().get(&vch).and_then(|state| state.until).is_some_and(|until| now < until)
    }

    /// One more failure. `true`: it was one too many, and the quarantine begins now.
    pub(super) fn failed(&self, vch: VchId, now: Instant) -> bool {
        let mut all = self.all();
        // Of VCHs that are long gone, nothing stays.
        all.retain(|_, state| {
            let last = state.failures.last().is_some_and(|at| now.saturating_duration_since(*at) < WINDOW);
            last || state.until.is_some_and(|until| now < until)
        });
        let state = all.entry(vch).or_default();
        state.failures.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        state.failures.push(now);
        if state.failures.len() < FAILURES_MAX {
            return false;
        }
        state.failures.clear();
        state.until = Some(now + PAUSE);
        true
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<VchId, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_minute_are_too_many_in_that_vch() {
        let (quarantine, start) = (Quarantine::default(), Instant::now());
        let [vch, other] = [1, 2].map(|number| VchId(uuid::Uuid::from_u128(number)));
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..4 {
            assert!(!quarantine.failed(vch, at(second)));
        }
        // The first four are too old by then.
        assert!(!quarantine.failed(vch, at(70)) && !quarantine.holds(vch, at(70)));
        for second in 71..74 {
            assert!(!quarantine.failed(vch, at(second)));
        }
        assert!(!quarantine.failed(other, at(74)));
        assert!(
            quarantine.failed(vch, at(74)) && quarantine.holds(vch, at(75)) && quarantine.holds(vch, at(373))
        );
        assert!(!quarantine.holds(other, at(75)));
        // Whoever is asked again has the whole patience again.
        assert!(!quarantine.holds(vch, at(374)) && !quarantine.failed(vch, at(375)));
    }
}
