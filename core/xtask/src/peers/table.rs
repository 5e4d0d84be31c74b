//! The document of what came out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::known;
use super::outcome::{Outcome, Outcomes};
use super::suite::Suite;

/// One suite's outcomes at both.
pub struct Compared {
    pub suite: &'static Suite,
    /// At the Docker engine.
    pub there: Outcomes,
    /// At Bulkhead.
    pub here: Outcomes,
}

impl Compared {
    /// Every test that ran at the Docker engine, with its outcome there and here. What did not even end here failed.
    pub fn tests(&self) -> impl Iterator<Item = (&str, Outcome, Outcome)> {
        self.there.iter().map(|(test, &there)| {
            (test.as_str(), there, self.here.get(test).copied().unwrap_or(Outcome::Failed))
        })
    }
}

/// `COMPATIBILITY.md`.
pub fn document(engine: &str, compared: &[Compared]) -> String {
    let mut text = format!(
        "# Tests of others, at a Docker engine and at Bulkhead\n\n\
         Written by `cargo xtask peers --write`: both ran in one go, on one machine, with the same images.\n\
         Beside Bulkhead: {engine}.\n"
    );
    for one in compared {
        suite(&mut text, one);
    }
    text
}

fn suite(text: &mut String, compared: &Compared) {
    let suite = compared.suite;
    let _ = write!(
        text,
        "\n## {} {}\n\n| file | Docker engine: passed | Bulkhead: passed | left out by the suite | of |\n\
         |---|--:|--:|--:|--:|\n",
        suite.package, suite.version
    );
    let mut files: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let mut sum = [0; 4];
    for (test, there, here) in compared.tests() {
        let file = files.entry(test.split("::").next().unwrap_or(test)).or_default();
        let counts = [there == Outcome::Passed, here == Outcome::Passed, there == Outcome::Skipped, true];
        for (count, (of_file, of_all)) in counts.into_iter().zip(file.iter_mut().zip(&mut sum)) {
            *of_file += usize::from(count);
            *of_all += usize::from(count);
        }
    }
    for (file, [there, here, skipped, all]) in files {
        let _ = writeln!(text, "| `{file}` | {there} | {here} | {skipped} | {all} |");
    }
    let [there, here, skipped, all] = sum;
    let _ = writeln!(text, "| in all | {there} | {here} | {skipped} | {all} |");

    list(text, "Pass there, not here", compared, |there, here| {
        there == Outcome::Passed && here != Outcome::Passed
    });
    list(text, "Pass here, not there", compared, |there, here| {
        there != Outcome::Passed && here == Outcome::Passed
    });
    list(text, "Fail at both", compared, |there, here| there == Outcome::Failed && here == Outcome::Failed);

    text.push_str("\nFiles that were not run, with what they are about:\n\n");
    for (file, what) in suite.waiting {
        let _ = writeln!(text, "- `{file}`: {what}");
    }
}

fn list(text: &mut String, title: &str, compared: &Compared, wanted: impl Fn(Outcome, Outcome) -> bool) {
    let mut found = compared.tests().filter(|&(_, there, here)| wanted(there, here)).peekable();
    if found.peek().is_none() {
        return;
    }
    let _ = write!(text, "\n{title}:\n\n");
    for (test, _, _) in found {
        match known::reason(test) {
            Some(reason) => {
                let _ = writeln!(text, "- `{test}`: {reason}");
            }
            None => {
                let _ = writeln!(text, "- `{test}`");
            }
        }
    }
}
