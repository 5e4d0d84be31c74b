//! Clones: where they come from, who has none, and what differs between them.

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::images::{LayerTar, TestImage, busybox_layer};
use bulkhead_test_support::wait_for;
use serde_json::{Value, json};
use std::time::Duration;

use crate::harness::Case;
use crate::world::{World, has, same};

pub const CASES: &[Case] = &[
    ("templates::machines_are_clones_unless_a_label_says_cold", a_label_says_cold),
    ("templates::a_vch_of_cold_machines_has_no_clones", a_cold_vch),
    ("templates::machines_tell_what_they_take_and_how_they_started", what_they_take),
    ("templates::first_starts_take_spares", first_starts_take_spares),
    ("templates::an_image_that_is_started_often_has_its_own", an_image_has_its_own),
    ("templates::an_image_of_a_hundred_layers_starts", a_hundred_layers),
    ("templates::are_made_listed_and_thrown_away", made_and_thrown_away),
];

fn cli(world: &World, args: &[&str]) -> Result<String> {
    world.server.bulkhead(args)?.ok()
}

/// Clones that run, of all templates.
fn clones(world: &World) -> Result<u64> {
    let listed = cli(world, &["template", "ls", "-o", "json"])?;
    let listed: Vec<Value> = serde_json::from_str(&listed)?;
    Ok(listed.iter().filter_map(|template| template["clones"].as_u64()).sum())
}

fn a_label_says_cold(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let before = clones(world)?;
    let identity = "cat /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | md5sum; sleep 1000";
    let start = |name: &str, label: &str| {
        docker.ok(&[
            "run",
            "--detach",
            "--name",
            name,
            "--label",
            label,
            &world.busybox(),
            "sh",
            "-c",
            identity,
        ])
    };
    start("one", "a=b")?;
    start("two", "bulkhead.boot=clone")?;
    same(clones(world)? - before, 2)?;
    start("three", "bulkhead.boot=cold")?;
    same(clones(world)? - before, 2)?;
    let mut told = Vec::new();
    for name in ["one", "two", "three"] {
        let text = wait_for("its identity", Duration::from_secs(30), || {
            docker.ok(&["logs", name]).ok().filter(|text| text.lines().count() == 2)
        })?;
        told.extend(text.lines().map(str::to_owned));
        docker.ok(&["rm", "--force", name])?;
    }
    let lines = told.len();
    told.sort();
    told.dedup();
    same(told.len(), lines)?;
    let wrong = docker.run(&["run", "--rm", "--label", "bulkhead.boot=warm", &world.busybox(), "true"])?;
    same(wrong.code, Some(125))?;
    has(&wrong.stderr, "label bulkhead.boot: `warm` is no way to boot: expected clone or cold")
}

fn a_cold_vch(world: &mut World) -> Result<()> {
    let docker = world.server.create_vch("cold-c", &["--class", "dev", "--boot", "cold"])?;
    world.registry.log_in(&docker)?;
    docker.ok(&["pull", "--quiet", &world.busybox()])?;
    let before = clones(world)?;
    let run = ["run", "--detach", "--name", "alone", "--label", "bulkhead.boot=clone"];
    docker.ok(&[&run[..], &[&world.busybox(), "sleep", "1000"]].concat())?;
    same(clones(world)?, before)?;
    has(&cli(world, &["vch", "inspect", "cold-c"])?, "cold")?;
    world.remove_vch("cold-c")
}

fn made_and_thrown_away(world: &mut World) -> Result<()> {
    let name = cli(world, &["template", "build", "--cpus", "1", "--memory", "1200m"])?;
    let name = name.trim();
    let listed = cli(world, &["template", "ls"])?;
    let line = listed.lines().find(|line| line.starts_with(name)).context("it is not listed")?;
    ensure!(line.contains("2 GiB") && line.contains("loaded"), "{listed}");
    cli(world, &["template", "rm", name])?;
    let again = world.server.bulkhead(&["template", "rm", name])?;
    same(again.code, Some(4))?;
    has(&again.stderr, &format!("no such template: {name}"))?;
    let wrong = world.server.bulkhead(&["template", "build", "--cpus", "4000"])?;
    has(&wrong.stderr, "invalid vCPUs `4000`")
}

