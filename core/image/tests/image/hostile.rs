//! Archives that strangers could send, and what becomes of each: refused with a reason, or harmless.

use crate::disks::{convert, convert_with, extract, fsck, look};
use crate::tars::{RawHeader, RawTar, gzip, gzip_hard, record, seal, zstd};
use bulkhead_image::convert::{ConvertSpec, Converter};
use bulkhead_image::{ImageError, LayerLimits};
use bytes::Bytes;
use std::path::Path;

enum Outcome {
    /// With these words in the error.
    Refused(&'static str),
    /// The disk is clean and has these.
    Harmless(&'static [(&'static str, &'static str)]),
}
use Outcome::{Harmless, Refused};

fn raw(kind: u8, name: &[u8], size: u64) -> RawHeader {
    RawHeader { kind, name: name.to_vec(), size, ..Default::default() }
}

fn tar() -> RawTar {
    RawTar::default()
}

/// One file whose header was changed after it was made.
fn patched(patch: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut bytes = tar().file("x", b"content").end();
    let mut block: [u8; 512] = bytes[..512].try_into().unwrap();
    patch(&mut block);
    seal(&mut block);
    bytes[..512].copy_from_slice(&block);
    bytes
}

fn names() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let long_part = "n".repeat(256);
    let long_path = "p/".repeat(2049);
    let deep_path = format!("{}end", "d/".repeat(300));
    vec![
        ("dots in a name", tar().file("../evil", b"").end(), Refused("contains `..`")),
        ("dots within a name", tar().file("a/../../evil", b"").end(), Refused("contains `..`")),
        ("absolute name", tar().file("/etc/evil", b"").end(), Harmless(&[("etc/evil", "file")])),
        ("dot and doubled slash", tar().file("./a//./b", b"").end(), Harmless(&[("a/b", "file")])),
        ("the root as a file", tar().file("./", b"").entry(b'2', "./", "/etc").end(), Refused("root")),
        (
            "a part too long",
            tar().pax(b'x', &[("path", long_part.as_bytes())]).file("x", b"").end(),
            Refused("limit of 255"),
        ),
        (
            "a name too long",
            tar().pax(b'x', &[("path", long_path.as_bytes())]).file("x", b"").end(),
            Refused("limit of 4096"),
        ),
        (
            "a deep name",
            tar().pax(b'x', &[("path", deep_path.as_bytes())]).file("x", b"").end(),
            Harmless(&[("d/d/d/d", "directory")]),
        ),
        (
            "a zero byte in a name",
            tar().pax(b'x', &[("path", b"a\0b")]).file("x", b"").end(),
            Refused("zero byte"),
        ),
        ("a name that is no UTF-8", tar().raw(raw(b'0', b"\xff\xfe", 0), b"").end(), Harmless(&[])),
    ]
}

fn links() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let chain = (0..50).fold(tar(), |tar, n| tar.entry(b'2', &format!("l{n}"), &format!("l{}", n + 1)));
    vec![
        ("hard link out", tar().entry(b'1', "x", "../../etc/passwd").end(), Refused("contains `..`")),
        (
            "hard link to an absolute name",
            tar().entry(b'1', "x", "/etc/passwd").end(),
            Refused("not a file of this layer"),
        ),
        ("hard link to itself", tar().entry(b'1', "x", "x").end(), Refused("not a file of this layer")),
        (
            "hard link loop",
            tar().entry(b'1', "a", "b").entry(b'1', "b", "a").end(),
            Refused("not a file of this layer"),
        ),
        (
            "hard link to a directory",
            tar().dir("d/").entry(b'1', "x", "d").end(),
            Refused("not a file of this layer"),
        ),
        (
            "hard link to a whiteout",
            tar().file(".wh.x", b"").entry(b'1', "y", "x").end(),
            Refused("not a file of this layer"),
        ),
        (
            "hard link through a symlink",
            tar().entry(b'2', "l", "/").file("f", b"").entry(b'1', "x", "l/f").end(),
            Harmless(&[("x", "file")]),
        ),
        (
            "hard link as a whiteout",
            tar().file("f", b"").entry(b'1', ".wh.x", "f").end(),
            Refused("whiteout's name"),
        ),
        (
            "file through a symlink to /etc",
            tar().entry(b'2', "l", "/etc").file("l/passwd", b"").end(),
            Harmless(&[("etc/passwd", "file"), ("l", "symlink")]),
        ),
        (
            "file through a symlink above the root",
            tar().entry(b'2', "l", "../../..").file("l/x", b"").end(),
            Harmless(&[("x", "file")]),
        ),
        (
            "file through a symlink loop",
            tar().entry(b'2', "a", "b").entry(b'2', "b", "a").file("a/x", b"").end(),
            Refused("too many symlinks"),
        ),
        ("file through a long chain", chain.file("l0/x", b"").end(), Refused("too many symlinks")),
        (
            "symlink replaced by a folder",
            tar().entry(b'2', "a", "/etc").dir("a/").file("a/x", b"").end(),
            Harmless(&[("a", "directory"), ("a/x", "file")]),
        ),
        ("file below a file", tar().file("f", b"").file("f/x", b"").end(), Refused("not a directory")),
        ("symlink without a target", tar().entry(b'2', "l", "").end(), Refused("target of 0 bytes")),
        (
            "symlink with a target too long",
            tar().pax(b'x', &[("linkpath", &[b't'; 4096])]).entry(b'2', "l", "").end(),
            Refused("target of 4096 bytes"),
        ),
        (
            "symlink with the longest target",
            tar().pax(b'x', &[("linkpath", &[b't'; 4095])]).entry(b'2', "l", "").end(),
            Harmless(&[("l", "symlink")]),
        ),
    ]
}

