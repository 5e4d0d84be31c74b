//! What pytest says of each test, read from its `-v` output.

use std::collections::BTreeMap;
use std::fmt;

/// One test's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Passed,
    /// The suite itself leaves it out, or expects it to fail.
    Skipped,
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        })
    }
}

/// By name as `FILE::CLASS::TEST`, the folder left out.
pub type Outcomes = BTreeMap<String, Outcome>;

/// Takes one line of the output, if it is about a test. A test that passes and then cannot clean up has two lines:
/// the worse one counts.
pub fn read_line(folder: &str, line: &str, into: &mut Outcomes) {
    let mut words = line.split_whitespace();
    let (Some(name), Some(word)) = (words.next(), words.next()) else { return };
    let Some(name) = name.strip_prefix(folder).and_then(|name| name.strip_prefix('/')) else { return };
    let outcome = match word {
        "PASSED" => Outcome::Passed,
        "SKIPPED" | "XFAIL" | "XPASS" => Outcome::Skipped,
        "FAILED" | "ERROR" => Outcome::Failed,
        _ => return,
    };
    let entry = into.entry(name.to_owned()).or_insert(outcome);
    *entry = (*entry).max(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_line_counts_and_other_lines_do_not() {
        let mut outcomes = Outcomes::new();
        for line in [
            "tests/integration/a_test.py::A::test_one PASSED   [  1%]",
            "tests/integration/a_test.py::A::test_two PASSED   [  2%]",
            "tests/integration/a_test.py::A::test_two ERROR    [  2%]",
            "tests/integration/a_test.py::A::test_three XFAIL  [  3%]",
            "FAILED tests/integration/a_test.py::A::test_one",
            "tests/integration/a_test.py: some words",
            "elsewhere/a_test.py::A::test_four PASSED",
        ] {
            read_line("tests/integration", line, &mut outcomes);
        }
        let expected = [
            ("a_test.py::A::test_one", Outcome::Passed),
            ("a_test.py::A::test_three", Outcome::Skipped),
            ("a_test.py::A::test_two", Outcome::Failed),
        ];
        assert_eq!(outcomes, expected.map(|(name, outcome)| (name.to_owned(), outcome)).into());
    }
}
