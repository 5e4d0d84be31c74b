//! Archives from strangers and from other tools, and what `save` gives to them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail the test")]

#[path = "image/disks.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod disks;
#[path = "image/tars.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod tars;

use async_trait::async_trait;
use bulkhead_image::archive::{ImportOptions, SaveImage, import, load, save};
use bulkhead_image::{Fetched, ImageError, LayerFacts, LayerStore, Staged, StoreError};
use bulkhead_model::Digest;
use bulkhead_test_support::images::{Built, LayerTar, Packing, TestImage, digest};
use disks::{Disks, converter, extract, fsck, look};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tars::{RawHeader, RawTar, gzip, zstd};

bulkhead_test_support::layer_child!();

async fn load_with(store: &dyn LayerStore, archive: &[u8]) -> Result<Vec<Fetched>, ImageError> {
    let work_dir = tempfile::tempdir().unwrap();
    let result = load(archive, work_dir.path(), store, &converter(), &(Arc::new(|_| {}) as _)).await;
    let left: Vec<_> = std::fs::read_dir(work_dir.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind in the work folder: {left:?}");
    result
}

async fn saved(disks: &Disks, images: &[Fetched]) -> Vec<u8> {
    let images: Vec<SaveImage> = images
        .iter()
        .map(|image| SaveImage {
            config_json: image.config_json.clone(),
            diff_ids: image.config.diff_ids.clone(),
            references: image.references.clone(),
        })
        .collect();
    let mut archive = Vec::new();
    save(&images, disks, &converter(), &mut archive).await.unwrap();
    archive
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Vec<u8> {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn image() -> TestImage {
    let first = LayerTar::new().folder("etc/", 0o755).file("etc/motd", 0o644, b"hello").finish();
    let second = LayerTar::new()
        .file("etc/.wh.gone", 0o644, b"")
        .file("app", 0o4755, &[7; 5000])
        .symlink("link", "app")
        .finish();
    TestImage::new(vec![first, second]).with("Cmd", json!(["/app"]))
}

/// An image of one small layer of its own.
fn small(text: &str) -> TestImage {
    TestImage::new(vec![LayerTar::new().file("file", 0o644, text.as_bytes()).finish()])
}

fn descriptor(built: &Built, annotations: Value) -> Value {
    json!({
        "mediaType": built.manifest_type,
        "digest": built.manifest_digest(),
        "size": built.manifest.len(),
        "annotations": annotations,
    })
}

fn blob(tar: RawTar, content: &[u8]) -> RawTar {
    tar.file(&format!("blobs/sha256/{}", &digest(content)[7..]), content)
}

/// An OCI layout with the blobs of these images.
fn layout(images: &[&Built], manifests: &[Value]) -> RawTar {
    let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
    let mut tar = RawTar::default()
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.as_bytes());
    let blobs = images.iter().flat_map(|built| {
        std::iter::once(&built.manifest).chain(built.blobs.iter().map(|(_, content)| content))
    });
    let mut seen = HashSet::new();
    for content in blobs.filter(|content| seen.insert(*content)) {
        tar = blob(tar, content);
    }
    tar
}

#[tokio::test]
async fn what_skopeo_makes_of_a_layout_comes_through_load_and_save_unchanged() {
    // It knows no zstd in an archive of Docker's.
    for packing in [Packing::Gzip, Packing::Plain] {
        let image = image().packed(packing, true);
        let built = image.build();
        let folder = tempfile::tempdir().unwrap();
        let name = json!({ "org.opencontainers.image.ref.name": "1" });
        let tar = layout(&[&built], &[descriptor(&built, name)]).end();
        std::fs::write(folder.path().join("layout.tar"), tar).unwrap();
        std::fs::create_dir(folder.path().join("layout")).unwrap();
        run("tar", &["-xf", "layout.tar", "-C", "layout"], folder.path());
        let copy = ["--insecure-policy", "copy", "oci:layout:1", "docker-archive:theirs.tar:app:1"];
        run("skopeo", &copy, folder.path());

        let here = Disks::new();
        let loaded =
            load_with(&here, &std::fs::read(folder.path().join("theirs.tar")).unwrap()).await.unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].id.as_str(), built.id());
        assert_eq!(loaded[0].references[0].familiar(), "app:1");
        assert_eq!(loaded[0].origin, None);

        // Gone and come again, on another machine: same id, same disks.
        let archive = saved(&here, &loaded).await;
        let there = Disks::new();
        assert_eq!(load_with(&there, &archive).await.unwrap(), loaded);
        for diff_id in &loaded[0].config.diff_ids {
            fsck(&there.path(diff_id));
            let (a, b) = (extract(&here.path(diff_id)), extract(&there.path(diff_id)));
            assert_eq!(look(a.path()), look(b.path()));
            assert!(
                std::fs::read(here.path(diff_id)).unwrap() == std::fs::read(there.path(diff_id)).unwrap()
            );
        }
        assert_eq!(saved(&there, &loaded).await, archive, "equal images give equal archives");

        // The other tool checks each digest as it reads.
        std::fs::write(folder.path().join("ours.tar"), &archive).unwrap();
        for (from, to) in [
            ("docker-archive:ours.tar:app:1", "docker-archive:d.tar:app:1"),
            ("oci-archive:ours.tar:1", "oci-archive:o.tar:reg.example/app:1"),
        ] {
            run("skopeo", &["--insecure-policy", "copy", from, to], folder.path());
        }
        for name in ["d.tar", "o.tar"] {
            let again =
                load_with(&Disks::new(), &std::fs::read(folder.path().join(name)).unwrap()).await.unwrap();
            assert_eq!(again[0].id, loaded[0].id, "{name}");
        }
    }
}

