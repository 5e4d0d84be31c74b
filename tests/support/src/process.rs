//! Programs run to their end, with a deadline.

use crate::wait_for;
use anyhow::{Context as _, Result, bail};
use std::fmt;
use std::io::{Read, Write as _};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a program left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn is_ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The standard output of a program that succeeded, without the last newline; else an error with all it said.
    pub fn ok(self) -> Result<String> {
        if self.is_ok() { Ok(self.stdout.trim_end_matches('\n').to_owned()) } else { bail!("{self}") }
    }

    /// The standard error of a program that failed; an error if it succeeded.
    pub fn failed(self) -> Result<String> {
        if self.is_ok() { bail!("succeeded, though it should not: {self}") } else { Ok(self.stderr) }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Runs a program to its end, without input; kills it when `limit` has passed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    command.stdin(Stdio::null());
    to_end(command, Vec::new(), limit)
}

/// As [`run`], with something on its standard input, which then ends.
pub fn run_with_input(command: &mut Command, input: impl Into<Vec<u8>>, limit: Duration) -> Result<Output> {
    command.stdin(Stdio::piped());
    to_end(command, input.into(), limit)
}

fn to_end(command: &mut Command, input: Vec<u8>, limit: Duration) -> Result<Output> {
    let name = format!("{command:?}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    // A program that does not read ends this with an error that says nothing more than its own end.
    let feeder = child.stdin.take().map(|mut stdin| std::thread::spawn(move || stdin.write_all(&input).ok()));
    // Drained in threads of their own: a full pipe must not hold the program up.
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let ended = wait_for(&name, limit, || child.try_wait().transpose());
    if ended.is_err() {
        child.kill().ok();
        child.wait().ok();
    }
    if let Some(feeder) = feeder {
        feeder.join().ok();
    }
    let output = Output {
        code: ended.as_ref().ok().and_then(|status| status.as_ref().ok()).and_then(|status| status.code()),
        stdout: text(stdout),
        stderr: text(stderr),
    };
    match ended {
        Ok(status) => status.map(|_| output).with_context(|| name),
        Err(late) => Err(late.context(output.to_string())),
    }
}

fn drain<R: Read + Send + 'static>(from: Option<R>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            from.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}

fn text(thread: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_output_and_code() {
        let output =
            run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(10))
                .unwrap();
        assert_eq!(output, Output { code: Some(3), stdout: "out\n".into(), stderr: "err\n".into() });
    }

    #[test]
    fn ends_what_takes_too_long() {
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(format!("{error:#}").contains("not within"), "{error:#}");
    }
}
