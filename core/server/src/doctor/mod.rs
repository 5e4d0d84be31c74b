//! `bulkhead doctor`: can this machine do it, and if not, what to do. Works without a running server.
//!
//! One check per file; each looks for itself and gives facts, nothing is changed on the machine.

mod cgroups;
mod database;
mod disk;
mod firewall;
mod guest;
mod kernel;
mod ports;
mod qemu;
mod user;
mod virtualization;

use crate::cli::{Failure, Format, print_json, print_text};
use crate::config::Config;
use serde::Serialize;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn failed(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failed, found: found.into(), remedy: Some(remedy.into()) }
    }
}

type Check = fn(&Config) -> Finding;

/// In the order in which they are worth reading; the slow one, which boots something, is last.
const CHECKS: &[Check] = &[
    user::check,
    kernel::check,
    qemu::check,
    guest::check,
    database::check,
    disk::check,
    cgroups::check,
    firewall::check_networks,
    firewall::check_forwarding,
    ports::check_admin,
    ports::check_telemetry,
    virtualization::check,
];

/// Exit code 1 if anything that is needed is missing.
pub fn run(config: &Config, format: Format) -> Result<ExitCode, Failure> {
    let mut findings = Vec::new();
    for check in CHECKS {
        let finding = check(config);
        if format == Format::Table {
            print_text(&line(&finding));
        }
        findings.push(finding);
    }
    if format == Format::Json {
        print_json(&findings)?;
    }
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn line(finding: &Finding) -> String {
    let word = match finding.verdict {
        Verdict::Ok => "OK",
        Verdict::Warning => "WARNING",
        Verdict::Failed => "FAILED",
    };
    let mut line = format!("{word:<8} {:<15} {}\n", finding.check, finding.found);
    if let Some(remedy) = &finding.remedy {
        line.push_str(&format!("{:<8} {:<15} remedy: {remedy}\n", "", ""));
    }
    line
}

/// A program's standard output, if it ends well and soon.
fn output(program: &str, arguments: &[&str], limit: Duration) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut command = Command::new(program);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let until = Instant::now() + limit;
    // The programs asked here print less than a pipe holds.
    while child.try_wait().map_err(failed)?.is_none() {
        if Instant::now() > until {
            child.kill().and_then(|()| child.wait()).ok();
            return Err(format!("{program}: no answer within {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{program}: {}", output.status))
    }
}

/// Where a program is, by the search path and where administrators' programs are besides.
fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let besides = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(besides).map(|dir| dir.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_a_remedy() {
        let finding = Finding::failed("qemu", "not found", "apt-get install qemu-system-x86");
        assert_eq!(
            line(&finding),
            "FAILED   qemu            not found\n                         remedy: apt-get install qemu-system-x86\n"
        );
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["verdict"], "FAILED");
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        assert!(output("sleep", &["60"], Duration::from_millis(50)).unwrap_err().contains("no answer"));
        assert_eq!(output("echo", &["x"], Duration::from_secs(10)).unwrap(), "x\n");
    }
}