/// Counts what is staged.
struct Counting(Disks, AtomicUsize);

#[async_trait]
impl LayerStore for Counting {
    async fn layer(&self, _: &Digest) -> Result<Option<LayerFacts>, StoreError> {
        // A store that knows nothing of a layer until its image is recorded.
        Ok(None)
    }

    async fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.stage().await
    }

    async fn open(&self, diff_id: &Digest) -> Result<File, StoreError> {
        self.0.open(diff_id).await
    }
}

#[tokio::test]
async fn a_layout_has_many_images_their_names_and_shared_layers_once() {
    let base = image();
    let app = TestImage::new([base.layers.clone(), small("app").layers].concat());
    let (base, app, other) = (base.build(), app.build(), small("other").build());
    let attestation = descriptor(&other, json!({ "vnd.docker.reference.type": "attestation-manifest" }));
    let name =
        |name: &str| json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": "x" });
    let archive = layout(
        &[&base, &app],
        &[
            descriptor(&base, name("docker.io/library/base:1")),
            descriptor(&app, json!({ "org.opencontainers.image.ref.name": "reg.example/app:2" })),
            descriptor(&base, name("docker.io/library/base:latest")),
            // Its blobs are not there: nobody asks for them.
            attestation,
            descriptor(&app, json!({ "org.opencontainers.image.ref.name": "a label/for people" })),
        ],
    );
    let store = Counting(Disks::new(), AtomicUsize::new(0));
    let loaded = load_with(&store, &archive.end()).await.unwrap();
    let names: Vec<(String, Vec<String>)> = loaded
        .iter()
        .map(|image| (image.id.to_string(), image.references.iter().map(|name| name.familiar()).collect()))
        .collect();
    assert_eq!(
        names,
        [
            (base.id(), vec!["base:1".to_owned(), "base:latest".to_owned()]),
            (app.id(), vec!["reg.example/app:2".to_owned()])
        ]
    );
    assert_eq!(store.1.load(Ordering::Relaxed), 3, "conversions");
    // Saved together, a shared layer is there once, and one image under two names is one image.
    let twice = [loaded[0].clone(), loaded[1].clone(), loaded[0].clone()];
    let archive = saved(&store.0, &twice).await;
    let shared = loaded[0].config.diff_ids[0].hex();
    let mut members = tar::Archive::new(archive.as_slice());
    let members = members.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
    assert_eq!(members.filter(|path| path.ends_with(shared)).count(), 1);
    assert_eq!(load_with(&Disks::new(), &archive).await.unwrap(), loaded);
}

