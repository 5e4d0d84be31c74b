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
mod programs;
mod tally;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::say::{self, Step};
use crate::{layout, plugins, server, setup};
use leftovers::Run;
use phase::Counts;
use programs::{Program, Stage};
use tally::Tally;

/// A run takes 30 to 50 minutes on two cores; what hangs is ended before a CI gives up on the whole.
const WHOLE_RUN: Duration = Duration::from_secs(70 * 60);
const WHOLE_RUN_FULL: Duration = Duration::from_secs(4 * 3600);

/// The words after `test`.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let options = Options::parse(arguments)?;
    let started = Instant::now();
    setup::ensure(setup::For::Testing)?;
    let run = Run::begin()?;
    let limit = if options.full || options.cold { WHOLE_RUN_FULL } else { WHOLE_RUN };
    let mut book = Book { started, limit, times: Vec::new(), sum: Tally::default() };
    if options.filter.is_none() && !options.cold {
        checks(&mut book);
    }
    tests(&mut book, &run, &options);
    if options.full && options.filter.is_none() {
        book.check("documentation examples", server::cargo(&["test", "--workspace", "--doc", "--quiet"]));
    }
    book.sum.add(&run.end());
    closing_words(&book, possible::not_possible_here());
    Ok(if book.sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn checks(book: &mut Book) {
    book.check("formatting", server::cargo(&["fmt", "--all", "--check"]));
    book.check("clippy", server::cargo(&["clippy", "--workspace", "--tests", "--", "--deny", "warnings"]));
}

fn tests(book: &mut Book, run: &Run, options: &Options) {
    let mut programs = Vec::new();
    book.phase("build of server and tests", |_| match programs::build() {
        Ok(built) => {
            programs = built;
            Tally::one_passed()
        }
        Err(error) => Tally::one_failed(format!("{error:#}")),
    });
    let stages = [
        (Stage::Rules, "rules of the repository"),
        (Stage::Plain, "tests without machines"),
        (Stage::Machines, "tests of single machines"),
        (Stage::EndToEnd, "end to end: the docker CLI and real machines"),
    ];
    for (stage, name) in stages {
        if stage == Stage::Plain {
            book.phase("plugins", |_| match plugins::build(&layout::target().join("debug/bulkhead")) {
                Ok(()) => Tally::one_passed(),
                Err(error) => Tally::one_failed(format!("{error:#}")),
            });
        }
        if stage == Stage::Machines {
            // This program, even if its file was just built anew.
            let mut guest = Command::new("/proc/self/exe");
            guest.arg("guest-image");
            book.check("guest image", guest);
        }
        if options.cold && stage != Stage::EndToEnd {
            continue;
        }
        let of_stage: Vec<&Program> = programs.iter().filter(|program| program.stage() == stage).collect();
        book.phase(name, |limit| run_all(&of_stage, run, options, limit));
    }
}

fn run_all(programs: &[&Program], run: &Run, options: &Options, limit: Duration) -> Tally {
    let started = Instant::now();
    let mut sum = Tally::default();
    for program in programs {
        let name = format!("{} ({})", program.package, program.target);
        let mut words = Vec::new();
        if program.stage() == Stage::Machines {
            // Machines are slow under emulation: many at once only make all of them late.
            words.push("--test-threads=1".to_owned());
        }
        words.extend(options.filter.clone());
        eprintln!("--- {name}");
        let mut command = program.command(run, &words);
        if options.full {
            command.env("BULKHEAD_TEST_FULL", "1");
        }
        if options.cold {
            command.env("BULKHEAD_TEST_BOOT", "cold");
        }
        sum.add(&phase::run(&name, command, Counts::ByItself, limit.saturating_sub(started.elapsed())));
    }
    sum
}

/// What was done so far, and how much time there is.
struct Book {
    started: Instant,
    limit: Duration,
    times: Vec<(&'static str, Duration, Tally)>,
    sum: Tally,
}

impl Book {
    fn phase(&mut self, name: &'static str, body: impl FnOnce(Duration) -> Tally) {
        let step = Step::start(name);
        let begun = Instant::now();
        let outcome = body(self.limit.saturating_sub(self.started.elapsed()));
        self.sum.add(&outcome);
        step.done(&format!("{} passed, {} failed", outcome.passed, outcome.failed));
        self.times.push((name, begun.elapsed(), outcome));
    }

    fn check(&mut self, name: &'static str, command: Command) {
        self.phase(name, |limit| phase::run(name, command, Counts::AsOne, limit));
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    full: bool,
    /// The end-to-end tests alone, with machines that boot where they are else clones.
    cold: bool,
    filter: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self { full: false, cold: false, filter: None };
        for word in arguments {
            match word.as_str() {
                "--full" => options.full = true,
                "--cold" => options.cold = true,
                other if other.starts_with('-') => {
                    bail!("`test` takes `--full`, `--cold` and a filter, not `{other}`")
                }
                other if options.filter.is_none() => options.filter = Some(other.to_owned()),
                other => bail!("`test` takes one filter, and `{other}` is a second one"),
            }
        }
        Ok(options)
    }
}

fn closing_words(book: &Book, not_possible: Vec<String>) {
    let sum = &book.sum;
    eprintln!("\nwhere the time went:");
    for (name, time, outcome) in &book.times {
        let mark = if outcome.failed > 0 { format!("  {} FAILED", outcome.failed) } else { String::new() };
        eprintln!("  {:>14}  {name}{mark}", say::seconds(*time));
    }
    eprintln!("  {:>14}  in all", say::seconds(book.started.elapsed()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_after_test() {
        let parse = |words: &[&str]| {
            Options::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).ok()
        };
        assert_eq!(parse(&["--full"]), Some(Options { full: true, cold: false, filter: None }));
        assert_eq!(parse(&["kill"]), Some(Options { full: false, cold: false, filter: Some("kill".into()) }));
        assert_eq!(parse(&["--cold"]), Some(Options { full: false, cold: true, filter: None }));
        assert_eq!(parse(&["--fast"]), None);
        assert_eq!(parse(&["a", "b"]), None);
    }
}