fn special() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let device = |kind, major, minor| {
        tar().raw(RawHeader { device: (major, minor), ..raw(kind, b"dev", 0) }, b"").end()
    };
    vec![
        // They exist in the guest only, where they name the guest's devices.
        ("a disk's node", device(b'4', 8, 0), Harmless(&[("dev", "block")])),
        ("a character device 0:0", device(b'3', 0, 0), Harmless(&[("dev", "char")])),
        ("a device that cannot be", device(b'3', 0o10000, 0), Refused("device number")),
        ("a fifo", tar().entry(b'6', "f", "").end(), Harmless(&[("f", "fifo")])),
        ("a kind that nobody knows", tar().entry(b'V', "v", "").end(), Refused("unknown kind")),
        ("whiteout of nothing", tar().file(".wh.", b"").end(), Refused("hides nothing")),
        ("whiteout of the parent", tar().file("a/.wh...", b"").end(), Refused("hides nothing")),
        ("entry below a whiteout", tar().file(".wh.a/b", b"").end(), Refused("below a whiteout")),
        (
            "overlayfs's own attributes",
            tar().pax(b'x', &[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).dir("d/").end(),
            Harmless(&[("d", "directory")]),
        ),
        (
            "attributes too long",
            tar().pax(b'x', &[("SCHILY.xattr.user.a", &[b'v'; 65536])]).file("x", b"").end(),
            Refused("limit of 65536"),
        ),
        (
            "an attribute's name too long",
            tar()
                .pax(b'x', &[(&format!("SCHILY.xattr.user.{}", "a".repeat(256)), b"v")])
                .file("x", b"")
                .end(),
            Refused("limit of 255"),
        ),
        (
            "the same attribute twice",
            tar()
                .pax(b'x', &[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.a", b"2")])
                .file("x", b"")
                .end(),
            Refused("twice"),
        ),
    ]
}

fn ambiguous() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let long = |name: &str| RawHeader {
        kind: b'L',
        name: b"././@LongLink".to_vec(),
        size: name.len() as u64,
        ..Default::default()
    };
    let pax_bytes = |body: &[u8]| tar().raw(raw(b'x', b"pax", body.len() as u64), body).file("x", b"").end();
    vec![
        (
            "two sizes",
            tar().pax(b'x', &[("size", b"512")]).file("x", b"").raw(raw(b'0', b"inner", 0), b"").end(),
            Refused("by its pax header"),
        ),
        (
            "the same size twice",
            tar().pax(b'x', &[("size", b"7")]).file("x", b"content").end(),
            Harmless(&[("x", "file")]),
        ),
        (
            "two pax headers",
            tar().pax(b'x', &[("path", b"a")]).pax(b'x', &[("path", b"b")]).file("x", b"").end(),
            Refused("two pax headers"),
        ),
        (
            "a record twice",
            tar().pax(b'x', &[("path", b"a"), ("path", b"b")]).file("x", b"").end(),
            Refused("given twice"),
        ),
        (
            "two long names",
            tar().raw(long("a"), b"a").raw(long("b"), b"b").file("x", b"").end(),
            Refused("two long names"),
        ),
        (
            "a GNU and a pax name",
            tar().raw(long("a"), b"a").pax(b'x', &[("path", b"b")]).file("x", b"").end(),
            Refused("both a GNU and a pax"),
        ),
        (
            "a global header with a name",
            tar().pax(b'g', &[("path", b"a")]).file("x", b"").end(),
            Refused("global pax header"),
        ),
        (
            "a global comment",
            tar().pax(b'g', &[("comment", b"0123456789abcdef")]).file("x", b"").end(),
            Harmless(&[("x", "file")]),
        ),
        ("a record without =", pax_bytes(b"6 abc\n"), Refused("malformed")),
        ("a record that is too long", pax_bytes(b"999 path=a\n"), Refused("malformed")),
        ("a record that overflows", pax_bytes(b"99999999999999999999 path=a\n"), Refused("malformed")),
        ("a record without an end", pax_bytes(b"9 path=abc"), Refused("malformed")),
        ("a folder with a body", tar().raw(raw(b'5', b"d/", 512), &[0; 512]).end(), Refused("has a body")),
        (
            "a symlink with a body",
            tar().raw(RawHeader { link: b"t".to_vec(), ..raw(b'2', b"l", 3) }, b"abc").end(),
            Refused("has a body"),
        ),
        (
            "a wrong checksum",
            {
                let mut bytes = tar().file("x", b"").end();
                bytes[0] = b'y';
                bytes
            },
            Refused("checksum"),
        ),
        ("no archive", b"<html>404</html>".repeat(64), Refused("checksum")),
        (
            "a size that is no number",
            patched(|block| block[124..136].copy_from_slice(b"xxxxxxxxxxx\0")),
            Refused("not a number"),
        ),
        ("a negative size", patched(|block| block[124..136].fill(0xff)), Refused("negative")),
        (
            "an owner beyond 32 bits",
            patched(|block| block[108..116].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0])),
            Refused("does not fit in 32 bits"),
        ),
        (
            "an owner beyond 32 bits in pax",
            tar().pax(b'x', &[("uid", b"4294967296")]).file("x", b"").end(),
            Refused("does not fit in 32 bits"),
        ),
    ]
}

