//! The docker CLI as a stopwatch: one endpoint, commands with the time they took.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use crate::root;

/// `timeout` ends a command that hangs, with this status.
const HUNG: i32 = 124;
const COMMAND_WITHIN: &str = "300";
/// What is kept of a command's output; the rest is only counted.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A docker CLI for one engine.
#[derive(Debug)]
pub struct Client {
    /// For people.
    pub engine: &'static str,
    host: String,
    config: PathBuf,
    /// Where its published ports are.
    network: PathBuf,
}

/// A command that succeeded.
#[derive(Debug)]
pub struct Ran {
    /// When it was started and when it had ended, in nanoseconds since the epoch: to compare with an engine's events.
    pub began_ns: u64,
    pub ended_ns: u64,
    pub took: Duration,
    /// The beginning of its output.
    pub output: String,
    pub output_bytes: u64,
}

impl Ran {
    pub fn ms(&self) -> f64 {
        self.took.as_secs_f64() * 1000.0
    }
}

impl Client {
    /// `host` as in DOCKER_HOST; `config` is an empty folder, so that no context or credential of the user takes part;
    /// `network` is the namespace where published ports are.
    pub fn new(engine: &'static str, host: String, config: &Path, network: &Path) -> Self {
        Self { engine, host, config: config.into(), network: network.into() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", COMMAND_WITHIN, "docker"]).args(words);
        for name in
            ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"]
        {
            command.env_remove(name);
        }
        command.env("DOCKER_CLI_HINTS", "false");
        command.env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", &self.config);
        command
    }

    /// Runs a shell's words where published ports are.
    pub fn beside(&self, script: &str) -> Result<()> {
        let mut command = root::command("nsenter", "to reach a published port")?;
        command.arg(format!("--net={}", self.network.display()));
        root::run(command.args(["timeout", COMMAND_WITHIN, "sh", "-c", script]))
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        self.run_with_input(words, 0)
    }

    /// Runs a command with so many bytes on its input; each 64 KiB of them are the same noise.
    pub fn run_with_input(&self, words: &[&str], bytes: u64) -> Result<Ran> {
        let mut command = self.command(words);
        let name = format!("{}: {}", self.engine, root::display(&command));
        let began_ns = now_ns()?;
        let began = Instant::now();
        command.stdin(if bytes > 0 { Stdio::piped() } else { Stdio::null() });
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{name}`"))?;
        let input = child.stdin.take();
        let writer = std::thread::spawn(move || input.map_or(Ok(()), |input| feed(input, bytes)));
        let mut output = child.stdout.take().context("a command without output")?;
        let (kept, output_bytes) = drain(&mut output)?;
        let status = child.wait()?;
        let (took, ended_ns) = (began.elapsed(), now_ns()?);
        if status.code() == Some(HUNG) {
            bail!("`{name}` did not end within {COMMAND_WITHIN} s");
        }
        if !status.success() {
            bail!("`{name}` failed ({status}); its own words are above");
        }
        match writer.join() {
            Ok(fed) => fed.with_context(|| format!("`{name}` did not take its input"))?,
            Err(_) => bail!("the input of `{name}` was not written"),
        }
        let output = String::from_utf8_lossy(&kept).into_owned();
        Ok(Ran { began_ns, ended_ns, took, output, output_bytes })
    }
}

fn feed(mut input: impl Write, bytes: u64) -> std::io::Result<()> {
    let noise = noise();
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(noise.len());
        input.write_all(noise.get(..part).unwrap_or_default())?;
        left -= part as u64;
    }
    Ok(())
}

/// Bytes that do not compress and are the same each time (xorshift).
fn noise() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(64 << 10);
    while bytes.len() < 64 << 10 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn drain(from: &mut impl Read) -> std::io::Result<(Vec<u8>, u64)> {
    let (mut kept, mut count) = (Vec::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok((kept, count));
        }
        count += read as u64;
        let room = KEPT_BYTES_MAX.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}

fn now_ns() -> Result<u64> {
    let since =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(u64::try_from(since.as_nanos())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_input_is_fed_and_all_output_counted() {
        let mut fed = Vec::new();
        feed(&mut fed, 200_001).unwrap();
        assert_eq!(fed.len(), 200_001);
        assert_ne!(fed[..8], fed[8..16]);
        let long = vec![b'x'; KEPT_BYTES_MAX + 5];
        let (kept, count) = drain(&mut long.as_slice()).unwrap();
        assert_eq!((kept.len(), count), (KEPT_BYTES_MAX, KEPT_BYTES_MAX as u64 + 5));
    }
}
