//! `cargo xtask peers`: tests that others wrote for the Docker Engine API, run against Debian's Docker engine and
//! against Bulkhead, and what came out side by side.
//!
//! A test that passes there and not here needs its reason in [`known`]; without one, or with a reason for a test
//! that passes, the command fails. Images come from a registry on this machine under the names of Docker Hub.

mod known;
mod mirror;
mod outcome;
mod suite;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::dockerd::Dockerd;
use crate::private::Private;
use crate::server::{self, Profile};
use crate::{layout, say, setup};
use mirror::Mirror;
use suite::SUITES;
use table::Compared;

/// Short, since socket addresses below it are limited to 107 bytes.
const PREFIX: &str = "/tmp/bhp";

/// The words after `peers`.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let options = Options::parse(arguments)?;
    setup::ensure(setup::For::Comparing)?;
    server::build(Profile::Release)?;
    for suite in SUITES {
        suite.prepare()?;
    }
    let place = |name: &str| PathBuf::from(format!("{PREFIX}{}{name}", std::process::id()));

    let mirror = Mirror::start(&place("m"))?;
    let engine = Dockerd::start(&place("d"), Some(&mirror.url()))?;
    let _inside = mirror.also_inside(&engine)?;
    let bulkhead = Private::start(Profile::Release, &place("b"), &mirror.config())?;

    let mut compared = Vec::new();
    for suite in SUITES {
        let filter = options.filter.as_deref();
        let there = suite.run(&engine.host(), "Docker engine", filter)?;
        let here = suite.run(&bulkhead.host(), "Bulkhead", filter)?;
        compared.push(Compared { suite, there, here });
    }
    let problems: Vec<String> = compared.iter().flat_map(known::problems).collect();
    let text = table::document(&engine.version()?, &compared);
    if options.write {
        let file = layout::workspace().join("core/docker-api/COMPATIBILITY.md");
        std::fs::write(&file, &text).with_context(|| file.display().to_string())?;
        say::note(&format!("wrote {}", file.display()));
    }
    print!("{text}");
    for problem in &problems {
        eprintln!("{problem}");
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    write: bool,
    filter: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self { write: false, filter: None };
        for word in arguments {
            match word.as_str() {
                "--write" => options.write = true,
                other if other.starts_with('-') => {
                    bail!("`peers` takes `--write` and a filter, not `{other}`")
                }
                other if options.filter.is_none() => options.filter = Some(other.to_owned()),
                other => bail!("`peers` takes one filter, and `{other}` is a second one"),
            }
        }
        if options.write && options.filter.is_some() {
            bail!("`--write` is for the whole: leave the filter out");
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_never_written_as_the_whole() {
        let parse = |words: &[&str]| {
            Options::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).ok()
        };
        assert_eq!(parse(&["exec"]), Some(Options { write: false, filter: Some("exec".into()) }));
        assert_eq!(parse(&["--write"]), Some(Options { write: true, filter: None }));
        assert_eq!(parse(&["--write", "exec"]), None);
        assert_eq!(parse(&["--slow"]), None);
    }
}
