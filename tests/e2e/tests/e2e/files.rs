//! A container's files: in, out, what changed, and as an image; while it runs and while it does not.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;
use tempfile::TempDir;

use crate::harness::Case;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("files::in_and_out_of_what_runs", in_and_out_of_what_runs),
    ("files::owners_links_and_streams", owners_links_and_streams),
    ("files::before_the_start_and_after_the_end", before_the_start_and_after_the_end),
    ("files::what_cannot_be", what_cannot_be),
    ("files::export_and_diff", export_and_diff),
    ("files::commit", commit),
];

const FOR_EVER: &str = "while :; do sleep 1; done";

fn in_and_out_of_what_runs(world: &mut World) -> Result<()> {
    let (dev, image, folder) = (&world.dev, world.busybox(), TempDir::new()?);
    let here = |name: &str| folder.path().join(name).display().to_string();
    dev.ok(&["run", "-d", "--name", "full", "--tmpfs", "/scratch", &image, "sh", "-c", FOR_EVER])?;

    fs::create_dir_all(folder.path().join("tree/deep"))?;
    fs::write(folder.path().join("tree/deep/file"), "content")?;
    fs::set_permissions(folder.path().join("tree/deep/file"), fs::Permissions::from_mode(0o751))?;
    symlink("deep/file", folder.path().join("tree/link"))?;
    let large = vec![b'x'; 3_000_000];
    fs::write(folder.path().join("large"), &large)?;

    // A folder into one that is there, under a new name, and its content only.
    dev.ok(&["cp", &here("tree"), "full:/tmp"])?;
    dev.ok(&["cp", &here("tree"), "full:/tmp/named"])?;
    dev.ok(&["cp", &format!("{}/.", here("tree")), "full:/mnt-of-mine"])?;
    dev.ok(&["cp", &here("large"), "full:/scratch/large"])?;
    let script = "cat /tmp/tree/deep/file /tmp/named/link /mnt-of-mine/deep/file; stat -c %a /tmp/tree/deep/file; \
                  readlink /tmp/tree/link; wc -c < /scratch/large";
    let expect = "contentcontentcontent751\ndeep/file\n3000000";
    same(dev.ok(&["exec", "full", "sh", "-c", script])?, expect.to_owned())?;

    // And back, what is in memory too.
    dev.ok(&["cp", "full:/tmp/tree", &here("back")])?;
    same(fs::read_to_string(folder.path().join("back/deep/file"))?, "content".to_owned())?;
    same(fs::metadata(folder.path().join("back/deep/file"))?.mode() & 0o777, 0o751)?;
    same(fs::read_link(folder.path().join("back/link"))?, std::path::PathBuf::from("deep/file"))?;
    dev.ok(&["cp", "full:/scratch/large", &here("again")])?;
    ensure!(fs::read(folder.path().join("again"))? == large, "it came back otherwise");
    // A whole root has more than a window of bytes and things of every kind.
    dev.ok(&["cp", "full:/etc/.", &here("etc")])?;
    ensure!(folder.path().join("etc/hosts").exists(), "/etc came without hosts");
    dev.ok(&["rm", "-f", "full"]).map(drop)
}

