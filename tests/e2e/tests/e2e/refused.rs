//! What is not there yet is refused by name; nothing is silently accepted.

use anyhow::{Result, ensure};

use crate::harness::Case;
use crate::world::{World, has};

pub const CASES: &[Case] = &[
    ("refused::binds", |world| by_name(world, &["--volume", "/srv:/data"], "Binds (-v)")),
    ("refused::bind_mounts", |world| {
        by_name(world, &["--mount", "type=bind,source=/srv,destination=/x"], "--mount type=bind")
    }),
    ("refused::network_of_another", |world| {
        by_name(world, &["--network", "container:x"], "put both on a user-defined network")
    }),
    ("refused::processes_of_another", |world| by_name(world, &["--pid", "container:x"], "PidMode")),
    ("refused::profiles", |world| by_name(world, &["--security-opt", "apparmor=mine"], "apparmor=mine")),
];

/// A create with this option fails, names it, and leaves nothing.
fn by_name(world: &mut World, option: &[&str], word: &str) -> Result<()> {
    let docker = &world.dev;
    let count = || docker.ok(&["ps", "--all", "--quiet"]);
    let before = count()?;
    let image = world.busybox();
    let refused = docker.fails(&[&["create"], option, &[image.as_str(), "true"]].concat())?;
    has(&refused, word)?;
    has(&refused, "bulkhead: ")?;
    ensure!(count()? == before, "a container is left");
    Ok(())
}
