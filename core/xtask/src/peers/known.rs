//! Why a test that passes at the Docker engine does not pass here.

use super::outcome::Outcome;
use super::table::Compared;

/// Test and reason, sorted by test.
const KNOWN: &[(&str, &str)] = &[];

/// The reason for one test.
pub fn reason(test: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(name, _)| *name == test).map(|(_, reason)| *reason)
}

/// What differs without a reason, and reasons that nothing needs any more. Only for tests that ran.
pub fn problems(compared: &Compared) -> Vec<String> {
    let name = compared.suite.package;
    compared
        .tests()
        .filter_map(|(test, there, here)| {
            let differs = there == Outcome::Passed && here != Outcome::Passed;
            match (differs, reason(test)) {
                (true, None) => {
                    Some(format!("{name}: {test} {here} here and passes there: no reason is known"))
                }
                (false, Some(_)) => {
                    Some(format!("{name}: {test} has a reason in known.rs that it does not need"))
                }
                _ => None,
            }
        })
        .collect()
}