fn what_they_take(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    for name in ["frugal", "other"] {
        docker.ok(&[
            "run",
            "--detach",
            "--name",
            name,
            "--memory",
            "128m",
            &world.busybox(),
            "sleep",
            "1000",
        ])?;
    }
    let listed: Vec<Value> = serde_json::from_str(&cli(world, &["machine", "ls", "-o", "json"])?)?;
    let found = listed.iter().find(|machine| machine["name"] == "frugal").context("it is not listed")?;
    same(&found["memory_bytes"], &Value::from(128_u64 << 20))?;
    let number = |path: &str| found.pointer(path).and_then(Value::as_u64).context(path.to_owned());
    let (pss, private) = (number("/cost/proportional_bytes")?, number("/cost/private_bytes")?);
    // What it shares with the template and its other clones is counted only in part.
    ensure!(private > 1 << 20 && pss >= private && pss < 256 << 20, "{found}");
    ensure!(number("/cost/cpu_ms")? > 0 && number("/cost/wake_ups")? > 0, "{found}");
    let phases = found["start"].as_array().context("no phases")?;
    let names: Vec<&str> = phases.iter().filter_map(|phase| phase["name"].as_str()).collect();
    let acts = [
        "begin-run",
        "create-disk",
        "start-machine",
        "greet",
        "start-process",
        "guest-network",
        "guest-disks",
        "guest-process",
        "record-running",
    ];
    same(names, acts.to_vec())?;
    let shown = cli(
        world,
        &["machine", "inspect", found["id"].as_str().and_then(|id| id.get(..12)).unwrap_or_default()],
    )?;
    for wanted in ["name          frugal", "boot          clone", "  start-process  "] {
        has(&shown, wanted)?;
    }
    has(&world.server.telemetry("/metrics")?, "bulkhead_start_phase_seconds_count{phase=\"greet\"}")?;
    docker.ok(&["rm", "--force", "frugal", "other"])?;
    let gone = world.server.bulkhead(&["machine", "inspect", "frugal"])?;
    same(gone.code, Some(4))?;
    has(&gone.stderr, "no such container: frugal")
}

/// Two spares become neighbours on a network, with a volume and a published port.
fn first_starts_take_spares(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    docker.ok(&["run", "--rm", &world.busybox(), "true"])?;
    wait_for("two spares", Duration::from_secs(60), || {
        let listed = cli(world, &["template", "ls", "-o", "json"]).ok()?;
        let listed: Vec<Value> = serde_json::from_str(&listed).ok()?;
        (listed.iter().filter_map(|template| template["spares"].as_u64()).sum::<u64>() == 2).then_some(())
    })?;
    let taken = || world.server.log().matches("spare=true").count();
    let before = taken();
    docker.ok(&["network", "create", "near"])?;
    let run =
        ["run", "--detach", "--network", "near", "--volume", "kept:/kept", "--publish", "127.0.0.1:8099:80"];
    let serve = "echo here > /kept/index.html; exec busybox httpd -f -h /kept";
    docker.ok(&[&run[..], &["--name", "here", &world.busybox(), "sh", "-c", serve]].concat())?;
    let ask = "until busybox wget -q -O - http://here/; do sleep 0.1; done";
    let told = docker.ok(&["run", "--rm", "--network", "near", &world.busybox(), "sh", "-c", ask])?;
    same(told.trim(), "here")?;
    same(taken() - before, 2)?;
    let page = wait_for("the page", Duration::from_secs(20), || {
        let asked = std::process::Command::new("busybox")
            .args(["wget", "-q", "-O", "-", "http://127.0.0.1:8099/"])
            .output()
            .ok()?;
        asked.status.success().then_some(asked.stdout)
    })?;
    same(&page[..], b"here\n")?;
    // A second run is a clone; the log and the volume go on.
    docker.ok(&["restart", "--time", "0", "here"])?;
    same(taken() - before, 2)?;
    same(docker.ok(&["exec", "here", "cat", "/kept/index.html"])?.trim(), "here")?;
    docker.ok(&["rm", "--force", "here"])?;
    docker.ok(&["volume", "rm", "kept"])?;
    docker.ok(&["network", "rm", "near"]).map(drop)
}

