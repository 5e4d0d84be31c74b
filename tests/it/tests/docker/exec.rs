//! Input, terminals, and processes beside a container's own.

use crate::endpoint::Endpoint;
use crate::world::{IMAGE, until, within};
use bulkhead_test_support::Terminal;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// `docker ARGS` with input, to its end: code, output.
async fn with_input(vch: &Endpoint, args: &[&str], input: &[u8]) -> (i32, String) {
    let mut child = vch.docker_command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut text = String::new();
    let both = async {
        let feed = async {
            stdin.write_all(input).await.unwrap();
            drop(stdin);
        };
        tokio::join!(feed, async { stdout.read_to_string(&mut text).await.unwrap() });
        child.wait().await.unwrap()
    };
    let status = within("docker", both).await;
    (status.code().unwrap(), text)
}

fn terminal(vch: &Endpoint, args: &[&str]) -> Terminal {
    let command = vch.docker_command(args);
    let mut plain = std::process::Command::new(command.as_std().get_program());
    plain.args(command.as_std().get_args());
    for (name, value) in command.as_std().get_envs() {
        match value {
            Some(value) => plain.env(name, value),
            None => plain.env_remove(name),
        };
    }
    Terminal::spawn(plain, 24, 80).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn input_of_the_containers_own_process() {
    let vch = Endpoint::new().await;
    let (code, text) =
        with_input(&vch, &["run", "--rm", "-i", IMAGE, "sim", "cat", ";", "exit", "3"], b"one\ntwo").await;
    assert_eq!((code, text.as_str()), (3, "one\ntwo"));

    // More than all windows together.
    let lots = "0123456789abcde\n".repeat(100_000);
    let (code, text) = with_input(&vch, &["run", "--rm", "-i", IMAGE, "sim", "cat"], lots.as_bytes()).await;
    assert_eq!((code, text.len()), (0, lots.len()));
    assert!(text == lots);
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_left_and_found_again() {
    let vch = Endpoint::new().await;
    let mut first = terminal(&vch, &["run", "--name", "tt", "-it", IMAGE, "sim", "size", ";", "cat"]);
    tokio::task::block_in_place(|| {
        first.wait_for("24 80").unwrap();
        first.type_in("hello").unwrap();
        first.wait_for("hello").unwrap();
        first.type_in("\u{10}\u{11}").unwrap();
        assert!(first.end().unwrap().0.success());
    });
    assert_eq!(
        vch.docker_ok(&["inspect", "-f", "{{.State.Status}} {{.Config.Tty}}", "tt"]).await,
        "running true"
    );
    let mut second = terminal(&vch, &["attach", "tt"]);
    second.type_in("again").unwrap();
    // On the screen it may be the terminal's own echo, from before the client was attached.
    until("it was typed", || async { vch.docker_ok(&["logs", "tt"]).await.contains("again") }).await;
    vch.docker_ok(&["kill", "tt"]).await;
    let ended = tokio::task::block_in_place(|| second.end()).unwrap();
    assert_eq!(ended.0.code(), Some(137));
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_has_its_own_streams_and_code() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&["run", "-d", "--name", "cc", IMAGE, "sim", "sleep"]).await;
    let said =
        vch.docker(&["exec", "cc", "sim", "print", "out", ";", "eprint", "err", ";", "exit", "5"]).await;
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (5, "out\n", "err\n"));
    let lots = "x".repeat(1_000_000);
    let (code, text) = with_input(&vch, &["exec", "-i", "cc", "sim", "cat"], lots.as_bytes()).await;
    assert_eq!((code, text.len()), (0, lots.len()));

    // What cannot run says so where its output would be.
    let said = vch.docker(&["exec", "cc", "nope"]).await;
    assert_eq!(said.code, 127, "{said:?}");
    assert!(said.out.contains("executable file not found"), "{said:?}");
    let said = vch.docker(&["exec", "-d", "cc", "nope"]).await;
    assert!(said.err.contains("executable file not found"), "{said:?}");

    let shown = terminal(&vch, &["exec", "-it", "cc", "sim", "size", ";", "exit", "4"]);
    let (status, screen) = tokio::task::block_in_place(|| shown.end()).unwrap();
    assert_eq!(status.code(), Some(4), "{screen}");
    assert!(screen.contains("24 80") || screen.contains("0 0"), "{screen}");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_from_create_to_its_end() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&["run", "-d", "--name", "cc", IMAGE, "sim", "sleep"]).await;
    let post = async |path: &str, body: Value| {
        vch.send("POST", path, &[("Content-Type", "application/json")], &body.to_string()).await
    };
    let made = post(
        "/containers/cc/exec",
        json!({"Cmd": ["sim", "cat"], "AttachStdin": true, "AttachStdout": true}),
    )
    .await;
    assert_eq!(made.status, 201);
    let id = made.json()["Id"].as_str().unwrap().to_owned();
    let inspect = async || vch.get(&format!("/exec/{id}/json")).await.json();
    let before = inspect().await;
    assert_eq!((&before["Running"], &before["ExitCode"]), (&json!(false), &Value::Null));

    // A client that leaves; the process does not mind, and its input ends.
    let mut stream = vch.connect().await;
    let request = format!(
        "POST /exec/{id}/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(b"hi").await.unwrap();
    let mut all = Vec::new();
    while !all.ends_with(b"\x01\0\0\0\0\0\0\x02hi") {
        all.push(within("output", stream.read_u8()).await.unwrap());
    }
    assert_eq!(inspect().await["Running"], true);
    assert_eq!(post(&format!("/exec/{id}/start"), json!({})).await.status, 409);
    drop(stream);
    until("it ended", || async { inspect().await["ExitCode"] == 0 }).await;
    assert_eq!(post(&format!("/exec/{id}/start"), json!({})).await.status, 409);

    assert_eq!(post("/containers/cc/exec", json!({"Cmd": []})).await.status, 400);
    assert_eq!(post("/exec/none/start", json!({})).await.status, 404);
    assert_eq!(vch.get("/exec/none/json").await.status, 404);
    vch.docker_ok(&["kill", "cc"]).await;
    until("it ended", || async { post("/containers/cc/exec", json!({"Cmd": ["x"]})).await.status == 409 })
        .await;
    vch.world.engine.shutdown().await;
}

