//! A registry that misbehaves, one way at a time.

use crate::disks::Disks;
use crate::peer::{Asked, Peer, Reply, config, good, image, is_layer, pull_from, pull_with, reply, secret};
use bulkhead_image::ImageError;
use bulkhead_image::registry::{Credentials, Platform, Registries, RegistryConfig};
use bulkhead_test_support::images::{Built, LayerTar, TestImage, digest};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test]
async fn a_download_goes_on_where_it_broke() {
    let built = image();
    let copy = built.clone();
    // Cut three times, stalled once; the server does ranges.
    let peer = Peer::start(move |asked, before| {
        let mut reply = good(&copy, asked);
        if is_layer(&copy, asked) && before < 4 {
            reply.cut = Some(40_000);
            reply.stall = before == 2;
        }
        reply
    })
    .await;
    let disks = Disks::new();
    pull_from(&peer, &Credentials::Anonymous, &disks).await.unwrap();
    assert_eq!(disks.files().len(), 1);
    let ranges: Vec<Option<String>> = peer
        .asked()
        .iter()
        .filter(|asked| is_layer(&built, asked))
        .map(|asked| asked.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges.len(), 5);
    assert_eq!(ranges[1].as_deref(), Some("bytes=40000-"));
}

#[tokio::test]
async fn a_server_without_ranges_begins_again_and_nothing_is_doubled() {
    let built = image();
    let peer = Peer::start(move |asked, before| {
        let mut plain = asked.clone();
        plain.headers.remove("range");
        let mut reply = good(&built, &plain);
        if is_layer(&built, asked) && before < 2 {
            reply.cut = Some(50_000);
        }
        reply
    })
    .await;
    pull_from(&peer, &Credentials::Anonymous, &Disks::new()).await.unwrap();
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_and_a_broken_one_given_up() {
    let built = image();
    for (status, times, works) in [(429, 2, true), (503, 2, true), (500, usize::MAX, false)] {
        let built = built.clone();
        let peer = Peer::start(move |asked, before| {
            if before < times && asked.path.starts_with("/v2/app/") {
                return Reply { headers: vec![("Retry-After", "0".into())], ..reply(status, "{}") };
            }
            good(&built, asked)
        })
        .await;
        let result = pull_from(&peer, &Credentials::Anonymous, &Disks::new()).await;
        assert_eq!(result.is_ok(), works, "{status}: {result:?}");
        assert!(peer.asked().len() < 20);
    }
}

#[tokio::test]
async fn a_registry_that_says_when_to_come_again_is_believed_within_a_cap() {
    let built = image();
    let told = [
        (vec![("Retry-After", "1".to_owned())], Duration::from_secs(5), Duration::from_secs(1)),
        (
            vec![
                ("Date", "Sun, 06 Nov 1994 08:49:37 GMT".into()),
                ("Retry-After", "Sun, 06 Nov 1994 08:49:38 GMT".into()),
            ],
            Duration::from_secs(5),
            Duration::from_secs(1),
        ),
        (vec![("Retry-After", "86400".into())], Duration::from_millis(300), Duration::from_millis(300)),
        (
            vec![("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT".into())],
            Duration::from_millis(300),
            Duration::from_millis(300),
        ),
    ];
    for (headers, cap, least) in told {
        let copy = built.clone();
        let (said, shown) = (headers.clone(), headers.clone());
        // At a manifest, and at a layer.
        let peer = Peer::start(move |asked, before| {
            if before == 0 && (asked.path.contains("/manifests/") || is_layer(&copy, asked)) {
                return Reply { headers: said.clone(), ..reply(429, "{}") };
            }
            good(&copy, asked)
        })
        .await;
        let mut config = config(&[&peer]);
        config.timing.backoff_max = cap;
        pull_with(config, &peer, &Credentials::Anonymous, &Disks::new()).await.unwrap();
        for what in ["/manifests/", built.blobs[1].0.as_str()] {
            let asked: Vec<Asked> =
                peer.asked().into_iter().filter(|asked| asked.path.contains(what)).collect();
            let [first, second] = asked.as_slice() else { panic!("{shown:?} {asked:?}") };
            let waited = second.at - first.at;
            assert!(waited >= least && waited < cap + Duration::from_secs(20), "{shown:?}: {waited:?}");
        }
    }
}

#[tokio::test]
async fn a_stall_and_a_trickle_end() {
    let built = image();
    let peer = Peer::start(move |asked, _| {
        let mut reply = good(&built, asked);
        if is_layer(&built, asked) {
            reply.cut = Some(100.min(reply.body.len()));
            reply.stall = true;
        }
        reply
    })
    .await;
    let disks = Disks::new();
    let error = pull_from(&peer, &Credentials::Anonymous, &disks).await.unwrap_err();
    assert!(error.to_string().contains("sent nothing"), "{error}");
    assert!(disks.files().is_empty());
}

#[tokio::test]
async fn what_the_registry_changes_is_noticed_and_nothing_is_left() {
    type Change = fn(&mut Reply, &Built, &Asked);
    let cases: [(&str, Change); 8] = [
        ("a layer has digest", |reply, built, asked| {
            if is_layer(built, asked) {
                let last = reply.body.len() - 1;
                reply.body[last] ^= 1;
            }
        }),
        ("bytes, expected", |reply, built, asked| {
            if is_layer(built, asked) {
                reply.body.push(0);
            }
        }),
        ("image config has", |reply, built, asked| {
            if asked.path.ends_with(&built.blobs[0].0) {
                reply.body.push(b' ');
            }
        }),
        ("the manifest has digest", |reply, _, asked| {
            if asked.path.contains("/manifests/") {
                reply.headers.push(("Docker-Content-Digest", digest(b"other")));
            }
        }),
        ("but calls itself", |reply, _, asked| {
            if asked.path.contains("/manifests/") {
                reply.headers =
                    vec![("Content-Type", "application/vnd.docker.distribution.manifest.v2+json".into())];
            }
        }),
        ("manifest exceeds the limit", |reply, _, asked| {
            if asked.path.contains("/manifests/") {
                reply.body.resize((4 << 20) + 1, b' ');
            }
        }),
        ("not found", |reply, _, asked| {
            if asked.path.contains("/blobs/") {
                (reply.status, reply.body) =
                    (404, br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#.to_vec());
            }
        }),
        ("denied", |reply, _, asked| {
            if asked.path.contains("/manifests/") {
                (reply.status, reply.body) = (403, b"{}".to_vec());
            }
        }),
    ];
    for (words, change) in cases {
        let built = image();
        let peer = Peer::start(move |asked, _| {
            let mut reply = good(&built, asked);
            change(&mut reply, &built, asked);
            reply
        })
        .await;
        let disks = Disks::new();
        let error = pull_from(&peer, &Credentials::Anonymous, &disks).await.unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(disks.files().is_empty(), "{words}");
    }
}

/// Each of these instead of the good manifest.
fn manifests(built: &Built) -> Vec<(&'static str, Value)> {
    let manifest: Value = serde_json::from_slice(&built.manifest).unwrap();
    let with = |path: &str, value: Value| {
        let mut changed = manifest.clone();
        *changed.pointer_mut(path).unwrap() = value;
        changed
    };
    let mut both = manifest.clone();
    both["manifests"] = json!([]);
    let layer = manifest["layers"][0].clone();
    let mut urls = manifest.clone();
    urls["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    urls["layers"][0]["urls"] = json!(["http://169.254.169.254/latest"]);
    vec![
        ("a manifest and an index at once", both),
        ("schema version 1", json!({ "schemaVersion": 1, "fsLayers": [], "history": [] })),
        ("schema version is 3", with("/schemaVersion", json!(3))),
        (
            "does not fit its type",
            json!({ "schemaVersion": 2, "mediaType": built.manifest_type, "manifests": [] }),
        ),
        ("its media type is `text/html`", with("/mediaType", json!("text/html"))),
        ("another place than the registry", urls),
        ("its media type is `application/x-tar`", with("/layers/0/mediaType", json!("application/x-tar"))),
        ("no container image", with("/config/mediaType", json!("application/vnd.cncf.helm.config.v1+json"))),
        ("digest", with("/layers/0/digest", json!("md5:d41d8cd98f00b204e9800998ecf8427e"))),
        ("digest", with("/layers/0/digest", json!("sha256:../../etc/passwd"))),
        ("the manifest", with("/layers/0/size", json!(-1))),
        ("names 1 layers, the manifest 2", with("/layers", json!([layer, layer]))),
        ("limit of 127", with("/layers", Value::Array(vec![layer; 128]))),
        ("image config exceeds", with("/config/size", json!(5 << 20))),
        (
            "its media type says zstd",
            with("/layers/0/mediaType", json!("application/vnd.oci.image.layer.v1.tar+zstd")),
        ),
    ]
}

#[tokio::test]
async fn manifests_that_break_the_rules_are_refused() {
    let layer = LayerTar::new().file("x", 0o644, b"x").finish();
    let built = TestImage::new(vec![layer]).build();
    for (words, manifest) in manifests(&built) {
        let built = built.clone();
        let peer = Peer::start(move |asked, _| {
            if asked.path.contains("/manifests/") {
                reply(200, manifest.to_string())
            } else {
                good(&built, asked)
            }
        })
        .await;
        let disks = Disks::new();
        let error = pull_from(&peer, &Credentials::Anonymous, &disks).await.unwrap_err();
        assert!(error.to_string().contains(words) && error.is_content(), "{words}: {error}");
        assert!(disks.files().is_empty(), "{words}");
    }
}

#[tokio::test]
async fn a_hostile_config_is_refused_or_only_text() {
    let layer = LayerTar::new().file("x", 0o644, b"x").finish();
    let cases = [
        (
            "",
            json!({ "User": "4294967296:99999999999", "Volumes": { "/../../etc": {} }, "Cmd": "one string", "Env": null, "Unknown": [1] }),
        ),
        ("exceeds the limit", json!({ "Env": vec!["A=1"; 5000] })),
        ("exceeds the limit", json!({ "Labels": { "big": "x".repeat(200_000) } })),
        ("exceeds the limit", json!({ "WorkingDir": "/".repeat(5000) })),
        ("zero byte", json!({ "Cmd": ["a\0b"] })),
        ("the image config", json!({ "Cmd": { "a": 1 } })),
        ("the image config", json!({ "Labels": ["a"] })),
    ];
    for (words, config) in cases {
        let mut image = TestImage::new(vec![layer.clone()]);
        image.config = config;
        let built = image.build();
        let peer = Peer::start(move |asked, _| good(&built, asked)).await;
        match pull_from(&peer, &Credentials::Anonymous, &Disks::new()).await {
            Ok(fetched) => {
                assert_eq!(words, "");
                assert_eq!(fetched.config.cmd, ["one string"]);
                assert_eq!(fetched.config.volumes, ["/../../etc"]);
            }
            Err(error) => assert!(!words.is_empty() && error.to_string().contains(words), "{words}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_registry_that_always_says_401_is_asked_twice() {
    for challenge in ["Basic realm=\"x\"", "Negotiate", ""] {
        let peer = Peer::start(move |asked, _| match asked.path.as_str() {
            "/" => reply(200, ""),
            _ => Reply { headers: vec![("WWW-Authenticate", challenge.into())], ..reply(401, "{}") },
        })
        .await;
        let error = pull_from(&peer, &secret(), &Disks::new()).await.unwrap_err();
        assert!(matches!(error, ImageError::Denied { .. }), "{error}");
        assert!(peer.asked().len() <= 4, "{:?}", peer.asked());
    }
}

#[tokio::test]
async fn tokens_are_fetched_with_the_credentials_and_used_without() {
    let built = image();
    let realm = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&realm);
    let service = Peer::start(|_, _| reply(200, r#"{"token":"t0ken"}"#)).await;
    *realm.lock().unwrap() = format!("http://{}/token", service.address);
    let peer = Peer::start(move |asked, _| {
        if asked.path == "/" || asked.headers.get("authorization").map(String::as_str) == Some("Bearer t0ken")
        {
            return good(&built, asked);
        }
        let challenge = format!(
            "Bearer realm=\"{}\",service=\"reg\",scope=\"repository:app:pull,push,delete\"",
            own.lock().unwrap()
        );
        Reply { headers: vec![("WWW-Authenticate", challenge)], ..reply(401, "{}") }
    })
    .await;
    pull_from(&peer, &secret(), &Disks::new()).await.unwrap();
    let asked = service.asked();
    assert_eq!(asked.len(), 1, "one token for all: {asked:?}");
    assert_eq!(asked[0].headers["authorization"], "Basic YWxpY2U6c2VjcmV0");
    assert!(
        asked[0].path.contains("scope=repository%3Aapp%3Apull&"),
        "no more than was needed: {}",
        asked[0].path
    );
    assert!(peer.asked().iter().all(|asked| !asked.headers.values().any(|value| value.contains("YWxpY2U6"))));
}

#[tokio::test]
async fn redirects_carry_no_credentials_to_another_host() {
    let built = image();
    let copy = built.clone();
    let store = Peer::start(move |asked, _| good(&copy, asked)).await;
    let elsewhere = store.address.clone();
    let peer = Peer::start(move |asked, _| {
        if asked.path == "/" {
            return reply(200, "");
        }
        if !asked.headers.contains_key("authorization") {
            return Reply {
                headers: vec![("WWW-Authenticate", "Basic realm=\"x\"".into())],
                ..reply(401, "{}")
            };
        }
        if is_layer(&built, asked) {
            return Reply {
                headers: vec![("Location", format!("http://{elsewhere}{}", asked.path))],
                ..reply(307, "")
            };
        }
        good(&built, asked)
    })
    .await;
    pull_from(&peer, &secret(), &Disks::new()).await.unwrap();
    let asked = store.asked();
    assert!(
        !asked.is_empty() && asked.iter().all(|asked| !asked.headers.contains_key("authorization")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn redirects_and_token_services_at_forbidden_addresses_are_not_asked() {
    let targets = [
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://[fe80::1]/", "link-local"),
        ("http://[::ffff:169.254.169.254]/", "link-local"),
        ("http://2852039166/", "link-local"),
        ("http://0.0.0.0/", "special address"),
        ("file:///etc/passwd", "not allowed"),
        ("ftp://example.com/", "not allowed"),
        ("http://alice:secret@127.0.0.1/", "credentials"),
    ];
    for (target, words) in targets {
        for as_realm in [false, true] {
            let peer = Peer::start(move |asked, _| match (asked.path.as_str(), as_realm) {
                ("/", _) => reply(200, ""),
                (_, true) => Reply {
                    headers: vec![("WWW-Authenticate", format!("Bearer realm=\"{target}\""))],
                    ..reply(401, "{}")
                },
                (_, false) => Reply { headers: vec![("Location", target.into())], ..reply(302, "") },
            })
            .await;
            let error = pull_from(&peer, &secret(), &Disks::new()).await.unwrap_err();
            assert!(
                matches!(error, ImageError::Address { .. }) && error.to_string().contains(words),
                "{target}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn a_registry_that_redirects_for_ever_is_given_up() {
    let peer = Peer::start(|asked, _| match asked.path.as_str() {
        "/" => reply(200, ""),
        path => Reply { headers: vec![("Location", format!("{path}x"))], ..reply(302, "") },
    })
    .await;
    let error = pull_from(&peer, &Credentials::Anonymous, &Disks::new()).await.unwrap_err();
    assert!(error.to_string().contains("more than 5 redirects"), "{error}");
    assert_eq!(peer.asked().len(), 7, "one to find out what it speaks, then six");
}

#[tokio::test]
async fn names_that_lead_nowhere_fail_soon() {
    let started = std::time::Instant::now();
    let registries = Registries::new(RegistryConfig::default()).unwrap();
    let reference = "no-such-host.invalid/app:1".parse().unwrap();
    let error =
        registries.resolve(&reference, &Credentials::Anonymous, &Platform::default()).await.unwrap_err();
    assert!(matches!(error, ImageError::Registry { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(25));
}

#[tokio::test]
async fn a_public_name_for_a_private_address_is_refused_at_the_connection() {
    let registries = Registries::new(RegistryConfig::default()).unwrap();
    for name in ["localhost:1/app", "localhost/app", "2130706433.example@", "127.0.0.1:1/app", "[::1]:1/app"]
    {
        let Ok(reference) = name.parse() else { continue };
        let error =
            registries.resolve(&reference, &Credentials::Anonymous, &Platform::default()).await.unwrap_err();
        assert!(matches!(error, ImageError::Address { .. }), "{name}: {error}");
    }
}
