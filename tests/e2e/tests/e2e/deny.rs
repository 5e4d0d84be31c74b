//! Refusals explain themselves, at the docker CLI and at the operator's; a policy file changes them without a restart.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::Docker;
use bulkhead_test_support::wait_for;

use crate::harness::Case;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("deny::privileged_in_prod_until_the_policy_changes", privileged_in_prod),
    ("deny::a_wrong_policy_file_is_refused_with_its_place", wrong_policy_file),
    ("deny::prod_wants_a_digest", prod_wants_a_digest),
    ("deny::prod_wants_a_trusted_registry", prod_wants_a_trusted_registry),
    ("deny::prod_judges_by_origin_not_by_name", prod_judges_by_origin),
    ("deny::test_caps_memory", test_caps_memory),
];

/// How late a changed file may be in force. A second is promised; a loaded machine gets some more.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(3);

/// `NAME@sha256:…` of the small image, pulled into the VCH by it.
fn pinned_busybox(world: &World, docker: &Docker) -> Result<String> {
    let pinned = world.dev.ok(&["inspect", "--format", "{{index .RepoDigests 0}}", &world.busybox()])?;
    has(&pinned, "@sha256:")?;
    docker.ok(&["pull", "--quiet", &pinned])?;
    Ok(pinned)
}

/// The decision that a refusal names.
fn decision_id(text: &str) -> Result<String> {
    let (_, rest) = text.split_once("bulkhead decision show ").context(text.to_owned())?;
    let id: String =
        rest.chars().take_while(|&letter| letter.is_ascii_alphanumeric() || "-_".contains(letter)).collect();
    ensure!(!id.is_empty(), "no decision id in: {text}");
    Ok(id)
}

/// The policy file of a class that holds this text.
fn policy_file(world: &World, class: &str, part: &str) -> Result<PathBuf> {
    let folder = world.server.data_dir().join("policies").join(class);
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if fs::read_to_string(&path)?.contains(part) {
            return Ok(path);
        }
    }
    anyhow::bail!("no file in `{}` holds `{part}`", folder.display())
}

fn privileged_in_prod(world: &mut World) -> Result<()> {
    let docker = world.vch("prod-p", "prod", "acme")?;
    let image = pinned_busybox(world, &docker)?;
    let request = ["run", "--rm", "--privileged", image.as_str(), "true"];
    let server = world.server.pid();

    let refused = docker.run(&request)?;
    code(&refused, 125)?;
    has(&refused.stderr, "nothing runs privileged in prod")?;
    has(&refused.stderr, "no-privileged-in-prod")?;
    let story = world.server.bulkhead(&["decision", "show", &decision_id(&refused.stderr)?])?.ok()?;
    for part in [
        "container.create",
        "no-privileged-in-prod",
        "nothing runs privileged in prod",
        "leave out --privileged",
    ] {
        has(&story, part)?;
    }
    same(docker.ok(&["ps", "--all", "--quiet"])?, "")?;

    let file = policy_file(world, "prod", "no-privileged-in-prod")?;
    let before = fs::read_to_string(&file)?;
    let after = before
        .replace("when { resource.privileged }", "when { resource.privileged && !resource.image.pinned }");
    ensure!(before != after, "the policy does not read as expected:\n{before}");
    fs::write(&file, after)?;
    let created = wait_for("the changed policy is in force", IN_FORCE_WITHIN, || {
        docker.ok(&["create", "--privileged", &image, "true"]).ok()
    })?;
    docker.ok(&["rm", &created])?;
    let allowed = docker.run(&request)?;
    code(&allowed, 0)?;
    same(world.server.pid(), server)?;

    docker.ok(&["create", "--rm", "--name", "late", "--privileged", &image, "true"])?;
    fs::write(&file, before)?;
    wait_for("the first policy is in force again", IN_FORCE_WITHIN, || {
        let answer = docker.run(&["create", "--privileged", &image, "true"]).ok()?;
        (!answer.is_ok()).then_some(())
    })?;
    // Whoever waits for its removal, as `docker run --rm` does, would wait for ever if it stayed.
    let refused = docker.run(&["start", "late"])?;
    has(&refused.stderr, "nothing runs privileged in prod")?;
    same(docker.ok(&["ps", "--all", "--quiet", "--filter", "name=late"])?, "")?;
    world.remove_vch("prod-p")
}

