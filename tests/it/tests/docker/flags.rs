//! What the docker CLI can be asked for, flag by flag: what it sends, and what comes of it. `COVERAGE.md` says both.

use crate::endpoint::Endpoint;
use crate::world::IMAGE;
use bulkhead_test_support::Docker;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

const FLAGS: &str = include_str!("../../../../core/docker-api/tests/data/flags.txt");
const COVERAGE: &str = include_str!("../../../../core/docker-api/COVERAGE.md");

struct Flag {
    command: &'static str,
    name: &'static str,
    sample: &'static str,
    sends: &'static str,
}

fn flags() -> impl Iterator<Item = Flag> {
    FLAGS.lines().map(|line| {
        let [command, name, sample, sends] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let sends = sends.split(" # ").next().unwrap_or_default();
        Flag { command, name, sample, sends }
    })
}

/// A newer CLI with one more flag fails here until somebody has looked at it.
#[test]
fn every_flag_of_the_cli_is_in_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Docker::new("unix:///nowhere", dir.path());
    let commands: BTreeSet<&str> = flags().map(|flag| flag.command).collect();
    for command in commands {
        let help = String::from_utf8(cli.command(&[command, "--help"]).output().unwrap().stdout).unwrap();
        let of_cli: Vec<&str> = help
            .lines()
            .filter_map(|line| line.trim_start().split_once("--").filter(|(short, _)| short.len() <= 4))
            .filter_map(|(_, rest)| rest.split_whitespace().next())
            .collect();
        assert!(!of_cli.is_empty(), "{command}: {help}");
        for name in of_cli {
            let name = format!("--{name}");
            let known = flags().any(|flag| {
                flag.name == name && (flag.command == command || command == "run" && flag.command == "create")
            });
            assert!(known, "docker {command} {name} is not in flags.txt");
        }
    }
}

/// Each flag of `docker create`, with a sample: it changes just the fields that `COVERAGE.md` says, and is refused
/// just where it says so, in its words.
#[tokio::test(flavor = "multi_thread")]
async fn every_flag_of_create_does_what_coverage_says() {
    let vch = Endpoint::new().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "A=b\n").unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let socket = dir.path().join("recorded.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let recording = tokio::spawn(record(listener, vch.socket(), sent.clone()));
    let cli = Docker::new(format!("unix://{}", socket.display()), dir.path());
    let help = String::from_utf8(cli.command(&["create", "--help"]).output().unwrap().stdout).unwrap();
    let create = async |args: &[&str]| {
        sent.lock().unwrap().clear();
        let mut command = tokio::process::Command::from(cli.command(&[&["create"], args].concat()));
        let output = command.stdin(std::process::Stdio::null()).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), said, request(&sent.lock().unwrap()))
    };
    let six = ["--ipv6", "--subnet", "fd00::/64"];
    vch.docker_ok(&[&["network", "create", "--subnet", "10.0.0.0/24"], &six[..], &["mine"]].concat()).await;
    vch.docker_ok(&["create", "--name", "there", IMAGE, "sim"]).await;
    let (_, _, (plain_query, plain)) = create(&[IMAGE, "sim"]).await;
    let mut wrong = Vec::new();
    for Flag { name, sample, sends, .. } in flags().filter(|flag| flag.command == "create") {
        if name == "--help" || !help.contains(&format!("{name} ")) {
            continue;
        }
        let new = dir.path().join(name).display().to_string();
        let sample = sample.replace("{file}", &file.display().to_string()).replace("{new}", &new);
        let flag = if sample.is_empty() { name.to_owned() } else { format!("{name}={sample}") };
        let mut args: Vec<&str> = flag.splitn(2, " --").collect();
        let with = args.get(1).map(|with| format!("--{with}"));
        if let Some(with) = &with {
            args[1] = with;
        }
        let (created, said, (query, fields)) = create(&[&args[..], &[IMAGE, "sim"]].concat()).await;
        let mut changed = difference(&plain, &fields);
        if query != plain_query {
            changed.insert(format!("?{}", query.split('=').next().unwrap_or_default()));
        }
        // What `client` stands beside is sent by some versions of the CLI only.
        if changed.is_empty() && sends.starts_with("client") {
            continue;
        }
        let claimed: BTreeSet<String> =
            sends.split(' ').filter(|part| *part != "client").map(str::to_owned).collect();
        // Of two places for the same, a version of the CLI uses the one that its API has.
        if !changed.is_subset(&claimed) || changed.is_empty() {
            wrong.push(format!("{flag} changed {changed:?}, not {claimed:?}: {said}"));
        }
        let row = format!("| create, run | `{name}` |");
        let answer = COVERAGE.lines().find(|line| line.starts_with(&row)).unwrap().to_owned();
        let refusal = answer.split_once("refused: ").map(|(_, why)| why.trim_end_matches([' ', '|']));
        let as_told = match refusal {
            None => created,
            Some(_) if answer.contains("only what is so anyway") && created => true,
            Some(why) => !created && why.split("; ").any(|why| said.contains(why)),
        };
        if !as_told {
            wrong.push(format!("{flag}: {said} but {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    recording.abort();
    vch.world.engine.shutdown().await;
}

/// Passes connections on and keeps what clients sent.
async fn record(listener: UnixListener, to: std::path::PathBuf, sent: Arc<Mutex<Vec<u8>>>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(pass(client, to.clone(), sent.clone()));
    }
}

async fn pass(client: UnixStream, to: impl AsRef<Path>, sent: Arc<Mutex<Vec<u8>>>) -> std::io::Result<()> {
    let server = UnixStream::connect(to).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from_client.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        sent.lock().unwrap().extend_from_slice(&buffer[..count]);
        to_server.write_all(&buffer[..count]).await?;
    }
    to_server.shutdown().await?;
    back.await??;
    Ok(())
}

/// Query and fields of the create request among what was sent.
fn request(sent: &[u8]) -> (String, BTreeMap<String, Value>) {
    let text = String::from_utf8_lossy(sent);
    let Some((_, create)) = text.split_once("/containers/create") else { return Default::default() };
    let (head, body) = create.split_once("\r\n\r\n").unwrap();
    let query = head.split(' ').next().unwrap_or_default().trim_start_matches('?').to_owned();
    let mut body: Value = serde_json::Deserializer::from_str(body).into_iter().next().unwrap().unwrap();
    let mut fields = BTreeMap::new();
    let mut put = |prefix: &str, value: Value| {
        for (name, value) in value.as_object().cloned().unwrap_or_default() {
            fields.insert(format!("{prefix}.{name}"), value);
        }
    };
    put("HostConfig", body["HostConfig"].take());
    let endpoints = body["NetworkingConfig"]["EndpointsConfig"].take();
    for endpoint in endpoints.as_object().cloned().unwrap_or_default().into_values() {
        put("EndpointsConfig", endpoint);
    }
    for other in ["HostConfig", "NetworkingConfig"] {
        body.as_object_mut().unwrap().remove(other);
    }
    put("Config", body);
    (query, fields)
}

/// Fields that say something in one and not, or something else, in the other.
fn difference(one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let says = |value: Option<&Value>| match value {
        None | Some(Value::Null | Value::Bool(false)) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::Array(items)) if items.is_empty() => None,
        Some(Value::Object(map)) if map.is_empty() => None,
        Some(Value::Number(number)) if number.as_i64() == Some(0) => None,
        Some(value) => Some(value.clone()),
    };
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| says(one.get(*name)) != says(other.get(*name))).cloned().collect()
}
