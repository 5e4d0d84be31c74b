//! Names of containers: which are good, and one for those who give none.

use crate::EngineError;

const NAME_BYTES_MAX: usize = 128;

/// Letters, digits, `_`, `.` and `-`; two at least, beginning with a letter or digit.
pub(super) fn check(name: &str) -> Result<(), EngineError> {
    let good = (2..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if good { Ok(()) } else { Err(EngineError::InvalidName(name.chars().take(NAME_BYTES_MAX).collect())) }
}

const KINDS: [&str; 24] = [
    "amber", "brisk", "calm", "clear", "deep", "eager", "fair", "firm", "fresh", "keen", "level", "lucid",
    "mild", "neat", "open", "plain", "quick", "quiet", "sound", "steady", "swift", "tidy", "warm", "wide",
];
const SHIPS: [&str; 32] = [
    "anchor", "barge", "beacon", "binnacle", "bowline", "brig", "buoy", "caravel", "clipper", "compass",
    "cutter", "dinghy", "dory", "ferry", "frigate", "galleon", "halyard", "harbor", "keel", "ketch",
    "lantern", "mast", "mooring", "pinnace", "rudder", "schooner", "sextant", "skiff", "sloop", "tender",
    "tiller", "yawl",
];

/// `steady_sloop_1f3a`.
pub(super) fn generate(random: u64) -> String {
    let pick = |words: &[&'static str], shift: u32| {
        let at = usize::try_from(random >> shift).unwrap_or(0) % words.len().max(1);
        words.get(at).copied().unwrap_or_default()
    };
    format!("{}_{}_{:04x}", pick(&KINDS, 16), pick(&SHIPS, 32), random & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_good_names() {
        for random in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let name = generate(random);
            assert!(check(&name).is_ok(), "{name}");
        }
    }

    #[test]
    fn odd_names_are_refused() {
        for name in ["", "a", "-ab", "a b", "a/b", "ä1", "../x"] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