fn sparse() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let pax = |map: &[u8], real: &[u8], body: &[u8]| {
        tar().pax(b'x', &[("GNU.sparse.map", map), ("GNU.sparse.size", real)]).file("s", body).end()
    };
    vec![
        ("a good map", pax(b"0,3,10,4", b"20", b"abcdefg"), Harmless(&[("s", "file")])),
        ("pieces that overlap", pax(b"0,5,3,2", b"20", b"abcdefg"), Refused("overlaps")),
        ("a piece beyond the end", pax(b"0,3,18,4", b"20", b"abcdefg"), Refused("beyond the end")),
        ("fewer bytes than pieces", pax(b"0,3", b"20", b"abcdefg"), Refused("does not match")),
        ("a piece that overflows", pax(b"18446744073709551615,7", b"20", b"abcdefg"), Refused("64 bits")),
        ("a petabyte of nothing", pax(b"0,7", b"1125899906842624", b"abcdefg"), Refused("exceeds the limit")),
        ("a map that ends in the middle", pax(b"0,3,10", b"20", b"abcdefg"), Refused("ends in the middle")),
        (
            "a map in the body that is no map",
            tar()
                .pax(
                    b'x',
                    &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")],
                )
                .file("s", &[b'9'; 512])
                .end(),
            Refused("malformed"),
        ),
        (
            "a version that nobody knows",
            tar()
                .pax(b'x', &[("GNU.sparse.major", b"7"), ("GNU.sparse.realsize", b"9")])
                .file("s", b"")
                .end(),
            Refused("unknown"),
        ),
    ]
}