fn wrong_policy_file(world: &mut World) -> Result<()> {
    let docker = world.vch("prod-w", "prod", "acme")?;
    let image = pinned_busybox(world, &docker)?;
    let wrong = world.server.data_dir().join("policies/prod/zz-wrong.cedar");
    fs::write(&wrong, "@id(\"wrong\")\npermit (principal, action, resource)\nwhen { resource.nonsense };\n")?;
    let told = wait_for("the server tells what is wrong", IN_FORCE_WITHIN, || {
        world.server.log().lines().find(|line| line.contains("zz-wrong.cedar")).map(str::to_owned)
    })?;
    has(&told, "zz-wrong.cedar:3")?;
    let checked = world.server.bulkhead(&[
        "policy",
        "check",
        &world.server.data_dir().join("policies").to_string_lossy(),
    ])?;
    ensure!(!checked.is_ok(), "`policy check` finds nothing: {checked}");
    has(&format!("{}{}", checked.stdout, checked.stderr), "zz-wrong.cedar:3")?;
    // The set before it is in force: what it allowed is allowed, what it refused is refused.
    let refused = docker.run(&["create", "--privileged", &image, "true"])?;
    has(&refused.stderr, "nothing runs privileged in prod")?;
    docker.ok(&["create", &image, "true"])?;
    fs::remove_file(&wrong)?;
    world.remove_vch("prod-w")
}

fn prod_wants_a_digest(world: &mut World) -> Result<()> {
    let docker = world.vch("prod-d", "prod", "acme")?;
    docker.ok(&["pull", "--quiet", &world.busybox()])?;
    let refused = docker.run(&["run", "--rm", &world.busybox(), "true"])?;
    code(&refused, 125)?;
    has(&refused.stderr, "image-by-digest-in-prod")?;
    let pinned = pinned_busybox(world, &docker)?;
    let output = docker.run(&["run", "--rm", &pinned, "echo", "pinned"])?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "pinned\n")?;
    world.remove_vch("prod-d")
}

fn prod_wants_a_trusted_registry(world: &mut World) -> Result<()> {
    let docker = world.vch("prod-r", "prod", "acme")?;
    let refused = docker.fails(&["pull", "registry.example.com/anything:1"])?;
    has(&refused, "prod pulls only from registries that the operator trusts")?;
    has(&refused, "decision")?;
    world.remove_vch("prod-r")
}

/// Loading an image under a trusted name does not make it trusted.
fn prod_judges_by_origin(world: &mut World) -> Result<()> {
    let docker = world.vch("prod-o", "prod", "acme")?;
    let archive = world.server.dir().join("origin.tar");
    let path = archive.to_string_lossy().into_owned();
    world.dev.ok(&["save", "--output", &path, &world.busybox()])?;
    docker.ok(&["load", "--input", &path])?;
    fs::remove_file(&archive)?;
    // Named by its whole id it is as exact as a digest, so nothing but its origin stands against it.
    let id = docker.ok(&["inspect", "--format", "{{.Id}}", &world.busybox()])?;
    let refused = docker.run(&["run", "--rm", &id, "true"])?;
    code(&refused, 125)?;
    has(&refused.stderr, "was not pulled from a registry that the operator trusts")?;
    world.remove_vch("prod-o")
}

fn test_caps_memory(world: &mut World) -> Result<()> {
    let docker = world.vch("test-m", "test", "acme")?;
    docker.ok(&["pull", "--quiet", &world.busybox()])?;
    let refused = docker.run(&["create", "--memory", "4g", &world.busybox(), "true"])?;
    code(&refused, 1)?;
    has(&refused.stderr, "memory")?;
    has(&refused.stderr, "decision")?;
    docker.ok(&["create", "--memory", "512m", &world.busybox(), "true"])?;
    world.remove_vch("test-m")
}