fn owners_links_and_streams(world: &mut World) -> Result<()> {
    let (dev, image, folder) = (&world.dev, world.busybox(), TempDir::new()?);
    let here = |name: &str| folder.path().join(name).display().to_string();
    dev.ok(&["run", "-d", "--name", "owned", "-u", "1000:100", &image, "sh", "-c", FOR_EVER])?;
    fs::write(folder.path().join("file"), "x")?;
    std::os::unix::fs::chown(folder.path().join("file"), Some(4321), Some(1234))?;
    dev.ok(&["cp", &here("file"), "owned:/tmp/kept"])?;
    dev.ok(&["cp", "-a", &here("file"), "owned:/tmp/own"])?;
    same(
        dev.ok(&["exec", "owned", "stat", "-c", "%u:%g", "/tmp/kept", "/tmp/own"])?,
        "4321:1234\n1000:100".to_owned(),
    )?;

    // Links lead where they lead inside.
    dev.ok(&[
        "exec",
        "-u",
        "0",
        "owned",
        "sh",
        "-c",
        "mkdir -p /usr; echo deep > /tmp/real; ln -s /tmp/real /tmp/soft; ln -s /tmp /way",
    ])?;
    dev.ok(&["cp", "owned:/tmp/soft", &here("soft")])?;
    same(fs::read_link(folder.path().join("soft"))?, std::path::PathBuf::from("/tmp/real"))?;
    dev.ok(&["cp", "-L", "owned:/tmp/soft", &here("followed")])?;
    same(fs::read_to_string(folder.path().join("followed"))?, "deep\n".to_owned())?;
    dev.ok(&["cp", &here("file"), "owned:/way/through"])?;
    same(dev.ok(&["exec", "owned", "cat", "/tmp/through"])?, "x".to_owned())?;

    // Archives through pipes.
    let archive = dev.command(&["cp", "owned:/tmp/real", "-"]).stderr(Stdio::inherit()).output()?;
    let mut entries = tar::Archive::new(archive.stdout.as_slice());
    let names: Vec<String> =
        entries.entries()?.map(|entry| Ok(entry?.path()?.display().to_string())).collect::<Result<_>>()?;
    same(names, ["real"])?;
    code(&dev.run_with_input(&["cp", "-", "owned:/usr"], archive.stdout)?, 0)?;
    same(dev.ok(&["exec", "owned", "cat", "/usr/real"])?, "deep".to_owned())?;
    dev.ok(&["rm", "-f", "owned"]).map(drop)
}

fn before_the_start_and_after_the_end(world: &mut World) -> Result<()> {
    let (dev, image, folder) = (&world.dev, world.busybox(), TempDir::new()?);
    let here = |name: &str| folder.path().join(name).display().to_string();
    dev.ok(&["create", "--name", "later", &image, "sh", "-c", "cat /config; echo result > /result"])?;
    fs::write(folder.path().join("config"), "set before\n")?;
    dev.ok(&["cp", &here("config"), "later:/config"])?;
    same(dev.ok(&["diff", "later"])?, "A /config".to_owned())?;
    // Its machine is still up, and in the way of nothing.
    let output = dev.run(&["start", "-a", "later"])?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "set before\n")?;
    dev.ok(&["cp", "later:/result", &here("result")])?;
    same(fs::read_to_string(folder.path().join("result"))?, "result\n".to_owned())?;
    same(
        dev.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "later"])?,
        "exited 0".to_owned(),
    )?;
    dev.ok(&["rm", "later"])?;
    bulkhead_test_support::wait_for("its machine is gone", std::time::Duration::from_secs(30), || {
        world.machine_processes().ok().filter(Vec::is_empty)
    })
    .map(drop)
}

fn what_cannot_be(world: &mut World) -> Result<()> {
    let (dev, image, folder) = (&world.dev, world.busybox(), TempDir::new()?);
    let here = |name: &str| folder.path().join(name).display().to_string();
    fs::write(folder.path().join("file"), "x")?;
    fs::create_dir(folder.path().join("folder"))?;
    dev.ok(&["run", "-d", "--name", "firm", "--read-only", &image, "sh", "-c", FOR_EVER])?;
    has(&dev.fails(&["cp", "firm:/nope", &here("x")])?, "Could not find the file /nope in container firm")?;
    has(
        &dev.fails(&["cp", &here("file"), "firm:/nope/x"])?,
        "Could not find the file /nope in container firm",
    )?;
    has(&dev.fails(&["cp", &here("file"), "firm:/tmp/x"])?, "container rootfs is marked read-only")?;
    has(&dev.fails(&["cp", &here("folder"), "firm:/etc/passwd"])?, "cannot copy directory")?;
    has(&dev.fails(&["cp", "nobody:/x", &here("x")])?, "No such container: nobody")?;
    dev.ok(&["rm", "-f", "firm"]).map(drop)
}

