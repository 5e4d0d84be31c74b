//! A VCH sees nothing of another one, and its endpoint is for its users.

use anyhow::{Result, ensure};
use bulkhead_test_support::run;

use crate::harness::Case;
use crate::world::{World, has, same};

pub const CASES: &[Case] = &[
    ("isolation::containers_and_images", containers_and_images),
    ("isolation::strangers_are_kept_out", strangers),
    ("isolation::a_machine_has_a_user_of_its_own", users),
];

fn containers_and_images(world: &mut World) -> Result<()> {
    let other = world.vch("tenant-b", "dev", "other")?;
    let id = world.dev.ok(&["run", "--detach", "--name", "secret", &world.busybox(), "sleep", "600"])?;
    same(other.ok(&["ps", "--all", "--quiet"])?, "".to_owned())?;
    same(other.ok(&["images", "--quiet"])?, "".to_owned())?;
    for words in [["inspect", "secret"], ["inspect", id.as_str()], ["logs", id.as_str()], ["rm", id.as_str()]]
    {
        has(&other.fails(&words)?, "No such")?;
    }
    // The same name is free for others.
    other.ok(&["pull", "--quiet", &world.busybox()])?;
    other.ok(&["create", "--name", "secret", &world.busybox(), "true"])?;
    world.dev.ok(&["rm", "--force", "secret"])?;
    world.remove_vch("tenant-b")
}

/// Another local user may neither use the endpoint nor the operator's socket.
fn strangers(world: &mut World) -> Result<()> {
    for socket in [world.server.admin_socket(), world.server.run_dir().join("vch/dev-a/docker.sock")] {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "docker", "--host"]);
        command.arg(format!("unix://{}", socket.display())).arg("info");
        let output = run(&mut command, std::time::Duration::from_secs(30))?;
        ensure!(!output.stdout.contains("Server Version"), "a stranger got through: {output}");
        ensure!(!output.is_ok() || output.stderr.contains("ermission denied"), "{output}");
    }
    Ok(())
}

fn users(world: &mut World) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let before = world.machine_processes()?;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(world.dev.ok(&["run", "--detach", &world.busybox(), "sleep", "600"])?);
    }
    let mut uids = Vec::new();
    for pid in world.machine_processes()?.into_iter().filter(|pid| !before.contains(pid)) {
        uids.push(std::fs::metadata(format!("/proc/{pid}"))?.uid());
    }
    for id in &ids {
        world.dev.ok(&["rm", "--force", id])?;
    }
    uids.sort_unstable();
    uids.dedup();
    ensure!(uids.len() == 2 && !uids.contains(&0), "machines run as {uids:?}");
    Ok(())
}
