//! Counting what test programs say.

/// How many passed and failed, and which failed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub failures: Vec<String>,
}

impl Tally {
    pub fn one_passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    pub fn one_failed(what: impl Into<String>) -> Self {
        Self { passed: 0, failed: 1, failures: vec![what.into()] }
    }

    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures.iter().cloned());
    }

    /// Takes in one line of a test program's output. A test that is switched off counts as failed: it proves nothing.
    pub fn read_line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        for part in counts.split(['.', ';']) {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => {
                    let ignored: u64 = number.parse().unwrap_or(0);
                    self.failed += ignored;
                    if ignored > 0 {
                        self.failures.push(format!("{ignored} tests are switched off"));
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.read_line(line));
        tally
    }

    #[test]
    fn sums_over_programs_and_keeps_names() {
        let tally = read(
            "running 3 tests\ntest a::b ... ok\ntest a::c ... FAILED\n\
             test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.20s\n",
        );
        assert_eq!(tally, Tally { passed: 42, failed: 1, failures: vec!["a::c".into()] });
    }

    #[test]
    fn a_test_that_is_switched_off_is_a_failure() {
        let tally = read("test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out");
        assert_eq!((tally.passed, tally.failed), (1, 2));
    }

    #[test]
    fn what_a_test_prints_is_not_counted() {
        assert_eq!(read("  test result: ok. 9 passed; 0 failed\n12 passed, 3 failed"), Tally::default());
    }
}
