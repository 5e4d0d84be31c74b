//! Attaching by WebSocket, with a client that others wrote.

use crate::endpoint::Endpoint;
use crate::world::{IMAGE, within};
use serde_json::Value;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pongs: u32,
}

impl Client {
    /// Returns once the connection stands.
    async fn attach(vch: &Endpoint, container: &str, query: &str) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", include_str!("websocket.py"), &vch.socket().display().to_string()]);
        command.args([container, query]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut client = Self { child, lines, pongs: 0 };
        assert_eq!(client.line().await, "open");
        client
    }

    /// All of it as one message, where it is something; the client listens after that.
    async fn send(&mut self, data: &[u8]) {
        self.child.stdin.take().unwrap().write_all(data).await.unwrap();
    }

    async fn line(&mut self) -> String {
        within("a message", self.lines.next_line()).await.unwrap().unwrap_or_default()
    }

    async fn bytes(&mut self, wanted: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < wanted {
            let line = self.line().await;
            if line == "pong still there?" {
                self.pongs += 1;
                continue;
            }
            let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
            all.extend((0..line.len()).step_by(2).map(byte));
        }
        all
    }
}

const ALL: &str = "stream=1&stdin=1&stdout=1&stderr=1";

#[tokio::test(flavor = "multi_thread")]
async fn input_and_output_are_binary_messages() {
    let vch = Endpoint::new().await;
    let script = ["sim", "print", "out", ";", "eprint", "err", ";", "cat"];
    vch.docker_ok(&[&["create", "-i", "--name", "web", IMAGE], &script[..]].concat()).await;
    let mut client = Client::attach(&vch, "web", ALL).await;
    let mut errors = Client::attach(&vch, "web", "stream=1&stderr=1").await;
    errors.send(b"").await;
    vch.docker_ok(&["start", "web"]).await;
    let data: Vec<u8> = (0..=255).collect();
    client.send(&data).await;
    let all = client.bytes(8 + 256).await;
    assert_eq!((&all[..8], &all[8..]), (&b"out\nerr\n"[..], &data[..]), "no frames tell the streams apart");
    assert_eq!(errors.bytes(4).await, b"err\n");
    // What was said before comes again for who asks for it.
    let mut late = Client::attach(&vch, "web", "logs=1&stdout=1").await;
    late.send(b"").await;
    assert_eq!(&late.bytes(260).await[..4], b"out\n");
    assert_eq!(late.line().await, "close");
    vch.docker_ok(&["rm", "-f", "web"]).await;
    let mut last = client.line().await;
    if last == "pong still there?" {
        client.pongs += 1;
        last = client.line().await;
    }
    assert_eq!((client.pongs, last, errors.line().await), (1, "close".into(), "close".into()));
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_leave_a_terminal_and_a_flood_in_one_message_ends_the_connection() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&["run", "-dit", "--name", "tt", IMAGE, "sim", "cat"]).await;
    let mut client = Client::attach(&vch, "tt", &format!("{ALL}&detachKeys=ctrl-x")).await;
    client.send(b"abc\x18").await;
    let mut last = client.line().await;
    while last != "close" {
        assert!(!last.is_empty(), "it ended without a close");
        last = client.line().await;
    }
    assert_eq!(crate::life::actions(&vch).await, ["create", "start", "attach", "detach"]);
    let mut flood = Client::attach(&vch, "tt", ALL).await;
    flood.send(&vec![b'x'; (1 << 20) + 1]).await;
    while !matches!(flood.line().await.as_str(), "" | "close") {}
    assert_eq!(vch.docker_ok(&["inspect", "-f", "{{.State.Running}}", "tt"]).await, "true");
    vch.docker_ok(&["rm", "-f", "tt"]).await;
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_is_told_so() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&["create", "--name", "web", IMAGE, "sim"]).await;
    let good = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let path = "/containers/web/attach/ws?stream=1&stdout=1";
    for without in good {
        let headers: Vec<_> = good.into_iter().filter(|header| *header != without).collect();
        let got = vch.send("GET", path, &headers, "").await;
        assert_eq!(got.status, 400, "{without:?}: {got:?}");
        let body: Value = got.json();
        assert!(body["message"].as_str().unwrap().contains("WebSocket"), "{body}");
    }
    let missing = vch.send("GET", "/containers/nosuch/attach/ws", &good, "").await;
    assert_eq!((missing.status, missing.message().as_str()), (404, "No such container: nosuch"));
    let head = vch.begin("GET", path, &good, "").await;
    assert_eq!(head.status(), 101);
    // The example of RFC 6455.
    assert_eq!(head.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    vch.docker_ok(&["rm", "web"]).await;
    vch.world.engine.shutdown().await;
}
