//! `cargo xtask down`: stops the server. Machines outlive it, unless `--all` removes the first VCH before.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::layout::{Layout, VCH};
use crate::say::{self, Step};
use crate::{peer, server};

/// A graceful stop flushes and closes the database; more than this is a fault worth seeing.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// The words after `down`.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let (all, data_dir) = options(arguments)?;
    let layout = Layout::parse(data_dir.as_deref())?;
    if server::running(&layout)?.is_none() {
        eprintln!("no server answers at {}", layout.admin_socket().display());
        return Ok(ExitCode::SUCCESS);
    }
    stop(&layout, all)?;
    if !all {
        eprintln!(
            "Running container VMs go on, and the next `cargo xtask up` takes them over.\n\
             To remove them: `cargo xtask down --all` while the server runs."
        );
    }
    eprintln!("Data stays in {}.", layout.data.display());
    Ok(ExitCode::SUCCESS)
}

/// Stops the server; with `all` the first VCH and what is in it goes before.
pub fn stop(layout: &Layout, all: bool) -> Result<()> {
    let Some(pid) = server::running(layout)? else { return Ok(()) };
    if all {
        let step = Step::start(format!("remove VCH `{VCH}` with its containers and images"));
        let answer = server::admin(layout).args(["vch", "rm", "--force", VCH]).output()?;
        if !answer.status.success() {
            bail!(
                "VCH `{VCH}` was not removed, and the server still runs: {}",
                String::from_utf8_lossy(&answer.stderr).trim()
            );
        }
        step.done("removed");
    }
    let step = Step::start(format!("stop the server (process {pid})"));
    peer::terminate(pid)?;
    let started = Instant::now();
    while peer::is_alive(pid) {
        if started.elapsed() > STOPS_WITHIN {
            bail!(
                "process {pid} is still there after {}; see {}",
                say::seconds(STOPS_WITHIN),
                layout.log.display()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    step.done("stopped");
    Ok(())
}

fn options(arguments: &[String]) -> Result<(bool, Option<String>)> {
    let mut all = false;
    let mut data_dir = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--all" => all = true,
            "--data-dir" => data_dir = words.next().cloned(),
            other => bail!("`down` does not know `{other}`; it takes `--all` and `--data-dir DIR`"),
        }
    }
    Ok((all, data_dir))
}
