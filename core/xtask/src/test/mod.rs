//! `cargo xtask test`: every check and test in one run, the fast ones first, what CI calls.
//!
//! The last line is `N passed, N failed`, over all test programs; a check such as formatting counts as one. Before
//! it stands `N not possible here` with the reasons. The run has a folder of its own for all data, and adopts every
//! process that its tests leave behind, so it can tell (and end) what does not clean up after itself, and never
//! meets a Bulkhead that runs on the same machine.

mod leftovers;
mod phase;
mod possible;
mod processes;
mod tally;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::say::{self, Step};
use crate::{root, server, setup};
use leftovers::Run;
use phase::Phase;
use tally::Tally;

/// Ends everything in time for a CI that gives 50 minutes.
const WHOLE_RUN: Duration = Duration::from_secs(48 * 60);
const WHOLE_RUN_FULL: Duration = Duration::from_secs(4 * 3600);

/// The words after `test`.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let options = Options::parse(arguments)?;
    let started = Instant::now();
    setup::ensure(setup::For::Testing)?;
    let run = Run::begin()?;
    let limit = if options.full { WHOLE_RUN_FULL } else { WHOLE_RUN };
    let mut sum = Tally::default();
    let mut times = Vec::new();
    for phase in phases(&options) {
        let name = phase.name;
        let step = Step::start(name);
        let begun = Instant::now();
        let outcome = phase.run(&run, limit.saturating_sub(started.elapsed()), options.full);
        sum.add(&outcome);
        step.done(&format!("{} passed, {} failed", outcome.passed, outcome.failed));
        times.push((name, begun.elapsed(), outcome));
    }
    sum.add(&run.end());
    closing_words(&sum, &times, started.elapsed(), possible::not_possible_here());
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    full: bool,
    filter: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self { full: false, filter: None };
        for word in arguments {
            match word.as_str() {
                "--full" => options.full = true,
                other if other.starts_with('-') => bail!("`test` takes `--full` and a filter, not `{other}`"),
                other if options.filter.is_none() => options.filter = Some(other.to_owned()),
                other => bail!("`test` takes one filter, and `{other}` is a second one"),
            }
        }
        Ok(options)
    }
}

/// Everything that is run, in order. With a filter only what a filter can mean something to.
fn phases(options: &Options) -> Vec<Phase> {
    const VM_CRATES: [&str; 2] = ["bulkhead-machine-qemu", "bulkhead-guest-agent"];
    const END_TO_END: &str = "bulkhead-e2e";
    let mut phases = Vec::new();
    if options.filter.is_none() {
        phases.push(Phase::check("formatting", server::cargo(&["fmt", "--all", "--check"])));
        phases.push(Phase::tests("tidy: arrows, sizes, words", &["--package", "bulkhead-tidy"]));
        phases.push(Phase::check(
            "clippy",
            server::cargo(&["clippy", "--workspace", "--tests", "--quiet", "--", "--deny", "warnings"]),
        ));
    }
    let mut others = vec!["--workspace", "--exclude", "bulkhead-tidy", "--exclude", END_TO_END];
    for name in VM_CRATES {
        others.extend(["--exclude", name]);
    }
    phases.push(Phase::tests("tests without machines", &others));
    phases.push(Phase::check("server", server::cargo(&["build", "--package", "bulkhead-server"])));
    phases.push(Phase::check(
        "guest image",
        server::cargo(&["run", "--quiet", "--package", "bulkhead-xtask", "--", "guest-image"]),
    ));
    for name in VM_CRATES {
        phases.push(Phase::tests(name, &["--package", name]).one_at_a_time());
    }
    phases.push(Phase::tests("end to end: the docker CLI and real machines", &["--package", END_TO_END]));
    if options.full && options.filter.is_none() {
        phases.push(Phase::check(
            "documentation examples",
            server::cargo(&["test", "--workspace", "--doc", "--quiet"]),
        ));
    }
    for phase in &mut phases {
        phase.filter(options.filter.as_deref());
    }
    phases
}

fn closing_words(sum: &Tally, times: &[(&str, Duration, Tally)], whole: Duration, not_possible: Vec<String>) {
    eprintln!("\nwhere the time went:");
    for (name, time, outcome) in times {
        let mark = if outcome.failed > 0 { format!("  {} FAILED", outcome.failed) } else { String::new() };
        eprintln!("  {:>14}  {name}{mark}", say::seconds(*time));
    }
    eprintln!("  {:>14}  in all", say::seconds(whole));
    for failure in &sum.failures {
        eprintln!("failed: {failure}");
    }
    // For programs as well as for people: stdout, and nothing after it.
    for reason in &not_possible {
        println!("not possible here: {reason}");
    }
    println!("{} not possible here", not_possible.len());
    println!("{} passed, {} failed", sum.passed, sum.failed);
}

/// Whether tests need `sudo` in front of them.
fn needs_sudo() -> bool {
    !root::is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_after_test() {
        let parse = |words: &[&str]| {
            Options::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).ok()
        };
        assert_eq!(parse(&["--full"]), Some(Options { full: true, filter: None }));
        assert_eq!(parse(&["kill"]), Some(Options { full: false, filter: Some("kill".into()) }));
        assert_eq!(parse(&["--fast"]), None);
        assert_eq!(parse(&["a", "b"]), None);
    }

    #[test]
    fn checks_come_before_tests_and_machines_last() {
        let all = phases(&Options { full: false, filter: None });
        let names: Vec<_> = all.iter().map(|phase| phase.name).collect();
        assert_eq!(names.first(), Some(&"formatting"));
        assert!(names.last().is_some_and(|name| name.starts_with("end to end")));
        assert!(
            !phases(&Options { full: false, filter: Some("x".into()) })
                .iter()
                .any(|one| one.name == "clippy")
        );
    }
}
