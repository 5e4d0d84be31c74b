//! The same process without an engine: what runc alone takes for it, which no engine above it can be quicker than.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::figures::{Row, Unit};
use super::measure::row;
use crate::say::Step;
use crate::{first_image, root, setup};

/// Adds to `whole`, a row of `docker run`, one that has runc's times where the engine's would be.
pub fn beside_runc(folder: &Path, whole: &Row, runs: usize) -> Result<Row> {
    let step = Step::start("runc run, without an engine");
    let bundle = folder.join("bundle");
    first_image::fill(&bundle.join("rootfs"))?;
    root::run(Command::new(runc()).arg("spec").current_dir(&bundle))?;
    let config = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config)?).context("runc's own spec")?;
    let process =
        spec.get_mut("process").and_then(Value::as_object_mut).context("a spec without a process")?;
    process.insert("terminal".into(), json!(false));
    process.insert("args".into(), json!(["/bin/true"]));
    fs::write(&config, spec.to_string())?;
    let mut numbers = row("docker run --rm; where dockerd stands: runc run alone", Unit::Milliseconds);
    numbers.bulkhead.clone_from(&whole.bulkhead);
    for turn in 0..=runs {
        let began = Instant::now();
        let mut command = root::command("env", "to run a container without an engine")?;
        command.arg(runc()).arg("--root").arg(folder.join("runc")).args(["run", "--bundle"]).arg(&bundle);
        root::run(command.arg(format!("bench-bare-{turn}")))?;
        if turn > 0 {
            numbers.dockerd.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    step.done(&super::measure::medians(std::slice::from_ref(&numbers)));
    Ok(numbers)
}

fn runc() -> PathBuf {
    setup::unpacked("runc").join("usr/sbin/runc")
}
