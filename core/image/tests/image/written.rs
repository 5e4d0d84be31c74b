//! What the writer writes, looked at with tools that are not ours.

use crate::disks::{convert, extract, fsck, look, restore};
use crate::tars::{RawHeader, RawTar, gzip, zstd};
use bulkhead_model::Digest;
use std::path::Path;
use std::process::Command;

fn run(program: &str, arguments: &[&str], folder: &Path) -> Vec<u8> {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Where `dump.erofs` says that the inode is; `i_mode` is at its offset 4, `meta_blkaddr` at 1024 + 40.
fn mode_in_inode(disk: &Path, path: &Path) -> u32 {
    let argument = format!("--path=/{}", path.display());
    let text = run("dump.erofs", &[&argument, disk.to_str().unwrap()], Path::new("/"));
    let text = String::from_utf8_lossy(&text).into_owned();
    let nid: usize = text.split("NID: ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let bytes = std::fs::read(disk).unwrap();
    let meta = u32::from_le_bytes(bytes[1064..1068].try_into().unwrap()) as usize * 4096;
    let at = meta + nid * 32 + 4;
    u32::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())) & 0o7777
}

/// A folder with one of everything, made with the shell, archived with GNU tar in that format.
fn everything(format: &str) -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let long = "n".repeat(200);
    let script = format!(
        r#"
        umask 022
        mkdir -p etc usr/bin deep/a/b/c/d empty sticky "{long}"
        chmod 1777 sticky
        echo root > etc/passwd; chmod 600 etc/passwd
        head -c 4096 /dev/urandom > block; head -c 4097 /dev/urandom > block1; head -c 3000000 /dev/urandom > big; : > nothing
        cp /bin/true usr/bin/su; chmod 4755 usr/bin/su; ln usr/bin/su usr/bin/su2
        ln -s su usr/bin/link; ln -s /{long} absolute; ln -s {long}/{long}/{long} long-link
        mknod null c 1 3; mknod disk b 259 70000; mkfifo fifo
        chown 1000:70000 etc/passwd; chown -h 12:34 usr/bin/link
        truncate -s 5M sparse; echo middle | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
        echo tail >> sparse
        echo x > "{long}/name with spaces and ü"
        setfattr -n user.colour -v blue etc/passwd 2>/dev/null || true
        for i in $(seq 1 700); do echo $i > deep/a/file-with-a-fairly-long-name-$i; done
        touch -d '2001-02-03 04:05:06.123456789 UTC' etc/passwd usr/bin/link -h
        touch -d '1969-12-31 23:59:58.5 UTC' block
        "#
    );
    run("sh", &["-ec", &script], folder.path());
    let archive = run("tar", &["--format", format, "--sparse", "--sort=name", "-c", "."], folder.path());
    (folder, archive)
}

#[tokio::test]
async fn everything_that_gnu_tar_writes_comes_out_as_it_went_in() {
    for format in ["posix", "gnu"] {
        let (_source, archive) = everything(format);
        let (layer, disk) = convert(&archive).await.unwrap();
        assert_eq!(layer.diff_id, Digest::of(&archive), "{format}");
        assert_eq!(layer.archive_bytes, archive.len() as u64);
        assert_eq!(layer.disk_bytes, disk.as_file().metadata().unwrap().len());
        fsck(disk.path());
        let ours = extract(disk.path());
        let theirs = tempfile::tempdir().unwrap();
        let path = theirs.path().join("archive");
        std::fs::write(&path, &archive).unwrap();
        let tree = theirs.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        run("tar", &["-xpf", path.to_str().unwrap(), "--same-owner"], &tree);
        let (ours, mut theirs) = (look(ours.path()), look(&tree));
        for (path, expected) in &mut theirs {
            // `fsck.erofs` changes owners after modes, which loses setuid and setgid: looked up in the inode.
            if expected.kind == "file" && expected.mode & 0o6000 != 0 {
                assert_eq!(mode_in_inode(disk.path(), path), expected.mode, "{}", path.display());
                expected.mode &= 0o1777;
            }
            let expected = &*expected;
            assert_eq!(ours.get(path), Some(expected), "{format}: {}", path.display());
        }
        assert_eq!(ours.len(), theirs.len(), "{format}");
        assert_eq!(restore(&disk).await, archive, "{format}: the archive comes back byte for byte");
    }
}

#[tokio::test]
async fn compressed_archives_give_the_same_disk() {
    let (_source, archive) = everything("posix");
    let (plain, disk) = convert(&archive).await.unwrap();
    let disk = std::fs::read(disk.path()).unwrap();
    let (head, tail) = archive.split_at(100_000);
    let members = [gzip(head), gzip(tail)].concat();
    let frames = [zstd(head), zstd(tail)].concat();
    for compressed in [gzip(&archive), members, zstd(&archive), frames] {
        let (layer, other) = convert(&compressed).await.unwrap();
        assert_eq!(layer, plain);
        assert!(std::fs::read(other.path()).unwrap() == disk);
    }
}

#[tokio::test]
async fn whiteouts_become_what_overlayfs_knows() {
    let archive = RawTar::default()
        .dir("a/")
        .file("a/.wh.gone", b"")
        .dir("b/")
        .file("b/.wh..wh..opq", b"")
        .file("b/new", b"1")
        // Hidden and brought by the same layer: a file stays, a directory hides the old one's entries.
        .file(".wh.kept", b"")
        .file("kept", b"2")
        .file(".wh.both", b"")
        .dir("both/")
        .file(".wh..wh.plnk/123", b"aufs")
        .end();
    let (_, disk) = convert(&archive).await.unwrap();
    fsck(disk.path());
    let tree = extract(disk.path());
    let seen = look(tree.path());
    assert_eq!((seen[Path::new("a/gone")].kind, seen[Path::new("a/gone")].device), ("char", 0));
    assert_eq!(seen[Path::new("kept")].kind, "file");
    assert_eq!(seen[Path::new("both")].kind, "directory");
    assert!(!seen.keys().any(|path| path.to_string_lossy().contains(".wh.")), "{:?}", seen.keys());
    let bytes = std::fs::read(disk.path()).unwrap();
    // Length of the name, `trusted.`, length of the value; then name and value.
    let attribute = b"\x0e\x04\x01\x00overlay.opaquey";
    let opaque = bytes.windows(attribute.len()).filter(|part| part == attribute).count();
    assert_eq!(opaque, 2, "`b` and `both`");
    assert_eq!(restore(&disk).await, archive);
}

#[tokio::test]
async fn the_last_of_two_entries_wins_and_the_archive_still_comes_back() {
    let archive = RawTar::default()
        .file("x", b"first")
        .file("x", b"second")
        .file("was-dir/inside", b"lost")
        .file("was-dir", b"now a file")
        .file("dir/kept", b"kept")
        .raw(RawHeader { kind: b'5', name: b"dir".to_vec(), mode: 0o700, ..Default::default() }, &[])
        .end();
    let (layer, disk) = convert(&archive).await.unwrap();
    fsck(disk.path());
    let tree = extract(disk.path());
    assert_eq!(std::fs::read(tree.path().join("x")).unwrap(), b"second");
    assert_eq!(std::fs::read(tree.path().join("was-dir")).unwrap(), b"now a file");
    assert_eq!(std::fs::read(tree.path().join("dir/kept")).unwrap(), b"kept");
    assert_eq!(look(tree.path())[Path::new("dir")].mode, 0o700);
    assert_eq!(layer.size_bytes, 6 + 10 + 4);
    assert_eq!(restore(&disk).await, archive);
}
