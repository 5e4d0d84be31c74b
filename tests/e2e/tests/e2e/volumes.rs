//! Volumes: what is in them outlives containers, machines and servers, and nobody gets more of them than was given.

use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

use crate::harness::Case;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("volumes::filled_from_the_image_and_kept", filled_and_kept),
    ("volumes::read_only_and_in_one_machine", read_only_and_in_one_machine),
    ("volumes::survive_kill_9_of_machine_and_server", survive_kill_9),
    ("volumes::in_stores", in_stores),
    ("volumes::a_removal_loses_nothing_and_waits_for_no_copy", removals),
];

const FOR_EVER: &str = "while :; do sleep 1; done";

/// `docker run --rm ARGS IMAGE sh -c SCRIPT`, which must succeed; what it printed.
fn run(world: &World, args: &[&str], image: &str, script: &str) -> Result<String> {
    world.dev.ok(&[&["run", "--rm"], args, &[image, "sh", "-c", script]].concat())
}

fn filled_and_kept(world: &mut World) -> Result<()> {
    let dev = &world.dev;
    let script = "mkdir -p /srv/data/deep; echo from the image > /srv/data/deep/file; ln -s deep/file /srv/data/link; \
                  chown -R 1000:100 /srv/data; chmod 2750 /srv/data; chmod 640 /srv/data/deep/file";
    dev.ok(&["run", "--name", "base", &world.busybox(), "sh", "-c", script])?;
    dev.ok(&["commit", "-c", "VOLUME /srv/data", "base", "owned:v1"])?;
    dev.ok(&["rm", "base"])?;

    // The image's own volume, a named one in another place, and one at a place of the image that is to stay empty.
    dev.ok(&["volume", "create", "-o", "size=32m", "keep"])?;
    let look = "cd /srv/data; stat -c '%u:%g %a' . deep/file; cat link; ls -A /keep; ls -A /etc; \
                df -k /keep | tail -n1 | { read d size r; test $size -gt 20000 -a $size -lt 33000 && echo small; }; \
                echo kept > /keep/one; mkdir /keep/sub; echo below > /keep/sub/two; echo x > /srv/data/mine";
    let mounts =
        ["--name", "first", "-v", "keep:/keep", "--mount", "type=volume,src=bare,dst=/etc,volume-nocopy"];
    let said = dev.run(&[&["run"], &mounts[..], &["owned:v1", "sh", "-c", look]].concat())?;
    code(&said, 0)?;
    // Of /etc there is only what each container gets.
    same(
        said.stdout.as_str(),
        "1000:100 2750\n1000:100 640\nfrom the image\nhostname\nhosts\nresolv.conf\nsmall\n",
    )?;
    let diff = dev.ok(&["diff", "first"])?;
    ensure!(!diff.contains("mine") && !diff.contains("one"), "{diff}");
    same(dev.ok(&["volume", "ls", "-q"])?.lines().count(), 3)?;
    dev.ok(&["rm", "-v", "first"])?;
    same(dev.ok(&["volume", "ls", "-q"])?, "bare\nkeep".to_owned())?;

    // Another container finds it, under the image's files and above them; larger than before.
    dev.ok(&["volume", "create", "-o", "size=64m", "keep"])?;
    let look = "cat /srv/data/one /sub/two; ls -A /srv/data; df -k /srv/data | tail -n1 | { read d size r; test $size -gt 45000 && echo large; }";
    let mounts = ["-v", "keep:/srv/data", "--mount", "type=volume,src=keep,dst=/sub,volume-subpath=sub"];
    same(run(world, &mounts, "owned:v1", look)?, "kept\nbelow\none\nsub\nlarge".to_owned())?;
    dev.ok(&["volume", "rm", "keep", "bare"])?;
    dev.ok(&["rmi", "owned:v1"]).map(drop)
}

