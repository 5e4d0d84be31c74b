//! Where an operator named host slices and datastores: machines run on the CPUs, and have their disks in the folders, that a
//! plugin chose. With a server of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::plugins::file;
use bulkhead_test_support::{BackEnd, Docker, Server, ServerOptions};
use serde_json::Value;

use crate::harness::Case;
use crate::world::{World, guest_dir, has, same};

pub const CASES: &[Case] = &[("placement::decides_cpus_and_folders", cpus_and_folders)];

fn config(world: &World, folder: &Path) -> String {
    let (registry, ca) = (world.registry.address(), world.registry.ca_file());
    format!(
        r#"
[registry]
trusted = [{registry:?}]
ca_files = {{ {registry:?} = {ca:?} }}
[network]
uplinks = "198.51.100.0/24"
[qemu]
uid_base = 2100000000
[[host]]
name = "left"
cpus = "0"
[[host]]
name = "right"
cpus = "1"
[[datastore]]
name = "bulk"
path = {:?}
labels = {{ tier = "bulk" }}
[[datastore]]
name = "fast"
path = {:?}
labels = {{ tier = "fast" }}
"#,
        folder.join("bulk"),
        folder.join("fast"),
    )
}

fn cpus_and_folders(world: &mut World) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("bulkhead-places-").tempdir()?;
    for name in ["bulk", "fast"] {
        fs::create_dir(folder.path().join(name))?;
    }
    let config = config(world, folder.path());
    let options = ServerOptions {
        back_end: BackEnd::Qemu,
        guest_dir: Some(guest_dir()?),
        config,
        ..ServerOptions::default()
    };
    let server = Server::start(&options)?;
    for (name, settings) in [("spread", r#"{"apart": ["app"], "strict": true}"#), ("datastore-tiers", "{}")] {
        let component = file(name)?;
        let installed = server.bulkhead(&["plugin", "install", component.to_str().context("a path")?])?;
        has(&installed.ok()?, "sha256:")?;
        server.bulkhead(&["binding", "set", name, "--settings", settings])?.ok()?;
    }
    let docker = server.create_vch("placed", &["--class", "dev", "--tenant", "acme", "--socket-uid", "0"])?;
    world.registry.log_in(&docker)?;
    let image = world.busybox();
    docker.ok(&["pull", "--quiet", &image])?;
    let run = |name: &str, tier: &str| {
        let labels = ["--label", "app=web", "--label", &format!("tier={tier}")].map(str::to_owned);
        let mut args = vec!["run", "--detach", "--network", "none", "--memory", "128m", "--name", name];
        args.extend(labels.iter().map(String::as_str));
        docker.ok(&[args.as_slice(), &[&image, "sleep", "1000"]].concat())
    };
    run("one", "fast")?;
    run("two", "bulk")?;
    let cpus = [
        placed(&server, &docker, folder.path(), "one", "fast")?,
        placed(&server, &docker, folder.path(), "two", "bulk")?,
    ];
    same(BTreeSet::from(cpus), BTreeSet::from(["0".to_owned(), "1".to_owned()]))?;

    // On each slice there is one, and no datastore is of that tier.
    let args = ["create", "--label", "app=web", &image, "true"];
    has(
        &docker.fails(&args)?,
        "0 of 4 candidates: 4 refused by spread: a container with app=web is on the host",
    )?;
    let refused = docker.fails(&["create", "--label", "tier=tape", &image, "true"])?;
    has(&refused, "refused by datastore-tiers: no datastore with tier=tape")?;
    let decision = refused.split("decision show ").nth(1).and_then(|rest| rest.split(')').next());
    let story = server.bulkhead(&["decision", "show", decision.context("no decision")?])?.ok()?;
    has(&story, "  0 of 4 candidates")?;
    has(&story, "it read datastore-free-mib, datastore-label:tier")?;

    docker.ok(&["rm", "--force", "one", "two"])?;
    same(disks(&folder.path().join("fast"))?.len() + disks(&folder.path().join("bulk"))?.len(), 0)
}

/// Looks where a container is; the CPUs that all its machine's threads have.
fn placed(server: &Server, docker: &Docker, folder: &Path, name: &str, tier: &str) -> Result<String> {
    let machine = server.bulkhead(&["machine", "inspect", name, "-o", "json"])?.ok()?;
    let machine: Value = serde_json::from_str(&machine)?;
    let text = |key: &str| machine.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (id, host) = (text("id"), text("host"));
    same(text("datastore"), tier.to_owned())?;
    let format = r#"{{index .HostConfig.Annotations "bulkhead.host"}} {{index .HostConfig.Annotations "bulkhead.datastore"}}"#;
    same(docker.ok(&["inspect", "--format", format, name])?.trim().to_owned(), format!("{host} {tier}"))?;
    let files = disks(&folder.join(tier))?;
    same(files.iter().filter(|file| file.ends_with(&format!("{id}.ext4"))).count(), 1)?;
    let pid = machine.get("pid").and_then(Value::as_u64).context("no process")?;
    // QEMU itself holds the file that is there.
    let held = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let held: Vec<_> = held.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    let below = folder.join(tier).join("disks");
    ensure!(
        held.iter().any(|file| file.starts_with(&below)),
        "{held:?} has nothing below {}",
        below.display()
    );
    let mut cpus = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that ends while it is looked at is none any more.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        cpus.insert(allowed.context("no list of CPUs")?.trim().to_owned());
    }
    let expected = if host == "left" { "0" } else { "1" };
    same(cpus, BTreeSet::from([expected.to_owned()]))?;
    Ok(expected.to_owned())
}

/// Of all VCHs.
fn disks(datastore: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for vch in fs::read_dir(datastore.join("disks"))? {
        for file in fs::read_dir(vch?.path())? {
            found.push(file?.path().display().to_string());
        }
    }
    Ok(found)
}
