//! Plugins, installed and bound by the operator's CLI, felt by the docker CLI and inside of machines.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::binary;
use bulkhead_test_support::plugins::file;

use crate::harness::Case;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("plugins::caps_hold_in_the_machine", caps),
    ("plugins::sources_of_images", sources),
    ("plugins::a_new_one_from_nothing_to_a_refusal", from_nothing),
    ("plugins::bad_words_are_told", bad_words),
];

fn bulkhead(world: &World, args: &[&str]) -> Result<String> {
    let output = world.server.bulkhead(args)?;
    ensure!(output.code == Some(0), "{args:?}: {output:?}");
    Ok(output.stdout)
}

fn install(world: &World, name: &str) -> Result<()> {
    let file = file(name)?;
    let told = bulkhead(world, &["plugin", "install", file.to_str().context("a path")?])?;
    has(&told, "sha256:")
}

fn caps(world: &mut World) -> Result<()> {
    install(world, "resource-caps")?;
    let docker = world.vch("capped", "dev", "acme")?;
    let image = world.busybox();
    docker.ok(&["pull", "--quiet", &image])?;
    let set = |settings: &str| {
        let args = [
            "binding",
            "set",
            "caps",
            "--plugin",
            "resource-caps",
            "--vch",
            "capped",
            "--settings",
            settings,
        ];
        bulkhead(world, &args)
    };
    set(r#"{"memory-mib-max": 96, "pids-max": 50}"#)?;
    let look = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
    let run = docker.run(&["run", "--name", "capped", "-m", "300m", &image, "sh", "-c", look])?;
    code(&run, 0)?;
    same(run.stdout.split_whitespace().collect::<Vec<_>>(), vec!["100663296", "50"])?;
    has(&run.stderr, "caps: memory is lowered from 300 to 96 MiB, the cap")?;
    let shown =
        docker.ok(&["inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", "capped"])?;
    same(shown.trim(), "100663296 50")?;
    let raised = docker.fails(&["update", "--memory", "200m", "capped"])?;
    has(&raised, "denied by plugin \"caps\": it asks for 200 MiB of memory, the cap is 96")?;
    docker.ok(&["update", "--memory", "80m", "capped"])?;
    docker.ok(&["rm", "capped"])?;

    set(r#"{"memory-mib-max": 96, "over": "refuse"}"#)?;
    let refused = docker.run(&["run", "--rm", "-m", "300m", &image, "true"])?;
    code(&refused, 125)?;
    let why =
        "denied by plugin \"caps\": it asks for 300 MiB of memory, the cap is 96 (--memory 96m at most)";
    has(&refused.stderr, why)?;
    let decisions = bulkhead(world, &["decision", "ls", "capped", "-n", "1"])?;
    let id = decisions
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next())
        .context(decisions.clone())?;
    let story = bulkhead(world, &["decision", "show", id])?;
    has(&story, "caps (resource-caps 1.0.0, enforce): deny")?;
    has(&story, "would pass: --memory 96m at most")?;
    // What would pass does.
    code(&docker.run(&["run", "--rm", "-m", "96m", &image, "true"])?, 0)?;
    let metrics = world.server.telemetry("/metrics")?;
    has(&metrics, "bulkhead_plugin_calls_total{binding=\"caps\",outcome=\"deny\"} 2")?;

    let in_use = world.server.bulkhead(&["plugin", "rm", "resource-caps"])?;
    ensure!(in_use.code != Some(0) && in_use.stderr.contains("is bound by caps"), "{in_use:?}");
    // The VCH takes its binding with it.
    world.remove_vch("capped")?;
    ensure!(!bulkhead(world, &["binding", "ls"])?.contains("caps "), "the binding is still there");
    bulkhead(world, &["plugin", "rm", "resource-caps"]).map(drop)
}

fn sources(world: &mut World) -> Result<()> {
    install(world, "image-sources")?;
    let docker = world.vch("sourced", "dev", "acme")?;
    let image = world.busybox();
    let set = |settings: &str| {
        bulkhead(world, &["binding", "set", "image-sources", "--vch", "sourced", "--settings", settings])
    };
    set(r#"{"allow": ["elsewhere.example"]}"#)?;
    let refused = docker.run(&["pull", &image])?;
    ensure!(refused.code != Some(0), "{refused:?}");
    has(&refused.stderr, "an image from elsewhere.example")?;
    let (registry, _) = image.split_once('/').context("an image with its registry")?;
    set(&format!(r#"{{"allow": ["{registry}"]}}"#))?;
    docker.ok(&["pull", "--quiet", &image])?;
    code(&docker.run(&["run", "--rm", &image, "true"])?, 0)?;
    // A name is no origin.
    docker.ok(&["tag", &image, "elsewhere.example/app:1"])?;
    set(r#"{"allow": ["elsewhere.example"]}"#)?;
    let refused = docker.run(&["run", "--rm", "elsewhere.example/app:1", "true"])?;
    code(&refused, 125)?;
    has(&refused.stderr, "denied by plugin \"image-sources\"")?;
    world.remove_vch("sourced")?;
    bulkhead(world, &["plugin", "rm", "image-sources"]).map(drop)
}

/// As the SDK's README has it.
fn from_nothing(world: &mut World) -> Result<()> {
    let folder = world.server.dir().join("authors");
    std::fs::create_dir(&folder)?;
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/rust");
    let wasm = file("any")?.with_file_name("../wasm");
    let rustc = wasm.with_file_name("wasm-toolchain").join("rustc");
    let bulkhead = |words: &[&str]| -> Result<String> {
        let mut command = Command::new(binary()?);
        command.args(words).current_dir(&folder).env("BULKHEAD_SDK", &sdk);
        // Where rustup could not bring the target, the set-up did.
        if rustc.is_file() {
            command.env("RUSTC", &rustc);
        }
        let output = command.output().context("cannot start bulkhead")?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    same(bulkhead(&["plugin", "new", "team-label"])?, "team-label")?;
    // The versions that are here already.
    std::fs::copy(sdk.join("../../Cargo.lock"), folder.join("team-label/Cargo.lock"))?;
    let wasm = wasm.to_str().context("a path")?;
    let component = bulkhead(&["plugin", "build", "team-label", "--target-dir", wasm])?;
    has(&self::bulkhead(world, &["plugin", "install", &component])?, "team-label 0.1.0 sha256:")?;
    let docker = world.vch("teams", "dev", "acme")?;
    let image = world.busybox();
    docker.ok(&["pull", "--quiet", &image])?;
    let settings = r#"{"teams": ["shop", "ops"]}"#;
    self::bulkhead(world, &["binding", "set", "team-label", "--vch", "teams", "--settings", settings])?;
    let refused = docker.run(&["create", &image, "true"])?;
    let why = "denied by plugin \"team-label\": it has no label of a team (--label team=shop|ops)";
    has(&refused.stderr, why)?;
    docker.ok(&["create", "--label", "team=ops", &image, "true"])?;
    world.remove_vch("teams")?;
    self::bulkhead(world, &["plugin", "rm", "team-label"]).map(drop)
}

fn bad_words(world: &mut World) -> Result<()> {
    let fails = |args: &[&str], part: &str| {
        let output = world.server.bulkhead(args)?;
        ensure!(output.code != Some(0) && output.stderr.contains(part), "{args:?}: {output:?}");
        Ok(())
    };
    let config = world.server.config_file();
    fails(
        &["plugin", "install", config.to_str().context("a path")?],
        "this is no plugin that can be installed",
    )?;
    fails(&["plugin", "install", "/nowhere"], "`/nowhere`: No such file")?;
    fails(&["plugin", "inspect", "nosuch"], "no plugin `nosuch`")?;
    fails(&["binding", "set", "x", "--plugin", "nosuch"], "no plugin `nosuch`")?;
    fails(&["binding", "set", "x", "--settings", "{"], "--settings is no JSON")?;
    fails(&["binding", "set", "x", "--mode", "warn"], "`warn` is no mode: expected enforce or monitor")?;
    fails(&["binding", "rm", "nosuch"], "no binding `nosuch`")
}
