//! Mirrors: asked first, told nothing secret, and never the last word.

use crate::disks::Disks;
use crate::peer::{Asked, Peer, Reply, config, good, image, is_layer, pull_with, reply, secret};
use bulkhead_image::registry::{Credentials, Platform, Registries, RegistryConfig};
use bulkhead_test_support::images::{Built, LayerTar, TestImage};
use bulkhead_test_support::registry::{Registry, RegistryOptions};

/// A registry that has the image for those who prove who they are.
async fn registry(built: &Built) -> Peer {
    let built = built.clone();
    Peer::start(move |asked, _| match asked.headers.get("authorization") {
        None if asked.path != "/" => {
            Reply { headers: vec![("WWW-Authenticate", "Basic realm=\"x\"".into())], ..reply(401, "{}") }
        }
        _ => good(&built, asked),
    })
    .await
}

/// Without what finds out whether it speaks TLS.
fn asked_in_earnest(peer: &Peer) -> Vec<Asked> {
    peer.asked().into_iter().filter(|asked| asked.path != "/").collect()
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_gets_no_credentials() {
    let built = image();
    let copy = built.clone();
    let mirror = Peer::start(move |asked, _| good(&copy, asked)).await;
    let peer = registry(&built).await;
    let port = peer.address.strip_prefix("127.0.0.1").unwrap();
    // By its full name, and by its host: then for every port.
    for name in [format!("127.0.0.1{port}"), "127.0.0.1".to_owned()] {
        let mut config = config(&[&peer]);
        config.mirrors.insert(name, vec![format!("http://{}/some/cache/", mirror.address)]);
        let fetched = pull_with(config, &peer, &secret(), &Disks::new()).await.unwrap();
        let origin = fetched.origin.unwrap();
        assert_eq!((origin.registry, origin.repository), (peer.address.clone(), "app".to_owned()));
    }
    assert!(asked_in_earnest(&peer).is_empty(), "{:?}", peer.asked());
    let asked = mirror.asked();
    assert!(asked.len() >= 6 && asked.iter().all(|asked| asked.path.starts_with("/some/cache/v2/app/")));
    assert!(asked.iter().all(|asked| !asked.headers.contains_key("authorization")), "{asked:?}");
}

#[tokio::test]
async fn a_mirror_that_lacks_the_image_or_fails_is_passed_over() {
    type Answer = fn(&Built, &Asked) -> Reply;
    let cases: [(&str, Answer); 9] = [
        ("lacks it", |_, _| reply(404, "{}")),
        ("is broken", |_, _| reply(500, "{}")),
        ("is busy for a day", |_, _| Reply {
            headers: vec![("Retry-After", "86400".into())],
            ..reply(503, "{}")
        }),
        ("wants a password", |_, _| Reply {
            headers: vec![("WWW-Authenticate", "Basic realm=\"x\"".into())],
            ..reply(401, "{}")
        }),
        ("says nonsense", |_, _| reply(200, "nonsense")),
        ("has the manifest but lacks the layer", |built, asked| match is_layer(built, asked) {
            true => reply(404, "{}"),
            false => good(built, asked),
        }),
        ("breaks off in the layer", |built, asked| {
            let cut = is_layer(built, asked).then_some(40_000);
            Reply { cut, ..good(built, asked) }
        }),
        ("breaks off at once", |built, asked| {
            let cut = is_layer(built, asked).then_some(0);
            Reply { cut, ..good(built, asked) }
        }),
        ("has another layer under that digest", |built, asked| {
            let mut reply = good(built, asked);
            if is_layer(built, asked) {
                let last = reply.body.len() - 1;
                reply.body[last] ^= 1;
            }
            reply
        }),
    ];
    for (what, answer) in cases {
        let built = image();
        let copy = built.clone();
        let mirror = Peer::start(move |asked, _| answer(&copy, asked)).await;
        let peer = registry(&built).await;
        let mut config = config(&[&peer]);
        config.mirrors.insert(peer.address.clone(), vec![format!("http://{}", mirror.address)]);
        let disks = Disks::new();
        let fetched = pull_with(config, &peer, &secret(), &disks).await;
        let fetched = fetched.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(fetched.id.as_str(), built.id(), "{what}");
        assert_eq!(fetched.origin.unwrap().registry, peer.address, "{what}");
        assert_eq!(disks.files().len(), 1, "{what}");
        let asked = mirror.asked();
        assert!(!asked.is_empty() && asked.len() < 12, "{what}: {asked:?}");
        assert!(asked.iter().all(|asked| !asked.headers.contains_key("authorization")), "{what}");
    }
}

#[tokio::test]
async fn when_nobody_has_it_the_registry_s_own_words_are_told() {
    let missing = || Peer::start(|_, _| reply(404, "{}"));
    let (mirror, peer) = (missing().await, missing().await);
    let mut config = config(&[&peer]);
    // The first is not even there.
    let mirrors = vec!["http://127.0.0.1:1".into(), format!("http://{}", mirror.address)];
    config.mirrors.insert(peer.address.clone(), mirrors);
    let error = pull_with(config, &peer, &secret(), &Disks::new()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("manifest for `{}/app:1` not found", peer.address)), "{error}");
    assert!(!mirror.asked().is_empty());
}

#[tokio::test]
async fn a_real_mirror_stands_in_for_a_real_registry() {
    let mirror = Registry::start_with(RegistryOptions { tls: false, password: false }).unwrap();
    let registry = Registry::start().unwrap();
    let layer = LayerTar::new().file("a", 0o644, b"a").finish();
    registry.push("app:1", &TestImage::new(vec![layer.clone()])).unwrap();
    mirror.push("app:2", &TestImage::new(vec![layer])).unwrap();
    let mut config = RegistryConfig::default();
    config.ca_files.insert(registry.address.clone(), vec![registry.ca_pem_path.clone()]);
    config.mirrors.insert(registry.address.clone(), vec![format!("http://{}", mirror.address)]);
    let registries = Registries::new(config).unwrap();
    let alice =
        Credentials::Password { user: registry.username.clone(), password: registry.password.clone() };
    for tag in ["1", "2"] {
        let reference = format!("{}/app:{tag}", registry.address).parse().unwrap();
        let resolved = registries.resolve(&reference, &alice, &Platform::default()).await.unwrap();
        assert_eq!(resolved.origin.registry, registry.address);
        assert_eq!(resolved.sources(), if tag == "1" { 1 } else { 2 });
    }
}