fn cut() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let whole = tar().file("a", &[7; 1000]).file("b", &[8; 1000]).end();
    let mut trailing = whole.clone();
    trailing.extend(tar().file("hidden", b"").end());
    let mut gz = gzip(&whole);
    gz.truncate(gz.len() - 10);
    let mut zst = zstd(&whole);
    zst.truncate(zst.len() - 3);
    vec![
        ("cut in a header", whole[..100].to_vec(), Refused("ends in the middle")),
        ("cut in a file", whole[..1000].to_vec(), Refused("ends in the middle")),
        ("cut in the padding", whole[..512 + 1010].to_vec(), Refused("ends in the middle")),
        ("cut before the end mark", whole[..1536].to_vec(), Refused("no end mark")),
        ("nothing", Vec::new(), Refused("no end mark")),
        ("a header for nothing", tar().pax(b'x', &[("path", b"a")]).end(), Refused("followed by no entry")),
        ("an archive behind the end mark", trailing, Refused("behind the end mark")),
        (
            "only one block of zeros",
            [tar().file("a", b"").bytes, vec![0; 512]].concat(),
            Harmless(&[("a", "file")]),
        ),
        ("an empty archive", vec![0; 10240], Harmless(&[])),
        ("gzip cut", gz, Refused("reading the archive")),
        ("zstd cut", zst, Refused("ends in the middle")),
        ("gzip with rubbish", [gzip(&whole), b"rubbish".to_vec()].concat(), Refused("reading the archive")),
        ("bzip2", b"BZh91AY&SY".to_vec(), Refused("bzip2 is not supported")),
        ("xz", b"\xfd7zXZ\0\0\0".to_vec(), Refused("xz is not supported")),
    ]
}

