//! The examples do what their READMEs say.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::{binary, plugins};

use crate::harness::Case;
use crate::world::{World, has, same};

pub const CASES: &[Case] = &[("examples::three_classes", three_classes)];

fn three_classes(world: &mut World) -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/three-classes/run.sh");
    let folder = plugins::file("resource-caps")?;
    let bulkhead = format!("{} --socket {}", binary()?.display(), world.server.admin_socket().display());
    let run = |words: &[&str]| -> Result<String> {
        let mut command = Command::new(&example);
        command.args(words).env("BULKHEAD", &bulkhead).env("IMAGE", world.busybox());
        command.env("PLUGINS", folder.parent().context("a folder")?).env("DOCKER_HOST", world.dev.host());
        let output = command.output().with_context(|| example.display().to_string())?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let told = run(&[])?;
    let lines: Vec<&str> = told.lines().collect();
    let first = [
        "dev web: as asked",
        "dev batch: as asked",
        "dev debug: as asked",
        "test web: as asked",
        "test batch: three-caps: memory is lowered from 1536 to 512 MiB, the cap",
        "test debug: as asked",
    ];
    same(lines.get(..6).context(told.clone())?, first)?;
    for (line, name) in lines.iter().skip(6).zip(["web", "batch", "debug"]) {
        has(line, &format!("prod {name}: denied by policy"))?;
        has(line, "bulkhead decision show d-")?;
    }
    same(lines.len(), 9)?;
    let test = world.server.docker("three-test");
    let memory = ["exec", "batch", "cat", "/sys/fs/cgroup/memory.max"];
    same(test.ok(&memory)?.trim(), (512_u64 << 20).to_string())?;
    run(&["down"])?;
    let gone = world.server.bulkhead(&["binding", "inspect", "three-caps"])?;
    ensure!(gone.code != Some(0), "{gone:?}");
    let removed = world.server.bulkhead(&["plugin", "rm", "resource-caps"])?;
    same(removed.code, Some(0))
}
