//! A registry, mirror or token service that does as it is told.

use crate::disks::{Disks, converter};
use bulkhead_image::registry::{Credentials, Platform, Registries, RegistryConfig, Timing};
use bulkhead_image::{Fetched, ImageError, pull};
use bulkhead_test_support::images::{Built, LayerTar, Packing, TestImage};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
    pub at: Instant,
}

#[derive(Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Sends so much of the body, then breaks the connection.
    pub cut: Option<usize>,
    /// Sends nothing more, but holds the connection.
    pub stall: bool,
}

pub fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, body: body.into(), ..Reply::default() }
}

type Answer = Arc<dyn Fn(&Asked, usize) -> Reply + Send + Sync>;

/// Speaks just enough HTTP. The answer is a function of the request and of how often its path was asked before.
pub struct Peer {
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Peer {
    pub async fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
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

    pub fn asked(&self) -> Vec<Asked> {
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
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: HashMap<String, String> = rest
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(k, v)| (k.to_lowercase(), v.to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let body = String::from_utf8(body).unwrap();
    let asked = Asked { method, path, headers, body, at: Instant::now() };
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

pub fn image() -> Built {
    // Incompressible, so that the blob has a length to cut.
    let noise: Vec<u8> =
        (0_u64..200_000).map(|n| (n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let layer = LayerTar::new().file("noise", 0o644, &noise).finish();
    TestImage::new(vec![layer]).packed(Packing::Zstd, true).build()
}

/// What a good registry answers for that image.
pub fn good(built: &Built, asked: &Asked) -> Reply {
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

pub fn config(peers: &[&Peer]) -> RegistryConfig {
    RegistryConfig {
        insecure: peers.iter().map(|peer| peer.address.clone()).collect(),
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

pub async fn pull_from(peer: &Peer, credentials: &Credentials, disks: &Disks) -> Result<Fetched, ImageError> {
    pull_with(config(&[peer]), peer, credentials, disks).await
}

pub async fn pull_with(
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

pub fn is_layer(built: &Built, asked: &Asked) -> bool {
    asked.path.ends_with(built.blobs[1].0.as_str())
}

pub fn secret() -> Credentials {
    Credentials::Password { user: "alice".into(), password: "secret".into() }
}