/// As docker-py does it: the keys belong to the exec, and who starts it says how the output comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_exec_has_its_own_detach_keys_and_its_starter_s_framing() {
    let vch = Endpoint::new().await;
    let id = vch.world.create("sleep").await;
    assert_eq!(vch.send("POST", &format!("/containers/{id}/start"), &[], "").await.status, 204);
    let make = async |more: Value| {
        let mut body = json!({"AttachStdout": true, "Tty": true});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = format!("/containers/{id}/exec");
        let answer =
            vch.send("POST", &path, &[("Content-Type", "application/json")], &body.to_string()).await;
        let exec = answer.json()["Id"].as_str().unwrap().to_owned();
        let begin = "{\"Tty\": false}";
        let mut stream = vch.connect().await;
        let request = format!(
            "POST /v1.50/exec/{exec}/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{begin}",
            begin.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        (exec, stream)
    };
    let (_, mut framed) = make(json!({"Cmd": ["sim", "print", "out"]})).await;
    let mut all = Vec::new();
    within("end of stream", framed.read_to_end(&mut all)).await.unwrap();
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(
        text.starts_with("HTTP/1.1 101 ") && text.contains("\r\n\r\n\u{1}\0\0\0\0\0\0\u{4}out\n"),
        "{text:?}"
    );

    let (exec, mut left) =
        make(json!({"Cmd": ["sim", "cat"], "AttachStdin": true, "DetachKeys": "ctrl-x"})).await;
    left.write_all(b"\x18").await.unwrap();
    within("detached", left.read_to_end(&mut Vec::new())).await.unwrap();
    let facts = vch.send("GET", &format!("/exec/{exec}/json"), &[], "").await.json();
    assert_eq!(facts["DetachKeys"], "ctrl-x");
    let told = crate::life::actions(&vch).await;
    assert!(told.contains(&"exec_create: sim cat".to_owned()), "{told:?}");
    assert!(told.contains(&"exec_detach".to_owned()), "{told:?}");
    vch.world.engine.shutdown().await;
}