#[tokio::test]
async fn layers_that_are_there_are_not_converted_again() {
    let image = image();
    let disks = Disks::new();
    let archive = docker(&image, &["l1", "l2"]);
    load_with(&disks, &archive).await.unwrap();
    let stages = disks.files();
    // The content is not even looked at.
    let bad = docker(&TestImage { layers: vec![vec![1; 700], vec![2; 700]], ..image.clone() }, &["l1", "l2"]);
    let config = image.build().config;
    let bad = replace(&bad, "config.json", &config);
    assert_eq!(load_with(&disks, &bad).await.unwrap()[0].id, Digest::of(&config));
    assert_eq!(disks.files(), stages);
}

/// `manifest.json` with one image of two layers, in a flat folder.
fn docker(image: &TestImage, layers: &[&str]) -> Vec<u8> {
    let manifest = json!([{ "Config": "config.json", "RepoTags": null, "Layers": layers }]).to_string();
    RawTar::default()
        .file("config.json", &image.build().config)
        .file("l1", &image.layers[0])
        .file("l2", &image.layers[1])
        .file("manifest.json", manifest.as_bytes())
        .end()
}

/// The archive with another content of one member.
fn replace(archive: &[u8], name: &str, content: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut changed = RawTar::default();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        changed = changed.file(&path, if path == name { content } else { &body });
    }
    changed.end()
}

async fn refused(what: &str, archive: &[u8], words: &str) {
    let disks = Disks::new();
    let error = load_with(&disks, archive).await.unwrap_err();
    assert!(error.to_string().contains(words), "{what}: expected {words:?}: {error}");
    assert!(error.is_content(), "{what}: {error:?}");
    assert!(disks.files().is_empty(), "{what}: left in the store: {:?}", disks.files());
}

