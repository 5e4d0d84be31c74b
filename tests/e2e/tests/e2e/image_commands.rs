//! What docker's users do with images besides running them.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::harness::Case;
use crate::images;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("images::are_listed_with_their_history", listed_with_history),
    ("images::tag_and_remove", tag_and_remove),
    ("images::save_and_load", save_and_load),
    ("images::import", import),
    ("images::one_in_use_stays", one_in_use_stays),
    ("images::pull_by_digest_and_again", pull_by_digest_and_again),
    ("images::prune_takes_what_nobody_uses", prune),
];

fn listed_with_history(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let list = docker.ok(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}"])?;
    let line =
        list.lines().find(|line| line.starts_with(&world.busybox())).context("busybox is not listed")?;
    ensure!(!line.ends_with(" 0B"), "no size: {line}");
    has(&docker.ok(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", &world.busybox()])?, "step 0")?;
    same(
        docker.ok(&["inspect", "--format", "{{index .Config.Labels \"made-by\"}}", &world.busybox()])?,
        "e2e".to_owned(),
    )
}

fn tag_and_remove(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    docker.ok(&["tag", &world.busybox(), "mine:one"])?;
    let id = |name: &str| docker.ok(&["inspect", "--format", "{{.Id}}", name]);
    same(id("mine:one")?, id(&world.busybox())?)?;
    has(&docker.ok(&["rmi", "mine:one"])?, "Untagged: mine:one")?;
    id(&world.busybox())?;
    has(&docker.fails(&["rmi", "mine:one"])?, "No such image")
}

fn save_and_load(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let other = world.vch("loads", "dev", "acme")?;
    let archive = world.server.dir().join("saved.tar");
    docker.ok(&["save", "--output", &archive.to_string_lossy(), &world.busybox()])?;
    has(&other.ok(&["load", "--input", &archive.to_string_lossy()])?, "Loaded image")?;
    fs::remove_file(&archive)?;
    let id = "{{.Id}}";
    same(
        other.ok(&["inspect", "--format", id, &world.busybox()])?,
        docker.ok(&["inspect", "--format", id, &world.busybox()])?,
    )?;
    let output = other.run(&["run", "--rm", &world.busybox(), "echo", "loaded"])?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "loaded\n")?;
    world.remove_vch("loads")
}

fn import(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let files = world.server.dir().join("import-files");
    fs::create_dir_all(files.join("bin"))?;
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| fs::metadata(path).is_ok());
    fs::copy(busybox.context("no busybox")?, files.join("bin/busybox"))?;
    let archive = world.server.dir().join("import.tar");
    images::tar(&files, &archive)?;
    let mut command = docker.command(&[
        "import",
        "--change",
        "CMD [\"/bin/busybox\", \"echo\", \"imported\"]",
        "-",
        "made:by-import",
    ]);
    let outcome =
        command.stdin(fs::File::open(&archive)?).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    ensure!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    let output = docker.run(&["run", "--rm", "made:by-import"])?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "imported\n")?;
    docker.ok(&["rmi", "made:by-import"])?;
    fs::remove_dir_all(&files)?;
    fs::remove_file(&archive)?;
    Ok(())
}

fn one_in_use_stays(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    docker.ok(&["create", "--name", "holder", &world.busybox(), "true"])?;
    has(&docker.fails(&["rmi", &world.busybox()])?, "(must force) - container ")?;
    docker.ok(&["rm", "holder"]).map(drop)
}

fn pull_by_digest_and_again(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    let digest = docker.ok(&["inspect", "--format", "{{index .RepoDigests 0}}", &world.busybox()])?;
    has(&docker.ok(&["pull", &digest])?, "Digest: sha256:")?;
    has(&docker.ok(&["pull", &world.busybox()])?, "Image is up to date")?;
    let wrong = format!("{}@sha256:{}", world.image("busybox"), "0".repeat(64));
    let refused = docker.fails(&["pull", &wrong])?;
    ensure!(refused.contains("not found") || refused.contains("unknown"), "{refused}");
    Ok(())
}

fn prune(world: &mut World) -> Result<()> {
    let docker = world.vch("prunes", "dev", "acme")?;
    let (busybox, prune) = (world.busybox(), ["image", "prune", "--force"]);
    // All tags there are.
    has(&docker.ok(&["pull", "--all-tags", &world.image("busybox")])?, "Status: Downloaded newer image for")?;
    docker.ok(&["tag", &busybox, "mine:two"])?;
    docker.ok(&["create", "--name", "source", &busybox, "true"])?;
    let nameless = docker.ok(&["commit", "source"])?;
    docker.ok(&["create", "--name", "holder", &nameless, "true"])?;
    docker.ok(&["rm", "source"])?;
    same(docker.ok(&prune)?, "Total reclaimed space: 0B".to_owned())?;
    docker.ok(&["rm", "holder"])?;
    has(&docker.ok(&[&prune[..], &["--filter", "until=1h"]].concat())?, "Total reclaimed space: 0B")?;
    has(&docker.ok(&prune)?, &format!("deleted: {nameless}"))?;
    docker.ok(&["inspect", &busybox])?;
    docker.ok(&["create", "--name", "holder", &busybox, "true"])?;
    same(docker.ok(&[&prune[..], &["--all"]].concat())?, "Total reclaimed space: 0B".to_owned())?;
    docker.ok(&["rm", "holder"])?;
    let pruned = docker.ok(&[&prune[..], &["--all"]].concat())?;
    has(&pruned, "untagged: mine:two")?;
    ensure!(!pruned.contains("space: 0B"), "{pruned}");
    same(docker.ok(&["images", "--quiet"])?, String::new())?;
    has(&docker.fails(&["search", "busybox"])?, "pull them by name")?;
    world.remove_vch("prunes")
}
