//! Clients that others wrote, as their users use them.

use anyhow::Result;
use bulkhead_test_support::run;
use std::process::Command;
use std::time::Duration;

use crate::harness::Case;
use crate::world::{World, code, same};

pub const CASES: &[Case] = &[("sdk::docker_for_python", docker_for_python)];

const PATIENCE: Duration = Duration::from_secs(240);

/// Debian's `python3-docker`, in Debian's Python.
fn docker_for_python(world: &mut World) -> Result<()> {
    let script = include_str!("docker_py.py");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", script, world.dev.host(), &world.busybox()]);
    let output = run(&mut command, PATIENCE)?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "facts\nrunning_to_the_end\ninput_and_output\nbeside\na_life\n")
}
