//! The test programs of the workspace: built once, together, then run one by one.
//!
//! Building them package by package would compile common dependencies again for each new mix of features.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::leftovers::Run;
use crate::server;

/// A program that cargo built of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// `bulkhead-engine`.
    pub package: String,
    /// The file or library that it was made of.
    pub target: String,
    pub path: PathBuf,
    /// Where cargo would run it.
    pub folder: PathBuf,
}

/// When a program's turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Rules,
    Plain,
    Machines,
    EndToEnd,
}

impl Program {
    pub fn stage(&self) -> Stage {
        match self.package.as_str() {
            "bulkhead-tidy" => Stage::Rules,
            "bulkhead-machine-qemu" | "bulkhead-guest-agent" => Stage::Machines,
            "bulkhead-e2e" if self.target == "e2e" => Stage::EndToEnd,
            _ => Stage::Plain,
        }
    }

    pub fn command(&self, run: &Run, words: &[String]) -> Command {
        let mut command = run.command(&self.path);
        command.args(words).current_dir(&self.folder);
        command
    }
}

/// Builds the server and all test programs at once, with one set of features, so that nothing is compiled twice;
/// cargo's words go to stderr as they come.
pub fn build() -> Result<Vec<Program>> {
    let answer = server::cargo(&["build", "--workspace", "--bin", "bulkhead", "--tests"])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !answer.status.success() {
        bail!("the server and its tests did not build");
    }
    Ok(String::from_utf8_lossy(&answer.stdout).lines().filter_map(program).collect())
}

/// One of cargo's messages, if it is about a test program.
fn program(line: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message.pointer("/profile/test").and_then(Value::as_bool).unwrap_or(false);
    if message.get("reason")?.as_str()? != "compiler-artifact" || !is_test {
        return None;
    }
    let folder = Path::new(message.get("manifest_path")?.as_str()?).parent()?.to_path_buf();
    // The package's id ends with `#name@version`, or with `/folder#version` where both are called alike.
    let id = message.get("package_id")?.as_str()?;
    let (before, after) = id.rsplit_once('#')?;
    let package = match after.split_once('@') {
        Some((name, _)) => name,
        None => before.rsplit('/').next()?,
    };
    Some(Program {
        package: package.to_owned(),
        target: message.pointer("/target/name")?.as_str()?.to_owned(),
        path: message.get("executable")?.as_str()?.into(),
        folder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_the_rest() {
        let line = |test: bool| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"package_id\":\"path+file:///x/tests/e2e#bulkhead-e2e@0.1.0\",\
                 \"manifest_path\":\"/x/tests/e2e/Cargo.toml\",\"target\":{{\"name\":\"e2e\"}},\
                 \"profile\":{{\"test\":{test}}},\"executable\":\"/x/target/debug/deps/e2e-1\"}}"
            )
        };
        let found = program(&line(true)).unwrap();
        assert_eq!((found.package.as_str(), found.stage()), ("bulkhead-e2e", Stage::EndToEnd));
        assert_eq!(found.folder, Path::new("/x/tests/e2e"));
        assert_eq!(program(&line(false)), None);
        assert_eq!(program("Compiling"), None);
    }
}
