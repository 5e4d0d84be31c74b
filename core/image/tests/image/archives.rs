//! `load`, `save` and `import`.

use crate::disks::{Disks, converter, extract};
use crate::tars::{RawTar, gzip, zstd};
use bulkhead_image::archive::{ImportOptions, SaveImage, import, load, save};
use bulkhead_image::registry::Platform;
use bulkhead_image::{Fetched, ImageError, Progress};
use bulkhead_test_support::images::{Built, LayerTar, TestImage, digest};
use serde_json::json;
use std::process::Command;
use std::sync::Arc;

fn quiet() -> Progress {
    Arc::new(|_| {})
}

async fn load_into(disks: &Disks, archive: &[u8]) -> Result<Vec<Fetched>, ImageError> {
    load(archive, std::env::temp_dir().as_path(), disks, &converter(), &quiet()).await
}

fn image() -> TestImage {
    let first = LayerTar::new().folder("etc/", 0o755).file("etc/motd", 0o644, b"hello").finish();
    let second = LayerTar::new().file(".wh.gone", 0o644, b"").file("app", 0o4755, &[7; 5000]).finish();
    TestImage::new(vec![first, second]).with("Cmd", json!(["/app"]))
}

/// As `docker save` wrote it for years.
fn docker_archive(image: &TestImage, built: &Built, tags: &[&str]) -> Vec<u8> {
    let config_name = format!("{}.json", &built.id()[7..]);
    let names = ["a/layer.tar", "b/layer.tar"];
    let manifest = json!([{ "Config": config_name, "RepoTags": tags, "Layers": names }]).to_string();
    RawTar::default()
        .dir("a/")
        .file("a/layer.tar", &image.layers[0])
        .dir("real/")
        .file("real/layer.tar", &image.layers[1])
        .entry(b'2', "b/layer.tar", "../real/layer.tar")
        .file(&config_name, &built.config)
        .file("manifest.json", manifest.as_bytes())
        .end()
}

#[tokio::test]
async fn an_archive_of_docker_loads_packed_or_not() {
    let image = image();
    let built = image.build();
    let archive = docker_archive(&image, &built, &["app:1", "reg.example/team/app:2"]);
    for archive in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let disks = Disks::new();
        let loaded = load_into(&disks, &archive).await.unwrap();
        let [one] = loaded.as_slice() else { panic!("{loaded:?}") };
        assert_eq!(one.id.as_str(), built.id());
        assert_eq!(one.origin, None);
        let names: Vec<String> = one.references.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["docker.io/library/app:1", "reg.example/team/app:2"]);
        assert_eq!(disks.files().len(), 2);
    }
}

#[tokio::test]
async fn what_is_saved_loads_with_the_same_id_here_and_elsewhere() {
    let image = image();
    let built = image.build();
    let disks = Disks::new();
    let loaded = load_into(&disks, &docker_archive(&image, &built, &["app:1"])).await.unwrap().remove(0);
    let saved = SaveImage {
        config_json: loaded.config_json.clone(),
        diff_ids: loaded.config.diff_ids.clone(),
        references: loaded.references.clone(),
    };
    let mut archive = Vec::new();
    save(&[saved.clone(), saved], &disks, &converter(), &mut archive).await.unwrap();
    let elsewhere = Disks::new();
    let again = load_into(&elsewhere, &archive).await.unwrap();
    assert_eq!(again, std::slice::from_ref(&loaded), "saved twice, it is one image");
    // As an OCI layout: the same without Docker's list.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.tar");
    // GNU tar deletes only from archives in whole records.
    let mut padded = archive.clone();
    padded.resize(padded.len().next_multiple_of(10240), 0);
    std::fs::write(&path, &padded).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    };
    run("tar", &["--delete", "-f", "saved.tar", "manifest.json"]);
    let oci = load_into(&Disks::new(), &std::fs::read(&path).unwrap()).await.unwrap();
    assert_eq!(oci[0].id, loaded.id);
    assert_eq!(oci[0].references[0].to_string(), "docker.io/library/app:1");
    // Another program reads both layouts, checks every digest, and packs anew; that loads here too.
    std::fs::write(&path, &archive).unwrap();
    run(
        "skopeo",
        &["--insecure-policy", "copy", "docker-archive:saved.tar:app:1", "docker-archive:docker.tar:app:1"],
    );
    run("skopeo", &["--insecure-policy", "copy", "oci-archive:saved.tar:1", "oci-archive:oci.tar:app:1"]);
    for name in ["docker.tar", "oci.tar"] {
        let theirs =
            load_into(&Disks::new(), &std::fs::read(folder.path().join(name)).unwrap()).await.unwrap();
        assert_eq!(theirs[0].id, loaded.id, "{name}");
    }
}

