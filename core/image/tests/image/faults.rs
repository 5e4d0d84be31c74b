//! A registry that misbehaves, one way at a time.

use crate::disks::{Disks, converter};
use bulkhead_image::registry::{Credentials, Platform, Registries, RegistryConfig, Timing};
use bulkhead_image::{Fetched, ImageError, pull};
use bulkhead_test_support::images::{Built, LayerTar, Packing, TestImage, digest};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[derive(Debug, Clone)]
struct Asked {
    path: String,
    headers: HashMap<String, String>,
}

#[derive(Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Sends so much of the body, then breaks the connection.
    cut: Option<usize>,
    /// Sends nothing more, but holds the connection.
    stall: bool,
}

fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, body: body.into(), ..Reply::default() }
}

type Answer = Arc<dyn Fn(&Asked, usize) -> Reply + Send + Sync>;

/// Speaks just enough HTTP. The answer is a function of the request and of how often its path was asked before.
struct Peer {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Peer {
    async fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer): (_, Answer) = (Arc::clone(&asked), Arc::new(answer));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                connections.spawn(serve(stream, Arc::clone(&log), Arc::clone(&answer)));
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, log: Arc<Mutex<Vec<Asked>>>, answer: Answer) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some((first, rest)) = lines.split_first() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers = rest
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(k, v)| (k.to_lowercase(), v.to_owned()))
        .collect();
    let asked = Asked { path, headers };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.iter().filter(|other| other.path == asked.path).count() - 1
    };
    let reply = answer(&asked, before);
    let mut head = format!(
        "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let part = &reply.body[..reply.cut.unwrap_or(reply.body.len())];
    let _ = stream.write_all(&[head.as_bytes(), part].concat()).await;
    let _ = stream.flush().await;
    if reply.stall {
        std::future::pending::<()>().await;
    }
}

fn image() -> Built {
    // Incompressible, so that the blob has a length to cut.
    let noise: Vec<u8> =
        (0_u64..200_000).map(|n| (n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let layer = LayerTar::new().file("noise", 0o644, &noise).finish();
    TestImage::new(vec![layer]).packed(Packing::Zstd, true).build()
}

/// What a good registry answers for that image.
fn good(built: &Built, asked: &Asked) -> Reply {
    if asked.path.contains("/manifests/") {
        return Reply {
            headers: vec![("Content-Type", built.manifest_type.into())],
            ..reply(200, built.manifest.clone())
        };
    }
    let found = built.blobs.iter().find(|(digest, _)| asked.path.ends_with(digest.as_str()));
    let Some((_, blob)) = found else {
        return reply(if asked.path == "/v2/" || asked.path == "/" { 200 } else { 404 }, "{}");
    };
    let range = asked
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match range {
        Some(from) => Reply {
            headers: vec![("Content-Range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()))],
            ..reply(206, &blob[from..])
        },
        None => reply(200, blob.clone()),
    }
}

fn config(peers: &[&Peer]) -> RegistryConfig {
    RegistryConfig {
        insecure: peers.iter().map(|peer| peer.address.clone()).collect(),
        proxy_from_environment: Some(false),
        timing: Timing {
            idle: Duration::from_millis(400),
            answer: Duration::from_secs(5),
            backoff: Duration::from_millis(5),
            backoff_max: Duration::from_millis(50),
            ..Timing::default()
        },
        ..RegistryConfig::default()
    }
}

async fn pull_from(peer: &Peer, credentials: &Credentials, disks: &Disks) -> Result<Fetched, ImageError> {
    pull_with(config(&[peer]), peer, credentials, disks).await
}

async fn pull_with(
    config: RegistryConfig,
    peer: &Peer,
    credentials: &Credentials,
    disks: &Disks,
) -> Result<Fetched, ImageError> {
    let registries = Registries::new(config).unwrap();
    let reference = format!("{}/app:1", peer.address).parse().unwrap();
    let quiet: bulkhead_image::Progress = Arc::new(|_| {});
    pull::pull(&registries, &reference, credentials, &Platform::default(), disks, &converter(), &quiet).await
}

fn is_layer(built: &Built, asked: &Asked) -> bool {
    asked.path.ends_with(built.blobs[1].0.as_str())
}

fn secret() -> Credentials {
    Credentials::Password { user: "alice".into(), password: "secret".into() }
}

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
    let registries =
        Registries::new(RegistryConfig { proxy_from_environment: Some(false), ..RegistryConfig::default() })
            .unwrap();
    let reference = "no-such-host.invalid/app:1".parse().unwrap();
    let error =
        registries.resolve(&reference, &Credentials::Anonymous, &Platform::default()).await.unwrap_err();
    assert!(matches!(error, ImageError::Registry { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(25));
}

#[tokio::test]
async fn a_public_name_for_a_private_address_is_refused_at_the_connection() {
    let registries =
        Registries::new(RegistryConfig { proxy_from_environment: Some(false), ..RegistryConfig::default() })
            .unwrap();
    for name in ["localhost:1/app", "localhost/app", "2130706433.example@", "127.0.0.1:1/app", "[::1]:1/app"]
    {
        let Ok(reference) = name.parse() else { continue };
        let error =
            registries.resolve(&reference, &Credentials::Anonymous, &Platform::default()).await.unwrap_err();
        assert!(matches!(error, ImageError::Address { .. }), "{name}: {error}");
    }
}
