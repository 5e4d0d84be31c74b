//! A real tree, of this machine, in an image that a registry serves.

use crate::disks::{Disks, converter, extract, fsck, look};
use crate::pulls::{Told, pull_it};
use crate::tars::{gzip, zstd};
use bulkhead_image::convert::{ConvertSpec, chunks};
use bulkhead_test_support::images::TestImage;
use bulkhead_test_support::registry::Registry;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

#[tokio::test]
async fn a_real_tree_comes_out_as_tar_unpacks_it() {
    let folders = ["usr/sbin", "etc", "usr/lib/x86_64-linux-gnu/perl-base"];
    let packed = Command::new("tar").args(["-C", "/", "-c"]).args(folders).output().unwrap();
    let archive = packed.stdout;
    assert!(archive.len() > 10_000_000);
    let registry = Registry::start().unwrap();
    registry.push("machine:1", &TestImage::new(vec![archive.clone()])).unwrap();
    let disks = Disks::new();
    let fetched = pull_it(&registry, "machine:1", &disks, &Told::default()).await.unwrap();
    let disk = disks.path(&fetched.config.diff_ids[0]);
    fsck(&disk);
    let folder = tempfile::tempdir().unwrap();
    let (path, tree) = (folder.path().join("archive"), folder.path().join("tree"));
    std::fs::write(&path, &archive).unwrap();
    std::fs::create_dir(&tree).unwrap();
    assert!(Command::new("tar").arg("-xpf").arg(&path).arg("-C").arg(&tree).status().unwrap().success());
    let (mut ours, mut theirs) = (look(extract(&disk).path()), look(&tree));
    for (path, seen) in ours.iter_mut().chain(&mut theirs) {
        // `fsck.erofs` loses setuid and setgid, which are looked at elsewhere.
        seen.mode &= 0o1777;
        if folders
            .iter()
            .any(|folder| Path::new(folder).parent().is_some_and(|parent| parent.starts_with(path)))
        {
            // Missing parents: made by each in its own time.
            seen.mtime = (0, 0);
        }
    }
    assert_eq!(ours.len(), theirs.len());
    for (path, expected) in &theirs {
        assert_eq!(ours.get(path), Some(expected), "{}", path.display());
    }
    throughput(&archive).await;
}

/// Prints how fast a layer is converted; seen with `--nocapture`.
async fn throughput(archive: &[u8]) {
    let megabytes = archive.len() as f64 / 1e6;
    for (name, packed) in [("bare", archive.to_vec()), ("gzip", gzip(archive)), ("zstd", zstd(archive))] {
        let disk = tempfile::tempfile().unwrap();
        let started = Instant::now();
        converter().convert(&ConvertSpec::default(), chunks(packed.as_slice()), disk, |_| {}).await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        println!("{name}: {megabytes:.0} MB in {seconds:.2} s, {:.0} MB/s", megabytes / seconds);
    }
}
