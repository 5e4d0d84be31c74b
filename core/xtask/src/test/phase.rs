//! One phase of the run: a command with a deadline, whose output is shown and counted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::leftovers::Run;
use super::processes;
use super::tally::Tally;
use crate::say;
use crate::server;

/// How long the rest of a program's output may take once the program is gone.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// A check (passes or fails as a whole) or test programs (counted one by one).
pub struct Phase {
    pub name: &'static str,
    command: Command,
    counts: bool,
    harness_words: Vec<String>,
}

impl Phase {
    pub fn check(name: &'static str, command: Command) -> Self {
        Self { name, command, counts: false, harness_words: Vec::new() }
    }

    /// `cargo test` over the packages that `selection` names.
    pub fn tests(name: &'static str, selection: &[&str]) -> Self {
        let mut command = server::cargo(&["test", "--no-fail-fast", "--lib", "--bins", "--tests"]);
        // Cargo's own lines about what it compiles are progress; a colour in them would hide the counts.
        command.args(selection).env("CARGO_TERM_COLOR", "never");
        Self { name, command, counts: true, harness_words: Vec::new() }
    }

    /// Machines are slow under emulation: two at once only make both miss their deadlines.
    pub fn one_at_a_time(mut self) -> Self {
        self.harness_words.push("--test-threads=1".to_owned());
        self
    }

    /// Only tests whose name holds this.
    pub fn filter(&mut self, filter: Option<&str>) {
        if let (true, Some(filter)) = (self.counts, filter) {
            self.harness_words.push(filter.to_owned());
        }
    }

    pub fn run(mut self, run: &Run, limit: Duration, full: bool) -> Tally {
        if !self.harness_words.is_empty() {
            self.command.arg("--").args(&self.harness_words);
        }
        run.apply(&mut self.command, self.counts);
        if full {
            self.command.env("BULKHEAD_TEST_FULL", "1");
        }
        self.command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(error) => return Tally::one_failed(format!("{}: cannot start: {error}", self.name)),
        };
        let counted = Arc::new(Mutex::new(Tally::default()));
        let reader = child.stdout.take().map(|output| {
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || read(output, &counted))
        });
        let status = wait(&mut child, limit);
        // Something that a test left behind may hold the pipe open for ever.
        let ended = Instant::now();
        while reader.as_ref().is_some_and(|thread| !thread.is_finished()) && ended.elapsed() < DRAIN_WITHIN {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut tally = counted.lock().map(|tally| tally.clone()).unwrap_or_default();
        match status {
            None => tally.add(&Tally::one_failed(format!(
                "{}: out of time after {}",
                self.name,
                say::seconds(limit)
            ))),
            Some(status) if status.success() && !self.counts => tally = Tally::one_passed(),
            Some(status) if status.success() => {}
            // A program that did not build, or died before it could count, still is a failure.
            Some(status) if !self.counts || tally.failed == 0 => {
                tally.add(&Tally::one_failed(format!("{}: {status}", self.name)));
            }
            Some(_) => {}
        }
        tally
    }
}

fn read(output: impl std::io::Read, counted: &Mutex<Tally>) {
    let mut input = BufReader::new(output);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).is_ok_and(|size| size > 0) {
        let text = String::from_utf8_lossy(&line);
        eprint!("{text}");
        if let Ok(mut tally) = counted.lock() {
            tally.read_line(text.trim_end());
        }
        line.clear();
    }
}

/// `None` when the time was over and the program was ended with all that it had started. It is in the terminal's
/// foreground like this program, so that sudo can ask and an interrupt reaches both.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if started.elapsed() >= limit {
            // What detached itself from them is found at the end of the run.
            for (pid, _) in processes::below(child.id()) {
                processes::end(pid);
            }
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_dies_without_counting_is_a_failure() {
        let run = Run::for_test();
        let mut phase =
            Phase::check("dies", shell("echo 'test result: ok. 3 passed; 0 failed; 0 ignored'; exit 101"));
        phase.counts = true;
        let tally = phase.run(&run, Duration::from_secs(10), false);
        assert_eq!((tally.passed, tally.failed), (3, 1));
    }

    #[test]
    fn a_phase_that_hangs_is_ended_and_counted() {
        let run = Run::for_test();
        let phase = Phase::check("hangs", shell("sleep 100 & sleep 100"));
        let tally = phase.run(&run, Duration::from_millis(200), false);
        assert_eq!(tally.failed, 1);
        assert!(tally.failures.iter().any(|text| text.contains("out of time")), "{tally:?}");
    }
}
