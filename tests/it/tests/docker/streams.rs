//! Streams: when their heads come, what is in them, how they end.

use crate::endpoint::Endpoint;
use crate::world::{IMAGE, until, within};
use bulkhead_model::ContainerId;
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::hash::{DefaultHasher, Hasher as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

async fn start(vch: &Endpoint, id: &ContainerId) {
    assert_eq!(vch.send("POST", &format!("/containers/{id}/start"), &[], "").await.status, 204);
}

/// The head of an answer, as it is on the wire.
async fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("head", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn rest(stream: &mut UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    within("end of stream", stream.read_to_end(&mut rest)).await.unwrap();
    rest
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_answers_its_headers_before_anything_happened() {
    let vch = Endpoint::new().await;
    for (condition, script) in [("next-exit", "exit 4"), ("not-running", "exit 0"), ("removed", "exit 6")] {
        let id = vch.world.create(script).await;
        let path = format!("/containers/{id}/wait?condition={condition}");
        let response = vch.begin("POST", &path, &[], "").await;
        assert_eq!(response.status(), 200);
        let code = match condition {
            "not-running" => 0,
            "next-exit" => {
                start(&vch, &id).await;
                4
            }
            _ => {
                start(&vch, &id).await;
                vch.world.exit(&id).await;
                vch.world.remove(&id, true).await.unwrap();
                6
            }
        };
        let body = within("exit", response.into_body().collect()).await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["StatusCode"], code, "{condition}: {body}");
    }
    vch.world.engine.shutdown().await;
}

/// Attached before the start, its own half closed at once, as the CLI does.
#[tokio::test(flavor = "multi_thread")]
async fn attach_upgrades_and_outlives_the_client_s_end_of_input() {
    let vch = Endpoint::new().await;
    let id = vch.world.create("print out ; eprint err ; exit 3").await;
    let mut stream = vch.connect().await;
    let request = format!(
        "POST /v1.50/containers/{id}/attach?stderr=1&stdout=1&stream=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut stream).await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in [
        "connection: upgrade",
        "upgrade: tcp",
        "content-type: application/vnd.docker.multiplexed-stream",
        "api-version: 1.54",
    ] {
        assert!(head.contains(line), "{head}");
    }
    stream.shutdown().await.unwrap();
    start(&vch, &id).await;
    assert_eq!(rest(&mut stream).await, b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n");
    vch.world.engine.shutdown().await;
}

/// Some clients leave the upgrade out, some send a body in chunks that never ends.
#[tokio::test(flavor = "multi_thread")]
async fn attach_serves_other_clients_too() {
    let vch = Endpoint::new().await;
    for (headers, expect) in [
        ("", "http/1.0 200 "),
        ("Content-Length: 0\r\n", "http/1.0 200 "),
        ("Connection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n", "http/1.1 101 "),
    ] {
        let id = vch.world.create("print out ; sleep").await;
        let mut stream = vch.connect().await;
        let request = format!(
            "POST /v1.41/containers/{id}/attach?stdout=1&stream=1 HTTP/1.1\r\nHost: docker\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut stream).await.to_lowercase();
        assert!(head.starts_with(expect), "{headers}: {head}");
        assert!(head.contains("content-type: application/vnd.docker.raw-stream"), "{head}");
        assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
        start(&vch, &id).await;
        let mut frame = [0; 12];
        within("frame", stream.read_exact(&mut frame)).await.unwrap();
        assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x04out\n");
        vch.world.remove(&id, true).await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
    }
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_logs_begin_at_once_and_end_with_the_container() {
    let vch = Endpoint::new().await;
    let id = vch.world.run("sleep").await;
    let path = format!("/v1.50/containers/{id}/logs?follow=1&stdout=1&stderr=1");
    let response = vch.begin("GET", &path, &[], "").await;
    assert_eq!(response.headers()["content-type"], "application/vnd.docker.multiplexed-stream");
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    vch.world.stop(&id, Some(0)).await.unwrap();
    within("end", response.into_body().collect()).await.unwrap();
    vch.world.engine.shutdown().await;
}

/// Twenty readers of one log, while it is written: who reads a byte at a time holds up nobody, and costs no memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_a_byte_at_a_time_harms_nobody() {
    const BYTES: usize = 20_000_000;
    const READERS: usize = 19;
    let vch = Endpoint::new().await;
    // It begins when its input ends.
    let flood = BYTES.to_string();
    let script = ["sim", "cat", ";", "flood", &flood, ";", "print", "end"];
    vch.docker_ok(&[&["create", "-i", "--name", "many", IMAGE], &script[..]].concat()).await;
    vch.docker_ok(&["start", "many"]).await;
    let path = "/v1.50/containers/many/logs?follow=1&stdout=1";
    let readers: Vec<_> = {
        let begin = (0..READERS).map(|_| vch.begin("GET", path, &[], ""));
        futures_util::future::join_all(begin).await
    };
    let mut slow = vch.connect().await;
    slow.write_all(format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n").as_bytes()).await.unwrap();
    assert!(head(&mut slow).await.starts_with("HTTP/1.1 200 "));
    let before = resident_bytes();
    let mut input = vch.connect().await;
    let attach = "POST /containers/many/attach?stdin=1&stream=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    input.write_all(attach.as_bytes()).await.unwrap();
    assert!(head(&mut input).await.starts_with("HTTP/1.1 101 "));
    input.shutdown().await.unwrap();
    assert_eq!(vch.docker_ok(&["wait", "many"]).await, "0");
    // All is written and next to nothing was read: for each reader to have it in memory, there would be 400 MB of it.
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 200_000_000, "{grown} bytes for what nobody reads");
    let drained = futures_util::future::join_all(readers.into_iter().map(|reader| async {
        let (mut count, mut content) = (0, DefaultHasher::new());
        let mut body = reader.into_body();
        while let Some(frame) = within("output", body.frame()).await {
            let data = frame.unwrap().into_data().unwrap();
            count += data.len();
            content.write(&data);
        }
        (count, content.finish())
    }));
    let mut bytes = Vec::new();
    let crawl = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            tick.tick().await;
            bytes.push(slow.read_u8().await.unwrap());
        }
    };
    let drained = tokio::select! {
        drained = drained => drained,
        () = crawl => panic!("it never ends"),
    };
    // A frame a line: 8 bytes before each 100, and before `end`.
    let expected = BYTES / 100 * 108 + 12;
    assert_eq!(drained, vec![(expected, drained[0].1); READERS]);
    assert!(bytes.len() < expected / 1000, "{} bytes read one by one", bytes.len());
    // In no hurry, but right.
    let mut content = DefaultHasher::new();
    let mut chunks = tokio::io::BufReader::new((&bytes[..]).chain(slow));
    let mut count = 0;
    loop {
        let mut line = String::new();
        within("a chunk", chunks.read_line(&mut line)).await.unwrap();
        let mut chunk = vec![0; usize::from_str_radix(line.trim(), 16).unwrap() + 2];
        within("a chunk", chunks.read_exact(&mut chunk)).await.unwrap();
        let data = &chunk[..chunk.len() - 2];
        if data.is_empty() {
            break;
        }
        count += data.len();
        content.write(data);
    }
    assert_eq!((count, content.finish()), drained[0]);
    vch.world.engine.shutdown().await;
}

/// Of this process, in which the server runs.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_they_happen_and_end_with_the_server() {
    let vch = Endpoint::new().await;
    let response = vch.begin("GET", "/v1.51/events", &[], "").await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let mut body = response.into_body();
    let id = vch.world.create("exit 0").await;
    let event = within("event", body.frame()).await.unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&event).unwrap();
    assert_eq!((&event["Action"], &event["id"]), (&"create".into(), &id.as_str().into()));
    assert_eq!(event["status"], "create", "before 1.52");
    vch.stop.cancel();
    within("end", body.collect()).await.unwrap();
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_call_a_stop_off() {
    let vch = Endpoint::new().await;
    let id = vch.world.run("ignore-term ; sleep").await;
    let mut stream = vch.connect().await;
    let request =
        format!("POST /containers/{id}/stop?t=1 HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    until("asked", || async {
        vch.world.container(&id).await.desired.goal != bulkhead_model::lifecycle::Goal::Run
    })
    .await;
    drop(stream);
    assert_eq!(vch.world.exit(&id).await.code, 137);
    vch.world.engine.shutdown().await;
}