#[tokio::test]
async fn hostile_archives_leave_nothing() {
    let image = image();
    let good = docker(&image, &["l1", "l2"]);
    let manifest = |layers: &[&str]| docker(&image, layers);
    let links = |length: usize| {
        let mut tar = RawTar::default();
        for at in 0..length {
            tar = tar.entry(b'2', &format!("link{at}"), &format!("link{}", at + 1));
        }
        let manifest = json!([{ "Config": "link0", "Layers": [] }]).to_string();
        tar.file(&format!("link{length}"), br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#)
            .file("manifest.json", manifest.as_bytes())
            .end()
    };
    assert_eq!(load_with(&Disks::new(), &links(16)).await.unwrap().len(), 1);
    let second_bad = replace(&good, "l2", &image.layers[0]);
    let second_garbage = replace(&good, "l2", &[9; 3000]);
    let bomb = zstd(&vec![0; 64 << 20]);
    for (what, archive, words) in [
        ("nothing", Vec::new(), "ends in the middle"),
        ("text", b"no archive at all".to_vec(), "ends in the middle"),
        ("noise", vec![0x55; 4096], "checksum"),
        ("xz", [&[0xfd, b'7', b'z', b'X', b'Z', 0][..], &[0; 100]].concat(), "xz is not supported"),
        ("cut in a member", good[..good.len() / 2].to_vec(), "ends in the middle"),
        ("cut and compressed", gzip(&good)[..500].to_vec(), "the archive"),
        ("no manifest", RawTar::default().file("config.json", b"{}").end(), "holds no image"),
        ("a name that leaves", RawTar::default().file("../x", b"").end(), "leaves the archive"),
        ("a name that leaves later", RawTar::default().file("a/../../x", b"").end(), "leaves the archive"),
        ("a missing layer", manifest(&["l1", "l3"]), "`l3` is missing"),
        ("a layer from the machine", manifest(&["l1", "/etc/passwd"]), "`/etc/passwd` is missing"),
        ("a layer too many", manifest(&["l1", "l2", "l2"]), "names 2 layers, the archive 3"),
        ("128 layers", manifest(&["l1"; 128]), "number of layers"),
        ("a wrong second layer", second_bad, "has digest"),
        ("a second layer of noise", second_garbage, "checksum"),
        (
            "a circle of links",
            {
                let manifest = json!([{ "Config": "a", "Layers": [] }]).to_string();
                let tar = RawTar::default().entry(b'2', "a", "b").entry(b'2', "b", "a");
                tar.file("manifest.json", manifest.as_bytes()).end()
            },
            "more than 16 links",
        ),
        ("a long chain", links(17), "more than 16 links"),
        (
            "two manifests",
            { RawTar::default().file("manifest.json", b"[]").file("./manifest.json", b"[]").end() },
            "twice in the archive",
        ),
        (
            "a manifest that is no list",
            RawTar::default().file("manifest.json", b"{}").end(),
            "`manifest.json`",
        ),
        (
            "a huge manifest",
            RawTar::default().file("manifest.json", &vec![b' '; 5 << 20]).end(),
            "4194304 bytes",
        ),
        (
            "1001 images",
            {
                let manifest = Value::from(vec![json!({ "Config": "c" }); 1001]).to_string();
                RawTar::default().file("c", b"{}").file("manifest.json", manifest.as_bytes()).end()
            },
            "number of images",
        ),
        ("a bomb", bomb.clone(), "200 times"),
        ("a bomb for a layer", replace(&good, "l2", &bomb), "200 times"),
        ("a compressed bomb for a layer", gzip(&replace(&good, "l2", &bomb)), "200 times"),
        ("data behind the end", [&good[..], b"x"].concat(), "behind the end mark"),
        (
            "a config that is no text",
            {
                let manifest = json!([{ "Config": "c", "Layers": [] }]).to_string();
                RawTar::default().file("c", &[0xff, 0xfe]).file("manifest.json", manifest.as_bytes()).end()
            },
            "image config",
        ),
    ] {
        refused(what, &archive, words).await;
    }
    assert_eq!(load_with(&Disks::new(), &good).await.unwrap().len(), 1);
}

#[tokio::test]
async fn hostile_layouts_leave_nothing() {
    let built = image().build();
    let entry = descriptor(&built, json!({}));
    let with = |key: &str, value: Value| {
        let mut entry = entry.clone();
        entry[key] = value;
        layout(&[&built], &[entry]).end()
    };
    let wrong = digest(b"something else");
    let named = |name: &str| with("annotations", json!({ "io.containerd.image.name": name }));
    let other = small("x").build();
    let swapped = {
        // A blob under the name of another.
        let tar = layout(&[], std::slice::from_ref(&entry));
        tar.file(&format!("blobs/sha256/{}", &built.manifest_digest()[7..]), &other.manifest).end()
    };
    for (what, archive, words) in [
        ("a missing manifest", with("digest", json!(wrong)), "is missing"),
        ("another algorithm", with("digest", json!("sha512:00")), "digest"),
        ("a path for a digest", with("digest", json!("sha256:../../etc/passwd")), "digest"),
        ("a wrong size", with("size", json!(1)), "bytes, expected 1"),
        ("another media type", with("mediaType", json!("text/html")), "text/html"),
        ("a wrong name", named("docker.io/../x"), "invalid reference"),
        ("another blob", swapped, "expected"),
        (
            "a future version",
            {
                let index = json!({ "schemaVersion": 2, "manifests": [] }).to_string();
                RawTar::default()
                    .file("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#)
                    .file("index.json", index.as_bytes())
                    .end()
            },
            "version `2.0.0`",
        ),
        ("1001 entries", layout(&[], &vec![entry.clone(); 1001]).end(), "number of images"),
    ] {
        refused(what, &archive, words).await;
    }
}

#[tokio::test]
async fn archives_that_would_fill_the_memory_are_refused() {
    let folder = RawHeader { kind: b'5', name: b"a/".to_vec(), ..Default::default() }.block();
    let mut many = Vec::with_capacity(200_000 * 512 + 1024);
    for _ in 0..200_000 {
        many.extend(folder);
    }
    many.extend([0; 1024]);
    refused("200,000 entries", &many, "number of entries").await;

    let mut long = RawTar::default();
    for at in 0..17_000 {
        let name = format!("{at:01000}");
        let header = RawHeader { kind: b'L', name: b"long".to_vec(), size: 1000, ..Default::default() };
        long = long.raw(header, name.as_bytes()).file("x", b"");
    }
    refused("long names", &long.end(), "length of all names").await;

    let (mut configs, mut images) = (RawTar::default(), Vec::new());
    for at in 0..17 {
        let padding = " ".repeat((4 << 20) - 100 - at);
        let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[]}}{padding}}}"#);
        configs = configs.file(&format!("c{at}"), config.as_bytes());
        images.push(json!({ "Config": format!("c{at}") }));
    }
    let configs = configs.file("manifest.json", Value::from(images).to_string().as_bytes());
    refused("large configs", &configs.end(), "configs in the archive").await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_stop_are_given_up() {
    let disks = Disks::new();
    let (_open, upload) = tokio::io::duplex(64);
    let work_dir = tempfile::tempdir().unwrap();
    let quiet = Arc::new(|_| {}) as _;
    let error = load(upload, work_dir.path(), &disks, &converter(), &quiet).await.unwrap_err();
    assert!(matches!(error, ImageError::Deadline { seconds: 600, .. }), "{error}");

    let (_open, upload) = tokio::io::duplex(64);
    let options = ImportOptions { work_dir: work_dir.path().into(), ..ImportOptions::default() };
    let error = import(upload, &options, &disks, &converter()).await.unwrap_err();
    assert!(matches!(error, ImageError::Deadline { seconds: 600, .. }), "{error}");

    let image = image().build();
    let config_json = String::from_utf8(image.config).unwrap();
    let diff_ids = bulkhead_image::image_config::parse(config_json.as_bytes()).unwrap().diff_ids;
    let (pipe, _open) = tokio::io::duplex(64);
    let images = [SaveImage { config_json, diff_ids, references: Vec::new() }];
    let error = save(&images, &disks, &converter(), pipe).await.unwrap_err();
    assert!(matches!(&error, ImageError::Io { source, .. } if source.kind() == std::io::ErrorKind::TimedOut));
    assert!(disks.files().is_empty());
}

