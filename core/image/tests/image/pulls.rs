//! Pulling from a real registry.

use crate::disks::{Disks, converter, extract, fsck};
use bulkhead_image::registry::{Credentials, Platform, Registries, RegistryConfig};
use bulkhead_image::{Fetched, ImageError, Progress, PullProgress, Stage, pull};
use bulkhead_model::Reference;
use bulkhead_test_support::images::{LayerTar, Packing, TestImage, busybox_image, digest};
use bulkhead_test_support::registry::{Registry, RegistryOptions};
use serde_json::json;
use std::sync::{Arc, Mutex};

fn trusting(registry: &Registry) -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.ca_files.insert(registry.address.clone(), vec![registry.ca_pem_path.clone()]);
    config
}

fn alice(registry: &Registry) -> Credentials {
    Credentials::Password { user: registry.username.clone(), password: registry.password.clone() }
}

fn reference(registry: &Registry, name: &str) -> Reference {
    format!("{}/{name}", registry.address).parse().unwrap()
}

#[derive(Default, Clone)]
pub struct Told(Arc<Mutex<Vec<PullProgress>>>);

impl Told {
    fn progress(&self) -> Progress {
        let told = Arc::clone(&self.0);
        Arc::new(move |progress| told.lock().unwrap().push(progress))
    }

    fn of(&self, layer: &str) -> Vec<Stage> {
        self.0.lock().unwrap().iter().filter(|told| told.layer == layer).map(|told| told.stage).collect()
    }
}

pub async fn pull_it(
    registry: &Registry,
    name: &str,
    disks: &Disks,
    told: &Told,
) -> Result<Fetched, ImageError> {
    let registries = Registries::new(trusting(registry)).unwrap();
    let reference = reference(registry, name);
    let platform = Platform::default();
    pull::pull(&registries, &reference, &alice(registry), &platform, disks, &converter(), &told.progress())
        .await
}

fn layer(text: &str) -> Vec<u8> {
    LayerTar::new().folder("app/", 0o755).file(&format!("app/{text}"), 0o644, text.as_bytes()).finish()
}

#[tokio::test]
async fn an_image_comes_whole_with_progress_and_a_second_pull_fetches_nothing() {
    let registry = Registry::start().unwrap();
    let image = busybox_image().unwrap();
    let manifest_digest = registry.push("library/busybox:1", &image).unwrap();
    let disks = Disks::new();
    let told = Told::default();
    let fetched = pull_it(&registry, "library/busybox:1", &disks, &told).await.unwrap();
    let built = image.build();
    assert_eq!(fetched.id.as_str(), built.id());
    assert_eq!(fetched.config_json.as_bytes(), built.config);
    assert_eq!(fetched.config.cmd, ["sh"]);
    let origin = fetched.origin.clone().unwrap();
    assert_eq!(
        (origin.registry.as_str(), origin.repository.as_str()),
        (registry.address.as_str(), "library/busybox")
    );
    assert_eq!(origin.digest.as_str(), manifest_digest);
    let [layer] = fetched.layers.as_slice() else { panic!("{:?}", fetched.layers) };
    assert_eq!(layer.diff_id.as_str(), digest(&image.layers[0]));
    let disk = disks.path(&layer.diff_id);
    fsck(&disk);
    assert_eq!(
        std::fs::read(extract(&disk).path().join("bin/busybox")).unwrap(),
        std::fs::read("/bin/busybox").unwrap()
    );
    let stages = told.of(&built.blobs[1].0[7..19]);
    let total = built.blobs[1].1.len() as u64;
    assert_eq!(stages.first(), Some(&Stage::PullingFsLayer));
    assert!(stages.contains(&Stage::Downloading { current: total, total }), "{stages:?}");
    assert!(
        stages.contains(&Stage::VerifyingChecksum) && stages.contains(&Stage::DownloadComplete),
        "{stages:?}"
    );
    assert_eq!(stages.last(), Some(&Stage::PullComplete));
    let again = Told::default();
    assert_eq!(pull_it(&registry, "library/busybox:1", &disks, &again).await.unwrap(), fetched);
    assert_eq!(again.of(&built.blobs[1].0[7..19]), [Stage::PullingFsLayer, Stage::AlreadyExists]);
    let pinned = format!("library/busybox@{manifest_digest}");
    assert_eq!(pull_it(&registry, &pinned, &disks, &again).await.unwrap().id, fetched.id);
}

#[tokio::test]
async fn every_packing_and_both_families_of_media_types_pull() {
    let registry = Registry::start().unwrap();
    for (number, (packing, oci)) in [
        (Packing::Plain, true),
        (Packing::Gzip, true),
        (Packing::Zstd, true),
        (Packing::Plain, false),
        (Packing::Gzip, false),
    ]
    .into_iter()
    .enumerate()
    {
        let image = TestImage::new(vec![layer("a"), layer("b")]).packed(packing, oci);
        let name = format!("packed:{number}");
        registry.push(&name, &image).unwrap();
        let fetched = pull_it(&registry, &name, &Disks::new(), &Told::default()).await.unwrap();
        assert_eq!(fetched.layers.len(), 2, "{packing:?} {oci}");
    }
}

