//! Trees and damage by chance: whatever is accepted makes a clean disk that gives the archive back.

use crate::disks::{convert, extract, fsck, look, restore};
use crate::tars::RawTar;
use bulkhead_image::LayerLimits;
use bulkhead_image::tar::TarReader;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
enum Made {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    Fifo,
}

fn tree() -> impl Strategy<Value = Vec<(String, Made, u32)>> {
    let part = "[a-e!.][a-z]{0,12}|[a-z]{100,255}";
    let path =
        prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/")).prop_filter("dots", |path| {
            !path.split('/').any(|part| matches!(part, "." | "..")) && path.len() < 1000
        });
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        (0_usize..20_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        Just(vec![9; 4096]),
    ];
    let made = prop_oneof![
        4 => content.prop_map(Made::File),
        2 => Just(Made::Directory),
        1 => "[a-z/.]{1,150}|[a-z]{3900,4095}".prop_map(Made::Symlink),
        1 => Just(Made::Fifo),
    ];
    prop::collection::vec((path, made, 0_u32..0o10000), 0..60)
}

/// As pax writes it: names and targets of any length.
fn archive(tree: &[(String, Made, u32)]) -> Vec<u8> {
    tree.iter()
        .fold(RawTar::default(), |tar, (path, made, mode)| {
            let kind = match made {
                Made::File(_) => b'0',
                Made::Directory => b'5',
                Made::Symlink(_) => b'2',
                Made::Fifo => b'6',
            };
            let mut records = vec![("path", path.as_bytes())];
            if let Made::Symlink(target) = made {
                records.push(("linkpath", target.as_bytes()));
            }
            let content = if let Made::File(content) = made { content.as_slice() } else { &[] };
            let header = crate::tars::RawHeader {
                kind,
                mode: *mode,
                size: content.len() as u64,
                ..Default::default()
            };
            tar.pax(b'x', &records).raw(header, content)
        })
        .end()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepted_trees_are_clean_and_complete(tree in tree()) {
        let archive = archive(&tree);
        block_on(async {
            // A file below a file, or a link in the way, may be refused; what is accepted is held to its word.
            let Ok((_, disk)) = convert(&archive).await else { return };
            fsck(disk.path());
            assert_eq!(restore(&disk).await, archive);
            let seen = look(extract(disk.path()).path());
            let mut last: std::collections::BTreeMap<PathBuf, &Made> = Default::default();
            for (path, made, _) in &tree {
                last.insert(path.into(), made);
            }
            let through_links = tree.iter().any(|(_, made, _)| matches!(made, Made::Symlink(_)));
            for (path, made) in last {
                // A later entry may have put something else in the place of its parent.
                let Some(found) = seen.get(Path::new(&path)) else { continue };
                if !through_links && let (Made::File(content), "file") = (made, found.kind) {
                    assert_eq!(found.content, format!("{} {}", content.len(), bulkhead_model::Digest::of(content)));
                }
            }
        });
    }

    #[test]
    fn damaged_archives_are_refused_or_clean(tree in tree(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut archive = archive(&tree);
        for (at, byte) in damage {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        block_on(async {
            if let Ok((_, disk)) = convert(&archive).await {
                fsck(disk.path());
                assert_eq!(restore(&disk).await, archive);
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The parser alone, on headers whose checksum is right and whose fields are anything.
    #[test]
    fn the_parser_ends_without_panic(fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 512), 1..6), kinds in prop::collection::vec(prop::sample::select(b"0125xgLKS7".to_vec()), 6)) {
        let mut bytes = Vec::new();
        for (field, kind) in fields.iter().zip(kinds) {
            let mut block: [u8; 512] = field.as_slice().try_into().unwrap();
            block[156] = kind;
            block[124..136].copy_from_slice(b"00000001000\0");
            crate::tars::seal(&mut block);
            bytes.extend(block);
            bytes.extend(field);
        }
        let mut reader = TarReader::new(bytes.as_slice(), LayerLimits::default());
        while let Ok(Some(_)) = reader.next_entry() {}
        prop_assert!(reader.position() <= bytes.len() as u64);
    }
}
