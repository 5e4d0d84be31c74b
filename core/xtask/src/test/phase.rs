//! One phase of the run: commands with a deadline, whose output is shown and counted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::processes;
use super::tally::Tally;
use crate::say;

/// How long the rest of a program's output may take once the program is gone.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// What a command's outcome counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// It passes or fails as a whole.
    AsOne,
    /// It is a test program and says itself how many passed.
    ByItself,
}

/// Runs a command until it ends or its time is over.
pub fn run(name: &str, mut command: Command, counts: Counts, limit: Duration) -> Tally {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Tally::one_failed(format!("{name}: cannot start: {error}")),
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
    match (status, counts) {
        (None, _) => {
            tally.add(&Tally::one_failed(format!("{name}: out of time after {}", say::seconds(limit))));
        }
        (Some(status), Counts::AsOne) if status.success() => tally = Tally::one_passed(),
        (Some(status), Counts::AsOne) => tally = Tally::one_failed(format!("{name}: {status}")),
        // A program that dies before it could count still is a failure.
        (Some(status), Counts::ByItself) if !status.success() && tally.failed == 0 => {
            tally.add(&Tally::one_failed(format!("{name}: {status}")));
        }
        (Some(_), Counts::ByItself) => {}
    }
    tally
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
        std::thread::sleep(Duration::from_millis(50));
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
        let script = shell("echo 'test result: ok. 3 passed; 0 failed; 0 ignored'; exit 101");
        let tally = run("dies", script, Counts::ByItself, Duration::from_secs(10));
        assert_eq!((tally.passed, tally.failed), (3, 1));
    }

    #[test]
    fn what_hangs_is_ended_and_counted() {
        let tally = run("hangs", shell("sleep 100 & sleep 100"), Counts::AsOne, Duration::from_millis(200));
        assert_eq!(tally.failed, 1);
        assert!(tally.failures.iter().any(|text| text.contains("out of time")), "{tally:?}");
    }

    #[test]
    fn a_check_counts_as_one() {
        assert_eq!(run("fine", shell("true"), Counts::AsOne, Duration::from_secs(10)), Tally::one_passed());
        assert_eq!(run("not", shell("false"), Counts::AsOne, Duration::from_secs(10)).failed, 1);
    }
}