/// Two at a time: their disks come while the host is busy.
fn a_hundred_layers(world: &mut World) -> Result<()> {
    const LAYERS: usize = 100;
    let part = |number: usize| {
        let content = format!("{number}\n");
        LayerTar::new().file(&format!("parts/{number}"), 0o644, content.as_bytes()).finish()
    };
    let mut layers: Vec<_> = (1..LAYERS).map(part).collect();
    layers.push(busybox_layer()?);
    let names: Vec<String> = (1..=LAYERS).map(|number| format!("{number}.tar")).collect();
    let mut archive =
        LayerTar::new().file("config.json", 0o644, &TestImage::new(layers.clone()).build().config);
    for (name, layer) in names.iter().zip(&layers) {
        archive = archive.file(name, 0o644, layer);
    }
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["hundred:latest"], "Layers": names }]);
    let archive = archive.file("manifest.json", 0o644, manifest.to_string().as_bytes()).finish();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("hundred.tar");
    std::fs::write(&path, archive)?;
    let docker = &world.dev;
    docker.ok(&["load", "--quiet", "--input", &path.to_string_lossy()])?;
    let ran = std::thread::scope(|scope| {
        let run = || docker.ok(&["run", "--rm", "hundred", "cat", "/parts/1", "/parts/76", "/parts/99"]);
        let both = [scope.spawn(run), scope.spawn(run)];
        both.map(|one| one.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a run was cut off"))))
    });
    for output in ran {
        same(output?.as_str(), "1\n76\n99")?;
    }
    docker.ok(&["rmi", "hundred"]).map(drop)
}

/// The templates of images that are loaded, by name.
fn of_images(world: &World) -> Result<Vec<String>> {
    let listed = cli(world, &["template", "ls", "-o", "json"])?;
    let listed: Vec<Value> = serde_json::from_str(&listed)?;
    let of_images = listed.iter().filter(|template| {
        template.pointer("/image/layers").and_then(Value::as_u64) > Some(0) && template["state"] == "loaded"
    });
    Ok(of_images.filter_map(|template| template["name"].as_str().map(str::to_owned)).collect())
}

fn an_image_has_its_own(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    for _ in 0..3 {
        docker.ok(&["run", "--rm", &world.busybox(), "true"])?;
    }
    wait_for("a template of an image", Duration::from_secs(60), || {
        of_images(world).ok().filter(|names| !names.is_empty())
    })?;
    let template = |container: &str| -> Result<String> {
        let shown = cli(world, &["machine", "inspect", container, "-o", "json"])?;
        let shown: Value = serde_json::from_str(&shown)?;
        Ok(shown.get("template").and_then(Value::as_str).unwrap_or_default().to_owned())
    };
    // Spares are taken first.
    let names: Vec<String> = (1..=6).map(|number| format!("often-{number}")).collect();
    let mut found = None;
    for name in &names {
        let volume = format!("{name}:/kept");
        let process = "cat /etc/hostname > /mine; cp /mine /kept/; sleep 1000";
        let run = ["run", "--detach", "--name", name, "--volume", &volume];
        docker.ok(&[&run[..], &[&world.busybox(), "sh", "-c", process]].concat())?;
        if of_images(world)?.contains(&template(name)?) {
            found = Some(name);
            break;
        }
    }
    let name = found.context("no machine was cloned from it")?;
    let written = || docker.ok(&["exec", name, "cat", "/mine", "/kept/mine", "/etc/hostname"]);
    let before = wait_for("what it writes", Duration::from_secs(20), || written().ok())?;
    let lines: Vec<&str> = before.lines().collect();
    ensure!(matches!(&lines[..], [one, two, three] if one == two && two == three), "{before}");
    // A later run has its own disk, and a machine like any other.
    docker.ok(&["restart", "--time", "0", name])?;
    same(of_images(world)?.contains(&template(name)?), false)?;
    same(written()?, before)?;
    for name in names.iter().take_while(|one| *one != name).chain([name]) {
        docker.ok(&["rm", "--force", name])?;
        docker.ok(&["volume", "rm", name])?;
    }
    for name in of_images(world)? {
        cli(world, &["template", "rm", &name])?;
    }
    Ok(())
}
