//! `bulkhead debug fsck`: nothing is left by all the cases before, and what is left on purpose is found.

use anyhow::{Context as _, Result, ensure};

use crate::harness::Case;
use crate::network::{ip, namespace};
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[("fsck::everything_belongs_to_somebody", everything)];

fn everything(world: &mut World) -> Result<()> {
    let clean = world.server.bulkhead(&["debug", "fsck"])?;
    ensure!(clean.code == Some(0), "left by the cases before: {clean}");

    let namespace = namespace(world, "dev-a")?;
    ip(&["-n", &namespace, "link", "add", "b0123456789ab", "type", "bridge"])?;
    let vchs = world.server.dir().join("data/vchs");
    let vch =
        std::fs::read_dir(&vchs).with_context(|| vchs.display().to_string())?.next().context("no VCH")??;
    let disk = vch.path().join("volumes/00000000-0000-0000-0000-000000000007.ext4");
    std::fs::create_dir_all(disk.parent().context("a folder")?)?;
    std::fs::write(&disk, "")?;
    let found = world.server.bulkhead(&["debug", "fsck"])?;
    std::fs::remove_file(&disk)?;
    ip(&["-n", &namespace, "link", "delete", "b0123456789ab"])?;
    code(&found, 1)?;
    for part in ["bridge", "0123456789ab", "volume", "00000000-0000-0000-0000-000000000007"] {
        has(&found.stdout, part)?;
    }
    same(found.stdout.lines().count(), 3)?;
    code(&world.server.bulkhead(&["debug", "fsck"])?, 0)
}
