//! The stock docker CLI, pointed at one VCH.

use crate::Terminal;
use crate::process::{Output, run, run_with_input};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Deadline of one docker command, in seconds. Generous: guests are emulated here.
const COMMAND_S: u64 = 240;

/// A docker CLI with a host and a configuration folder of its own, so that no context, credential or plugin of the
/// user takes part.
#[derive(Debug, Clone)]
pub struct Docker {
    host: String,
    config: PathBuf,
}

impl Docker {
    /// `host` as in DOCKER_HOST.
    pub fn new(host: impl Into<String>, config: &Path) -> Self {
        Self { host: host.into(), config: config.into() }
    }

    /// As in DOCKER_HOST: `unix:///…`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The folder of this CLI's `config.json`.
    pub fn config_dir(&self) -> &Path {
        &self.config
    }

    /// `docker ARGS`, not started yet: for what runs beside the test.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(args)
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY")
            .env_remove("DOCKER_CERT_PATH")
            .env_remove("DOCKER_API_VERSION")
            .env("DOCKER_CLI_HINTS", "false")
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", &self.config);
        command
    }

    /// `docker ARGS`, run to its end, whatever that is.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        run(&mut self.command(args), Duration::from_secs(COMMAND_S))
    }

    /// `docker ARGS` with something on its standard input.
    pub fn run_with_input(&self, args: &[&str], input: impl Into<Vec<u8>>) -> Result<Output> {
        run_with_input(&mut self.command(args), input, Duration::from_secs(COMMAND_S))
    }

    /// `docker ARGS` under a terminal of 24 lines and 80 columns.
    pub fn terminal(&self, args: &[&str]) -> Result<Terminal> {
        Terminal::spawn(self.command(args), 24, 80)
    }

    /// What `docker ARGS` printed; an error if it failed.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        self.run(args)?.ok()
    }

    /// What `docker ARGS` complained about; an error if it succeeded.
    pub fn fails(&self, args: &[&str]) -> Result<String> {
        self.run(args)?.failed()
    }
}