fn read_only_and_in_one_machine(world: &mut World) -> Result<()> {
    let (dev, image, folder) = (&world.dev, world.busybox(), TempDir::new()?);
    let here = |name: &str| folder.path().join(name).display().to_string();
    // Filled though it is only read; even the machine's root cannot write it.
    dev.ok(&[
        "run",
        "-d",
        "--privileged",
        "--name",
        "reader",
        "-v",
        "conf:/bin:ro",
        "-v",
        "data:/d",
        &image,
        "sh",
        "-c",
        FOR_EVER,
    ])?;
    let attempt = "touch /bin/no; mount -o remount,rw /bin; touch /bin/no; disk=$(grep ' /bin ' /proc/mounts | cut -d' ' -f1); \
                   echo x | dd of=$disk bs=1 conv=notrunc; test -e /bin/no && echo written; echo done > /d/file; sync";
    let said = dev.run(&["exec", "reader", "sh", "-c", attempt])?;
    code(&said, 0)?;
    same(said.stdout.as_str(), "")?;
    has(&said.stderr, "Read-only file system")?;
    fs::write(folder.path().join("file"), "in")?;
    has(&dev.fails(&["cp", &here("file"), "reader:/bin/file"])?, "mounted volume is marked read-only")?;

    let held = dev.run(&["run", "--rm", "-v", "data:/e", &image, "true"])?;
    code(&held, 125)?;
    has(&held.stderr, "volume data is in use by container")?;
    // Who only reads shares with others who do.
    same(run(world, &["-v", "conf:/c:ro"], &image, "ls /c/sh")?, "/c/sh".to_owned())?;
    // Made larger while it is in use.
    dev.ok(&["volume", "create", "-o", "size=20g", "data"])?;
    let blocks = dev.ok(&["exec", "reader", "stat", "-f", "-c", "%b", "/d"])?;
    ensure!(blocks.parse::<u64>()? > 18 << 18, "it has {blocks} blocks of 4096 bytes");
    dev.ok(&["kill", "reader"])?;

    // A stopped container holds nothing, and docker cp finds its volumes.
    same(run(world, &["-v", "data:/e"], &image, "cat /e/file; echo more > /e/more")?, "done".to_owned())?;
    dev.ok(&["cp", "reader:/d/more", &here("more")])?;
    same(fs::read_to_string(folder.path().join("more"))?, "more\n".to_owned())?;
    dev.ok(&["cp", &here("file"), "reader:/d/in"])?;
    has(&dev.fails(&["cp", &here("file"), "reader:/bin/file"])?, "mounted volume is marked read-only")?;
    dev.ok(&["rm", "reader"])?;
    same(run(world, &["-v", "data:/e"], &image, "cat /e/in")?, "in".to_owned())?;
    dev.ok(&["volume", "rm", "data", "conf"]).map(drop)
}

fn survive_kill_9(world: &mut World) -> Result<()> {
    let image = world.busybox();
    let script = "n=0; while :; do n=$((n+1)); echo $n > /d/new; sync; mv /d/new /d/last; sync; echo $n; sleep 0.2; done";
    world.dev.ok(&["run", "-d", "--name", "writer", "-v", "data:/d", &image, "sh", "-c", script])?;
    let told = |world: &World| -> Result<u32> {
        Ok(world.dev.ok(&["logs", "--tail", "1", "writer"])?.trim().parse()?)
    };
    bulkhead_test_support::wait_for("it writes", Duration::from_secs(60), || {
        told(world).ok().filter(|n| *n >= 3)
    })?;
    let pid = world.machine_process("writer")?;
    world.server.kill_9()?;
    ensure!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status()?.success(), "kill");
    world.server.restart()?;
    // It is told as over, with whatever code.
    world.dev.ok(&["wait", "writer"])?;
    let committed = told(world)?;
    // All that was said to be on the disk is on it; it was read-only for nobody, so its journal is replayed first.
    let found = run(world, &["-v", "data:/d:ro"], &image, "cat /d/last")?;
    let found: u32 = found.parse()?;
    ensure!(found >= committed && found <= committed + 1, "{committed} was written, {found} is there");
    world.dev.ok(&["rm", "-f", "writer"])?;
    world.dev.ok(&["volume", "rm", "data"]).map(drop)
}