#[tokio::test]
async fn an_import_that_fails_leaves_nothing() {
    let tree = LayerTar::new().file("app", 0o755, b"app").finish();
    let disks = Disks::new();
    for (archive, changes, words) in [
        (tree.clone(), vec!["RUN id"], "`RUN` is not supported"),
        (tree.clone(), vec!["CMD a", "EXPOSE x"], "change `EXPOSE x`"),
        (tree[..600].to_vec(), vec![], "ends in the middle"),
        (b"hello".to_vec(), vec![], "ends in the middle"),
        (gzip(&vec![0; 64 << 20]), vec![], "exceeds the limit"),
    ] {
        let work_dir = tempfile::tempdir().unwrap();
        let changes = changes.into_iter().map(str::to_owned).collect();
        let options = ImportOptions { changes, work_dir: work_dir.path().into(), ..Default::default() };
        let error = import(archive.as_slice(), &options, &disks, &converter()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert_eq!(std::fs::read_dir(work_dir.path()).unwrap().count(), 0);
        assert!(disks.files().is_empty());
    }
    // Bare or compressed, the layer and so the image are the same.
    let mut ids = Vec::new();
    for archive in [tree.clone(), gzip(&tree), zstd(&tree)] {
        let options = ImportOptions::default();
        ids.push(import(archive.as_slice(), &options, &disks, &converter()).await.unwrap().id);
    }
    assert!(ids[0] == ids[1] && ids[1] == ids[2]);
    assert_eq!(disks.files().len(), 1);
}