#[tokio::test]
async fn every_archive_of_the_corpus_has_its_outcome() {
    let mut wrong = Vec::new();
    for (name, archive, outcome) in
        [names(), links(), special(), ambiguous(), sparse(), cut()].into_iter().flatten()
    {
        match (convert(&archive).await, outcome) {
            (Err(error), Refused(words)) => {
                if !error.to_string().contains(words) || !error.is_content() {
                    wrong.push(format!("{name}: refused, but with `{error}` instead of `{words}`"));
                }
            }
            (Err(error), Harmless(_)) => wrong.push(format!("{name}: refused with `{error}`")),
            (Ok(_), Refused(words)) => wrong.push(format!("{name}: accepted, not refused with `{words}`")),
            (Ok((_, disk)), Harmless(expected)) => {
                fsck(disk.path());
                let seen = look(extract(disk.path()).path());
                for (path, kind) in expected {
                    let found = seen.get(Path::new(path)).map(|seen| seen.kind);
                    if found != Some(*kind) {
                        wrong.push(format!("{name}: `{path}` is {found:?}, not {kind}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn limited(change: impl FnOnce(&mut LayerLimits)) -> Converter {
    let mut config = super::converter_config();
    change(&mut config.limits);
    Converter::new(config)
}

/// A file of ten gigabytes of zeros, in ten megabytes.
fn bomb(pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let header = RawHeader { magic: b"ustar  \0", ..raw(b'0', b"zeros", 0) };
    let mut block = header.block();
    block[124..136].copy_from_slice(b"120000000000");
    seal(&mut block);
    [pack(&block), pack(&vec![0; 1 << 20]).repeat(10 << 10)].concat()
}

#[tokio::test]
async fn bombs_stop_at_the_cap_in_little_memory() {
    // Memory for the buffers and a window, no more.
    let converter = limited(|limits| limits.memory_bytes = 192 << 20);
    for bomb in [bomb(gzip_hard), bomb(zstd)] {
        let folder = tempfile::tempdir().unwrap();
        let disk = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        let input = bulkhead_image::convert::chunks(bomb.as_slice());
        let error = converter
            .convert(&ConvertSpec::default(), input, disk.reopen().unwrap(), |_| {})
            .await
            .unwrap_err();
        assert!(matches!(&error, ImageError::Limit { limit, .. } if limit.contains("200 times")), "{error}");
        let length = disk.as_file().metadata().unwrap().len();
        assert!(length < 64 << 20, "{length} bytes were written");
    }
}

/// What is named in the error, the archive, the cap.
type CapCase<'a> = (&'a str, &'a [u8], fn(&mut LayerLimits));

#[tokio::test]
async fn each_cap_is_a_cap() {
    let many = (0..200).fold(tar(), |tar, n| tar.file(&format!("f{n}"), b"")).end();
    let implied = tar().file(&"d/".repeat(45), b"").end();
    let big = tar().file("big", &[1; 100_000]).end();
    let twice = tar().file("big", &[1; 60_000]).file("big", &[2; 60_000]).end();
    let cases: [CapCase<'_>; 6] = [
        ("entries", &many, |limits| limits.entries = 100),
        ("entries", &implied, |limits| limits.entries = 20),
        ("the uncompressed archive", &big, |limits| limits.uncompressed_bytes = 50_000),
        ("the uncompressed archive", &twice, |limits| limits.uncompressed_bytes = 100_000),
        ("names and attributes", &many, |limits| limits.metadata_bytes = 10_000),
        ("length of a name", &tar().file("abcdefghijk", b"").end(), |limits| limits.name_bytes = 10),
    ];
    for (what, archive, change) in cases {
        let error = convert_with(&limited(change), archive).await.unwrap_err();
        assert!(
            matches!(&error, ImageError::Limit { what: found, .. } if found.contains(what))
                || error.to_string().contains("size of"),
            "{what}: {error}"
        );
    }
}

#[tokio::test]
async fn a_million_entries_are_enough() {
    let block = Bytes::from(RawHeader { name: b"same".to_vec(), ..Default::default() }.block().repeat(2000));
    let last = Bytes::from(
        [RawHeader { name: b"one more".to_vec(), ..Default::default() }.block().to_vec(), vec![0; 1024]]
            .concat(),
    );
    let end = Bytes::from(vec![0; 1024]);
    for (last, fits) in [(end, true), (last, false)] {
        let pieces = (0..500).map(|_| block.clone()).chain([last]).map(Ok);
        let disk = tempfile::NamedTempFile::new().unwrap();
        let converter = Converter::new(super::converter_config());
        let input = futures_util::stream::iter(pieces);
        let result = converter.convert(&ConvertSpec::default(), input, disk.reopen().unwrap(), |_| {}).await;
        match result {
            Ok(layer) => assert!(fits && layer.entries == 1_000_000),
            Err(error) => assert!(!fits && error.to_string().contains("limit of 1000000"), "{error}"),
        }
    }
}

#[tokio::test]
async fn what_does_not_match_the_manifest_is_refused() {
    use bulkhead_image::convert::{Blob, chunks};
    use bulkhead_model::Digest;
    let archive = tar().file("x", b"content").end();
    let packed = gzip(&archive);
    let good = ConvertSpec {
        compression: Some(bulkhead_image::compression::Compression::Gzip),
        blob: Some(Blob { digest: Digest::of(&packed), bytes: packed.len() as u64 }),
        diff_id: Some(Digest::of(&archive)),
    };
    let blob = |digest, bytes| ConvertSpec { blob: Some(Blob { digest, bytes }), ..good.clone() };
    let length = packed.len() as u64;
    let cases = [
        ("", good.clone()),
        ("has digest", blob(Digest::of(b"other"), length)),
        ("bytes, expected", blob(Digest::of(&packed), length + 1)),
        ("bytes, expected", blob(Digest::of(&packed), length - 1)),
        (
            "uncompressed archive has digest",
            ConvertSpec { diff_id: Some(Digest::of(b"other")), ..good.clone() },
        ),
        (
            "its media type says zstd",
            ConvertSpec { compression: Some(bulkhead_image::compression::Compression::Zstd), ..good.clone() },
        ),
    ];
    for (words, spec) in cases {
        let disk = tempfile::tempfile().unwrap();
        let result = crate::disks::converter().convert(&spec, chunks(packed.as_slice()), disk, |_| {}).await;
        match result {
            Ok(_) => assert_eq!(words, ""),
            Err(error) => assert!(!words.is_empty() && error.to_string().contains(words), "{words}: {error}"),
        }
    }
}

#[test]
fn the_record_maker_of_these_tests_counts_right() {
    assert_eq!(record("path", b"a"), b"9 path=a\n");
}