fn in_stores(world: &mut World) -> Result<()> {
    let (dev, image, folder) = (&world.dev, world.busybox(), TempDir::new()?);
    let update = |words: &[&str]| world.server.bulkhead(&[&["vch", "update", "dev-a"], words].concat());
    let place = format!("fast={},size=1g", folder.path().display());
    update(&["--volume-store", &place])?.ok()?;
    let wrong = update(&["--volume-store", "slow=/nowhere"])?;
    ensure!(wrong.code == Some(2) && wrong.stderr.contains("`/nowhere`: No such file"), "{wrong}");
    let ours = fs::read_dir(folder.path())?.next().context("nothing was made ready")??.path();
    let disks = || -> Result<usize> { Ok(fs::read_dir(&ours)?.count()) };

    dev.ok(&["volume", "create", "-o", "VolumeStore=fast", "-o", "Capacity=64", "data"])?;
    let status = "{{.Status.VolumeStore}} {{.Status.SizeBytes}}";
    same(dev.ok(&["volume", "inspect", "-f", status, "data"])?, "fast 67108864".to_owned())?;
    same(
        run(world, &["-v", "data:/d"], &image, "echo here > /d/file; sync; cat /d/file")?,
        "here".to_owned(),
    )?;
    let mount = "type=volume,src=more,dst=/d,volume-opt=VolumeStore=fast,volume-opt=size=64m";
    run(world, &["--mount", mount], &image, "touch /d/x")?;
    same(disks()?, 2)?;
    has(&dev.ok(&["info"])?, "Volume store fast: 2 volumes of 128MiB, at most 1GiB")?;
    let create = |words: &[&str]| dev.fails(&[&["volume", "create"], words, &["other"]].concat());
    has(&create(&["-o", "VolumeStore=slow"])?, "this VCH has the volume stores default, fast")?;
    has(
        &create(&["-o", "VolumeStore=fast", "-o", "size=1g"])?,
        "volumes in store fast have 134217728 bytes",
    )?;
    same(disks()?, 2)?;

    // While what it lies on is not mounted, nothing is taken for gone and nothing is made in its stead.
    let away = folder.path().join("away");
    fs::rename(&ours, &away)?;
    let started = dev.run(&["run", "--rm", "-v", "data:/d", &image, "true"])?;
    ensure!(started.code != Some(0) && started.stderr.contains("is what it lies on mounted?"), "{started}");
    has(&create(&["-o", "VolumeStore=fast"])?, "is what it lies on mounted?")?;
    has(&dev.fails(&["volume", "rm", "data"])?, "is what it lies on mounted?")?;
    let df = dev.ok(&["system", "df", "-v"])?;
    // The CLI's words for a size that is not known, before and now.
    ensure!(df.contains("-1B") || df.contains("N/A"), "{df}");
    fs::rename(&away, &ours)?;
    same(run(world, &["-v", "data:/d"], &image, "cat /d/file")?, "here".to_owned())?;

    let kept = update(&["--volume-store-rm", "fast"])?;
    ensure!(kept.code == Some(5) && kept.stderr.contains("volume store fast has 2 volumes"), "{kept}");
    dev.ok(&["volume", "rm", "data", "more"])?;
    update(&["--volume-store-rm", "fast"])?.ok()?;
    same(fs::read_dir(folder.path())?.count(), 0)
}

fn removals(world: &mut World) -> Result<()> {
    let (dev, debian) = (&world.dev, world.image("debian:12"));
    // Nothing of it is on the disk yet when its machine stands still.
    let write = "echo unwritten > /d/file; while :; do sleep 1; done";
    dev.ok(&["run", "-d", "--name", "still", "-v", "late:/d", &debian, "sh", "-c", write])?;
    bulkhead_test_support::wait_for("it has written", Duration::from_secs(60), || {
        dev.run(&["exec", "still", "cat", "/d/file"]).ok().filter(|said| said.code == Some(0))
    })?;
    dev.ok(&["pause", "still"])?;
    dev.ok(&["rm", "-f", "still"])?;
    same(run(world, &["-v", "late:/d"], &debian, "cat /d/file")?, "unwritten".to_owned())?;
    dev.ok(&["volume", "rm", "late"])?;

    // A large folder on its way into a volume.
    dev.ok(&["volume", "create", "usr"])?;
    let mut starts = dev
        .command(&["run", "--name", "filled", "-v", "usr:/usr", &debian, "true"])
        .stderr(std::process::Stdio::null())
        .spawn()?;
    bulkhead_test_support::wait_for("it is filled", Duration::from_secs(120), || {
        let lines = dev.ok(&["system", "df", "--format", "{{.Type}} {{.Size}}"]).ok()?;
        let used = lines.lines().find_map(|line| line.strip_prefix("Local Volumes "))?;
        (used.strip_suffix("MB")?.parse::<f64>().ok()? > 8.0).then_some(())
    })?;
    dev.ok(&["rm", "-f", "filled"])?;
    ensure!(starts.wait()?.code() != Some(0), "it was filled before it was removed: a larger one is needed");
    // Half of it would be too little.
    let count = "find /usr | wc -l";
    same(run(world, &["-v", "usr:/usr"], &debian, count)?, run(world, &[], &debian, count)?)?;
    dev.ok(&["volume", "rm", "usr"]).map(drop)
}