#[tokio::test]
async fn a_damaged_disk_is_not_saved() {
    let image = image();
    let disks = Disks::new();
    let loaded = load_into(&disks, &docker_archive(&image, &image.build(), &[])).await.unwrap().remove(0);
    let path = disks.path(&loaded.config.diff_ids[1]);
    let good = std::fs::read(&path).unwrap();
    let content = good.windows(64).position(|part| part == [7; 64]).unwrap();
    for at in [content + 10, good.len() - 100, good.len() - 128 + 8] {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        std::fs::write(&path, bad).unwrap();
        let saved = SaveImage {
            config_json: loaded.config_json.clone(),
            diff_ids: loaded.config.diff_ids.clone(),
            references: Vec::new(),
        };
        let result = save(&[saved], &disks, &converter(), tokio::io::sink()).await;
        assert!(result.is_err(), "damaged at {at}");
    }
}

#[tokio::test]
async fn hostile_archives_are_refused_and_leave_nothing() {
    let image = image();
    let built = image.build();
    let manifest = |config: &str, layers: &[&str], tags: &[&str]| {
        json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]).to_string()
    };
    let with = |manifest: String| {
        RawTar::default()
            .file("config.json", &built.config)
            .file("l1", &image.layers[0])
            .file("l2", &image.layers[1])
            .entry(b'2', "passwd", "/etc/passwd")
            .entry(b'2', "up", "../../../../etc/passwd")
            .entry(b'2', "loop1", "loop2")
            .entry(b'2', "loop2", "loop1")
            .file("manifest.json", manifest.as_bytes())
            .end()
    };
    let layers = ["l1", "l2"];
    let good = with(manifest("config.json", &layers, &["app:1"]));
    let cases = [
        ("neither `manifest.json` nor", RawTar::default().file("x", b"").end()),
        ("`/etc/passwd` is missing", with(manifest("/etc/passwd", &layers, &[]))),
        ("`../../etc/passwd` is missing", with(manifest("../../etc/passwd", &layers, &[]))),
        ("`passwd` is missing", with(manifest("passwd", &layers, &[]))),
        ("`up` is missing", with(manifest("up", &layers, &[]))),
        ("`loop1` is missing", with(manifest("loop1", &layers, &[]))),
        ("names 2 layers, the archive 1", with(manifest("config.json", &["l1"], &[]))),
        ("uncompressed archive has digest", with(manifest("config.json", &["l2", "l1"], &[]))),
        ("a name in the archive", with(manifest("config.json", &layers, &["UPPER:1"]))),
        ("a name in the archive", with(manifest("config.json", &layers, &["../../x:1"]))),
        ("`manifest.json` in the archive", with("{}".into())),
        (
            "twice in the archive",
            RawTar::default().file("manifest.json", b"[]").file("./manifest.json", b"[]").end(),
        ),
        ("ends in the middle", good[..good.len() - 2000].to_vec()),
    ];
    for (words, archive) in cases {
        let disks = Disks::new();
        let error = load_into(&disks, &archive).await.unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(disks.files().is_empty(), "{words}: {:?}", disks.files());
    }
    load_into(&Disks::new(), &good).await.unwrap();
}

#[tokio::test]
async fn a_tree_is_imported_as_one_layer() {
    let tree = LayerTar::new().folder("bin/", 0o755).file("bin/app", 0o755, b"app").finish();
    let options = ImportOptions {
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        platform: Platform::default(),
        message: "Imported from -".into(),
        changes: vec!["CMD [\"/bin/app\"]".into(), "ENV A=1".into()],
        ..ImportOptions::default()
    };
    let disks = Disks::new();
    let imported = import(gzip(&tree).as_slice(), &options, &disks, &converter()).await.unwrap();
    assert_eq!(imported.config.cmd, ["/bin/app"]);
    assert_eq!(imported.config.env, ["A=1"]);
    assert_eq!(imported.config.diff_ids[0].as_str(), digest(&tree));
    assert_eq!(imported.config.history[0].comment, "Imported from -");
    assert_eq!(imported.layers[0].size_bytes, 3);
    assert_eq!(
        std::fs::read(extract(&disks.path(&imported.config.diff_ids[0])).path().join("bin/app")).unwrap(),
        b"app"
    );
    let wrong = ImportOptions { changes: vec!["RUN id".into()], ..options };
    let error = import(tree.as_slice(), &wrong, &Disks::new(), &converter()).await.unwrap_err();
    assert!(matches!(error, ImageError::Unsupported { .. }), "{error}");
}