fn export_and_diff(world: &mut World) -> Result<()> {
    let (dev, image, folder) = (&world.dev, world.busybox(), TempDir::new()?);
    let script = "mkdir /made; echo x > /made/file; rm /etc/passwd; echo y >> /etc/group; mkdir /scratch/z; echo ready; \
                  while :; do sleep 1; done";
    dev.ok(&["run", "-d", "--name", "odd", "--tmpfs", "/scratch", &image, "sh", "-c", script])?;
    bulkhead_test_support::wait_for("it is ready", std::time::Duration::from_secs(60), || {
        dev.ok(&["logs", "odd"]).ok().filter(|text| text.contains("ready"))
    })?;
    let check = || -> Result<()> {
        let diff = dev.ok(&["diff", "odd"])?;
        let mut lines: Vec<&str> = diff.lines().collect();
        lines.sort_unstable();
        same(lines, ["A /made", "A /made/file", "C /etc", "C /etc/group", "D /etc/passwd"])
    };
    check()?;
    let path = folder.path().join("root.tar").display().to_string();
    dev.ok(&["export", "-o", &path, "odd"])?;
    let mut archive = tar::Archive::new(fs::File::open(&path)?);
    let names: Vec<String> =
        archive.entries()?.map(|entry| Ok(entry?.path()?.display().to_string())).collect::<Result<_>>()?;
    let holds = |name: &str| names.iter().any(|found| found.trim_end_matches('/') == name);
    ensure!(holds("made/file") && holds("bin/sh") && holds("proc"), "{names:?}");
    ensure!(!holds("scratch/z") && !holds("proc/1") && !holds("etc/passwd"), "{names:?}");

    dev.ok(&["kill", "odd"])?;
    check()?;
    let events = dev.ok(&[
        "events",
        "--since",
        "5m",
        "--until=-2s",
        "--filter",
        "container=odd",
        "--format",
        "{{.Action}}",
    ])?;
    has(&events, "export")?;
    dev.ok(&["rm", "odd"]).map(drop)
}

fn commit(world: &mut World) -> Result<()> {
    let (dev, image) = (&world.dev, world.busybox());
    let script = "mkdir /made; echo kept > /made/file; rm /etc/passwd; ln /made/file /made/again; chmod 4711 /made/file; echo ready; \
                  while :; do sleep 1; done";
    dev.ok(&["run", "-d", "--name", "base", "-e", "A=1", &image, "sh", "-c", script])?;
    bulkhead_test_support::wait_for("it is ready", std::time::Duration::from_secs(60), || {
        dev.ok(&["logs", "base"]).ok().filter(|text| text.contains("ready"))
    })?;
    let run = "cat /made/again; stat -c %a:%h /made/file; ls /etc/passwd; echo $A $B";
    let args = [
        "commit",
        "-m",
        "why",
        "-a",
        "me",
        "-c",
        "ENV B=2",
        "-c",
        &format!("CMD [\"sh\",\"-c\",\"{run}\"]"),
        "base",
        "made:v1",
    ];
    let id = dev.ok(&args)?;
    has(&id, "sha256:")?;
    // It went on.
    dev.ok(&["exec", "base", "true"])?;
    let output = dev.run(&["run", "--rm", "made:v1"])?;
    same(output.stdout.as_str(), "kept\n4711:2\n1 2\n")?;
    has(&output.stderr, "passwd")?;
    let history = dev.ok(&["history", "--format", "{{.Comment}}", "made:v1"])?;
    same(history.lines().next().context("no history")?, "why")?;

    // Stopped, and on top of that again.
    dev.ok(&["rm", "-f", "base"])?;
    dev.ok(&[
        "run",
        "--name",
        "base",
        "made:v1",
        "sh",
        "-c",
        "rm -r /made; mkdir /made; echo new > /made/new",
    ])?;
    dev.ok(&["commit", "base", "made:v2"])?;
    same(dev.ok(&["run", "--rm", "made:v2", "ls", "/made"])?, "new".to_owned())?;
    has(&dev.fails(&["commit", "-c", "RUN x", "base", "made:v3"])?, "RUN")?;
    dev.ok(&["rm", "base"])?;
    dev.ok(&["rmi", "made:v1", "made:v2"]).map(drop)
}