#[tokio::test]
async fn an_image_of_127_layers_pulls_and_one_of_128_does_not() {
    let registry = Registry::start().unwrap();
    let mut layers: Vec<Vec<u8>> = (0..127).map(|number| layer(&format!("file-{number}"))).collect();
    registry.push("deep:127", &TestImage::new(layers.clone())).unwrap();
    let disks = Disks::new();
    let fetched = pull_it(&registry, "deep:127", &disks, &Told::default()).await.unwrap();
    assert_eq!((fetched.layers.len(), disks.files().len()), (127, 127));
    layers.push(layer("one more"));
    registry.push("deep:128", &TestImage::new(layers)).unwrap();
    let error = pull_it(&registry, "deep:128", &Disks::new(), &Told::default()).await.unwrap_err();
    assert!(error.to_string().contains("number of layers exceeds the limit of 127"), "{error}");
}

#[tokio::test]
async fn an_index_gives_the_image_of_the_platform_and_keeps_its_own_digest() {
    let registry = Registry::start().unwrap();
    let image = TestImage::new(vec![layer("amd64")]);
    registry.push("multi:amd64", &image).unwrap();
    let built = image.build();
    let entry = |architecture: &str| {
        json!({ "mediaType": built.manifest_type, "digest": built.manifest_digest(), "size": built.manifest.len(),
                "platform": { "os": "linux", "architecture": architecture } })
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    let index =
        json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [entry("unknown"), entry("amd64")] })
            .to_string();
    registry.push_manifest("multi", "latest", kind, index.clone().into_bytes()).unwrap();
    let fetched = pull_it(&registry, "multi", &Disks::new(), &Told::default()).await.unwrap();
    assert_eq!(fetched.origin.unwrap().digest.as_str(), digest(index.as_bytes()));
    let registries = Registries::new(trusting(&registry)).unwrap();
    let arm = "linux/arm64".parse().unwrap();
    let error =
        registries.resolve(&reference(&registry, "multi"), &alice(&registry), &arm).await.unwrap_err();
    assert!(error.to_string().starts_with("no matching manifest for linux/arm64"), "{error}");
}

#[tokio::test]
async fn who_may_not_and_what_is_not_there_is_told_apart() {
    let registry = Registry::start().unwrap();
    registry.push("app:1", &TestImage::new(vec![layer("a")])).unwrap();
    let registries = Registries::new(trusting(&registry)).unwrap();
    let wrong = Credentials::Password { user: "alice".into(), password: "guessed".into() };
    registries.login(&registry.address, &alice(&registry)).await.unwrap();
    registries.login(&format!("https://{}/v2/", registry.address), &alice(&registry)).await.unwrap();
    for bad in [&wrong, &Credentials::Anonymous] {
        let error = registries.login(&registry.address, bad).await.unwrap_err();
        assert!(matches!(error, ImageError::Login { .. }), "{error}");
        let error =
            registries.resolve(&reference(&registry, "app:1"), bad, &Platform::default()).await.unwrap_err();
        assert!(matches!(error, ImageError::Denied { .. }), "{error}");
        assert!(!format!("{error:?}").contains("guessed"));
    }
    for missing in ["app:2", "nothing:1"] {
        let asked = reference(&registry, missing);
        let error = registries.resolve(&asked, &alice(&registry), &Platform::default()).await.unwrap_err();
        assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[tokio::test]
async fn trust_is_the_operator_s_to_give() {
    let registry = Registry::start().unwrap();
    registry.push("app:1", &TestImage::new(vec![layer("a")])).unwrap();
    let plain = Registry::start_with(RegistryOptions { tls: false, password: false }).unwrap();
    plain.push("app:1", &TestImage::new(vec![layer("a")])).unwrap();
    let nothing = RegistryConfig::default();
    let resolve = async |registry: &Registry, config: &RegistryConfig| {
        let registries = Registries::new(config.clone()).unwrap();
        registries.resolve(&reference(registry, "app:1"), &alice(registry), &Platform::default()).await
    };
    for registry in [&registry, &plain] {
        let error = resolve(registry, &nothing).await.unwrap_err();
        assert!(matches!(error, ImageError::Address { .. }), "a private address must be allowed: {error}");
        let mut config = nothing.clone();
        config.private_addresses = bulkhead_image::registry::PrivateAddresses::Of(vec!["127.0.0.1".into()]);
        let error = resolve(registry, &config).await.unwrap_err();
        assert!(matches!(error, ImageError::Registry { .. }), "an unknown authority, or no TLS: {error}");
        config.insecure = vec![registry.address.clone()];
        resolve(registry, &config).await.unwrap();
    }
    // A mirror is asked first, and the registry itself is not needed.
    let mut config = nothing.clone();
    config.mirrors.insert("docker.io".into(), vec![format!("http://{}", plain.address)]);
    plain.push("library/thing:1", &TestImage::new(vec![layer("m")])).unwrap();
    let registries = Registries::new(config).unwrap();
    let resolved = registries
        .resolve(&"thing:1".parse().unwrap(), &alice(&registry), &Platform::default())
        .await
        .unwrap();
    assert_eq!(resolved.origin.registry, "docker.io");
}
