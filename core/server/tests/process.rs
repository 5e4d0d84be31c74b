//! The real program as a process: started, asked, killed, started again. Machines are simulated.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bulkhead_test_support::{Server, ServerOptions};
use nix::sys::signal::Signal;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn options(config: &str) -> ServerOptions {
    let binary = Some(PathBuf::from(env!("CARGO_BIN_EXE_bulkhead")));
    ServerOptions { binary, config: config.into(), ..ServerOptions::default() }
}

fn start() -> Server {
    Server::start(&options("")).unwrap()
}

fn bulkhead(args: &[&str]) -> bulkhead_test_support::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    bulkhead_test_support::run(command.args(args), Duration::from_secs(60)).unwrap()
}

#[test]
fn a_server_lives_through_kill_9_and_stops_when_asked() {
    let mut server = start();
    let docker = server.create_vch("dev", &["--default-memory", "256m"]).unwrap();
    let version = docker.ok(&["version", "--format", "{{.Server.Version}}"]).unwrap();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    docker.ok(&["info"]).unwrap();

    // Another server on the same folder is refused, and says whose it is.
    let config = server.config_file();
    let second = bulkhead(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(second.code, Some(5), "{second}");
    assert!(second.stderr.contains(&server.pid().unwrap().to_string()), "{second}");

    let postgres = postmaster(&server);
    server.kill_9().unwrap();
    assert!(is_alive(postgres), "the database outlives the server");
    let unreachable = server.bulkhead(&["vch", "ls"]).unwrap();
    assert_eq!(unreachable.code, Some(6), "{unreachable}");
    server.restart().unwrap();
    assert_eq!(postmaster(&server), postgres, "the running database is adopted");
    docker.ok(&["version"]).unwrap();
    let listed = server.bulkhead(&["vch", "ls"]).unwrap().ok().unwrap();
    assert!(listed.contains("dev"), "{listed}");

    assert_eq!(server.terminate().unwrap().code(), Some(0), "{}", server.log());
    assert!(!is_alive(postgres), "the database stops with the server");
    assert!(!server.admin_socket().exists());
    server.restart().unwrap();
    docker.ok(&["version"]).unwrap();
}

/// The private database's process.
fn postmaster(server: &Server) -> i32 {
    let file = server.data_dir().join("postgres/data/postmaster.pid");
    std::fs::read_to_string(file).unwrap().lines().next().unwrap().trim().parse().unwrap()
}

/// A process that ended and that nobody asked after yet counts as ended.
fn is_alive(pid: i32) -> bool {
    let facts = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    facts.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn vchs_come_and_go_with_their_endpoints() {
    let server = start();
    let created = server.bulkhead(&["vch", "create", "dev", "--socket-uid", "1000"]).unwrap().ok().unwrap();
    let socket = server.run_dir().join("vch/dev/docker.sock");
    assert_eq!(created, format!("export DOCKER_HOST=unix://{}", socket.display()));
    assert!(socket.exists(), "it listens when create returns");

    let again = server.bulkhead(&["vch", "create", "dev"]).unwrap();
    assert_eq!(again.code, Some(5), "{again}");
    let unknown_class = server.bulkhead(&["vch", "create", "x", "--class", "nonsense"]).unwrap();
    assert_eq!(unknown_class.code, Some(2), "{unknown_class}");
    let open = server.bulkhead(&["vch", "create", "x", "--insecure-tcp", "0.0.0.0:2375"]).unwrap();
    assert_eq!(open.code, Some(2), "{open}");
    assert!(open.stderr.contains("only loopback"), "{open}");

    let inspected = server.bulkhead(&["vch", "inspect", "dev", "-o", "json"]).unwrap().ok().unwrap();
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["settings"]["socket_uids"], serde_json::json!([1000]));
    let page = server.bulkhead(&["vch", "inspect", "dev"]).unwrap().ok().unwrap();
    assert!(page.contains("docker.sock"), "{page}");

    server.bulkhead(&["vch", "rm", "dev"]).unwrap().ok().unwrap();
    assert!(!socket.exists(), "it is gone when rm returns");
    let missing = server.bulkhead(&["vch", "inspect", "dev"]).unwrap();
    assert_eq!(missing.code, Some(4), "{missing}");
    assert!(missing.stderr.starts_with("bulkhead: no VCH `dev`"), "{missing}");
}

#[test]
fn a_vch_is_set_to_something_else_while_it_is_used() {
    let server = start();
    let bulkhead = |args: &[&str]| server.bulkhead(args).unwrap();
    bulkhead(&["vch", "create", "dev", "--memory-max", "8g", "--volumes-max", "9"]).ok().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let update =
        ["vch", "update", "dev", "--containers-max", "5", "--memory-max", "none", "--insecure-tcp", &free];
    let stores = ["--volume-store", "fast,size=1g", "--volume-store", "default,size=2g"];
    let page = bulkhead(&[&update[..], &stores].concat()).ok().unwrap();
    assert!(page.contains("at most 5\n") && page.contains(&format!("tcp://{free}")), "{page}");
    let settings = || {
        let shown = bulkhead(&["vch", "inspect", "dev", "-o", "json"]).ok().unwrap();
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["settings"].clone()
    };
    let now = settings();
    assert_eq!((&now["containers_max"], &now["volumes_max"]), (&5.into(), &9.into()));
    assert!(now["memory_bytes_max"].is_null());
    assert_eq!(now["volume_stores"]["fast"]["bytes_max"], 1 << 30);
    std::net::TcpStream::connect(&free).expect("it listens when update returns");

    let rest = ["--insecure-tcp", "none", "--volume-store", "default,size=none", "--volume-store-rm", "fast"];
    bulkhead(&[&["vch", "update", "dev"], &rest[..]].concat()).ok().unwrap();
    assert!(std::net::TcpStream::connect(&free).is_err(), "it is closed when update returns");
    assert!(settings()["insecure_listen"].is_null());
    assert_eq!(
        settings()["volume_stores"],
        serde_json::json!({ "default": { "folder": null, "bytes_max": null } })
    );
    // Refused, and nothing of it done.
    let before = settings();
    for (wrong, status) in [("--containers-max=0", 2), ("--insecure-tcp=0.0.0.0:80", 2)] {
        let refused = bulkhead(&["vch", "update", "dev", "--volumes-max", "3", wrong]);
        assert_eq!(refused.code, Some(status), "{refused}");
    }
    assert_eq!(bulkhead(&["vch", "update", "nobody", "--volumes-max", "3"]).code, Some(4));
    assert_eq!(settings(), before);
}

#[test]
fn clients_come_in_over_tls_with_a_certificate_of_their_vch() {
    let server = start();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    server.create_vch("dev", &["--tls", &address]).unwrap();
    server.create_vch("other", &[]).unwrap();
    let taken = server.bulkhead(&["vch", "create", "third", "--tls", &address]).unwrap();
    assert_eq!(taken.code, Some(5), "{taken}");
    let no_tls = server.bulkhead(&["vch", "context", "other", "--out", "/nonexistent/x"]).unwrap();
    assert!(!no_tls.is_ok());

    let dir = server.dir().join("alice");
    let dir = dir.to_str().unwrap();
    let printed =
        server.bulkhead(&["vch", "context", "dev", "--out", dir, "--client", "alice"]).unwrap().ok().unwrap();
    assert!(printed.contains(&format!("export DOCKER_HOST=tcp://{address}")), "{printed}");
    assert_eq!(std::fs::metadata(format!("{dir}/key.pem")).unwrap().mode() & 0o777, 0o600);
    let run = |extra: &[&str]| {
        let mut command = Command::new("docker");
        command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", server.dir().join("docker-config"));
        command.args(["-H", &format!("tcp://{address}")]).args(extra).args([
            "version",
            "--format",
            "{{.Server.Version}}",
        ]);
        bulkhead_test_support::run(&mut command, Duration::from_secs(60)).unwrap()
    };
    let (ca, cert, key) = (format!("{dir}/ca.pem"), format!("{dir}/cert.pem"), format!("{dir}/key.pem"));
    let let_in = run(&["--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key]);
    assert!(let_in.is_ok(), "{let_in}\n{}", server.log());
    assert!(server.log().contains("cert:alice"), "the caller has the certificate's name");
    let without = run(&["--tls", "--tlscacert", &ca]);
    assert!(!without.is_ok(), "{without}");
}

#[test]
fn other_users_are_told_which_setting_lets_them_in() {
    let server = start();
    server.create_vch("dev", &[]).unwrap();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // Through folders of root's that may only be passed: the sockets themselves must be reachable.
    std::fs::set_permissions(server.data_dir(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let binary = server.dir().join("bulkhead");
    std::fs::copy(env!("CARGO_BIN_EXE_bulkhead"), &binary).unwrap();
    let mut command = Command::new(&binary);
    command.uid(12345).gid(12345).arg("--socket").arg(server.admin_socket()).args(["vch", "ls"]);
    let refused = bulkhead_test_support::run(&mut command, Duration::from_secs(30)).unwrap();
    assert_eq!(refused.code, Some(3), "{refused}");
    assert!(
        refused.stderr.contains("uid 12345 may not use the admin socket")
            && refused.stderr.contains("[admin]"),
        "{refused}"
    );
    let mut command = server.docker("dev").command(&["version"]);
    command.uid(12345).gid(12345).env("DOCKER_CONFIG", "/nonexistent").env("HOME", "/nonexistent");
    let refused = bulkhead_test_support::run(&mut command, Duration::from_secs(30)).unwrap();
    assert!(refused.stderr.contains("permission denied: uid 12345 may not use the VCH `dev`"), "{refused}");
}

#[test]
fn policies_are_read_again_and_wrong_ones_told() {
    let server = start();
    let status = server.bulkhead(&["policy", "status"]).unwrap().ok().unwrap();
    assert!(status.contains("files       in force"), "{status}");
    let policies = server.data_dir().join("policies");
    let wrong = policies.join("dev/wrong.cedar");
    std::fs::write(&wrong, "permit (\n").unwrap();
    let checked = bulkhead(&["policy", "check", policies.to_str().unwrap()]);
    assert!(!checked.is_ok() && checked.stderr.contains("wrong.cedar:"), "{checked}");
    server.signal(Signal::SIGHUP).unwrap();
    bulkhead_test_support::wait_for("the wrong file is told", Duration::from_secs(10), || {
        let status = server.bulkhead(&["policy", "status"]).ok()?.ok().ok()?;
        (status.contains("NOT in force") && status.contains("wrong.cedar")).then_some(())
    })
    .unwrap();
    assert!(server.telemetry("/metrics").unwrap().contains("bulkhead_policies_not_in_force 1"));
    assert!(server.telemetry("/readyz").unwrap().starts_with("HTTP/1.1 200"), "the old policies decide");
    std::fs::remove_file(&wrong).unwrap();
    server.signal(Signal::SIGHUP).unwrap();
    bulkhead_test_support::wait_for("the good files are in force", Duration::from_secs(10), || {
        let status = server.bulkhead(&["policy", "status"]).ok()?.ok().ok()?;
        status.contains("files       in force").then_some(())
    })
    .unwrap();
}

#[test]
fn policies_are_drafted_activated_and_rolled_back_and_the_history_outlives_the_server() {
    let mut server = start();
    let docker = server.create_vch("ci", &["--class", "test"]).unwrap();
    docker.ok(&["import", archive(&server).to_str().unwrap(), "hello:1"]).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let memory = std::fs::read_to_string(shipped.join("test/memory.cedar")).unwrap();
    let draft_dir = server.dir().join("draft/test");
    std::fs::create_dir_all(&draft_dir).unwrap();
    let file = draft_dir.join("memory.cedar");
    let put = |name: &str, text: &str| {
        std::fs::write(&file, text).unwrap();
        server.bulkhead(&["policy", "draft", "put", name, file.to_str().unwrap()]).unwrap().ok().unwrap()
    };
    let ok = |args: &[&str]| server.bulkhead(args).unwrap().ok().unwrap();
    let fails = |args: &[&str], code: i32| {
        let output = server.bulkhead(args).unwrap();
        assert_eq!(output.code, Some(code), "{output}");
        output.stderr + &output.stdout
    };
    let create = |memory: &str| docker.run(&["create", "-m", memory, "hello:1", "sim"]).unwrap();
    assert!(create("1g").is_ok());

    put("wrong", &memory.replace("resource.memoryMib", "resource.memoryMb"));
    let said = fails(&["policy", "draft", "check", "wrong"], 1);
    assert!(
        said.contains("test/memory.cedar:12:8: ") && said.contains("did you mean `memoryMib`?"),
        "{said}"
    );
    let said = fails(&["policy", "activate", "wrong"], 2);
    assert!(said.contains("test/memory.cedar:12:8: "), "{said}");
    put("typo", &memory.replace("resource\n)", "resource in Bulkhead::Tenant::\"cii\"\n)"));
    let checked = ok(&["policy", "draft", "check", "typo"]);
    let warning = "policy `memory-cap-in-test` names the tenant `cii`, which is not there";
    assert!(checked.starts_with("good: ") && checked.contains(warning), "{checked}");
    put("caps", &memory.replace("resource.memoryMib > 2048", "resource.memoryMib > 512"));
    let checked = ok(&["policy", "draft", "check", "caps"]);
    assert!(checked.starts_with("good: ") && checked.contains("~ memory-cap-in-test"), "{checked}");
    let what_if = ok(&["policy", "what-if", "caps", "--since", "1h"]);
    assert!(
        what_if.contains("0 newly allowed, 1 newly denied") && what_if.contains("container.create"),
        "{what_if}"
    );
    ok(&["policy", "activate", "caps", "--dry-run"]);
    assert!(create("1g").is_ok());
    ok(&["policy", "activate", "caps", "-m", "machines are small"]);
    let refused = create("1g");
    assert!(refused.stderr.contains("memory-cap-in-test"), "{refused}");

    let denied = ok(&["decision", "ls", "ci", "--verdict", "deny", "--since", "1h"]);
    let id = denied.lines().nth(1).and_then(|line| line.split_whitespace().next()).unwrap();
    let replayed = ok(&["decision", "replay", id]);
    assert!(replayed.starts_with("same: recorded deny, decided again deny by revision 2"), "{replayed}");
    let first: serde_json::Value = serde_json::from_str(&ok(&[
        "decision",
        "ls",
        "--action",
        "container.create",
        "-n",
        "1",
        "-o",
        "json",
    ]))
    .unwrap();
    let next = first["next"].as_str().unwrap();
    let second: serde_json::Value = serde_json::from_str(&ok(&[
        "decision",
        "ls",
        "--action",
        "container.create",
        "-n",
        "1",
        "--cursor",
        next,
        "-o",
        "json",
    ]))
    .unwrap();
    assert_ne!(first["items"][0]["id"], second["items"][0]["id"]);
    assert_eq!(second["items"][0]["verdict"], "allow");

    // The draft's base is no longer in force, and neither is what the roll back expects.
    let said = fails(&["policy", "activate", "caps"], 5);
    assert!(said.contains("revision 2 of the policies is in force, not 1"), "{said}");
    fails(&["policy", "rollback", "1", "--if-active", "1"], 5);
    fails(&["policy", "show", "99"], 4);
    let diff = ok(&["policy", "diff", "1", "2"]);
    assert!(
        diff.contains("-when { resource.memoryMib > 2048 };\n+when { resource.memoryMib > 512 };"),
        "{diff}"
    );
    ok(&["policy", "rollback", "1", "-m", "too small"]);
    assert!(create("1g").is_ok());
    server.kill_9().unwrap();
    server.restart().unwrap();
    let history = server.bulkhead(&["policy", "history"]).unwrap().ok().unwrap();
    let rows: Vec<&str> = history.lines().collect();
    assert_eq!(rows.len(), 4, "{history}");
    for (row, parts) in rows.iter().skip(1).zip([
        ["3 *", "rollback of 1", "too small"],
        ["2 ", "draft caps", "machines are small"],
        ["1 ", "folder", "system"],
    ]) {
        assert!(parts.iter().all(|part| row.contains(part)), "{history}");
    }
    let shown = server.bulkhead(&["policy", "show", "2"]).unwrap().ok().unwrap();
    assert!(shown.contains("=== test/memory.cedar") && shown.contains("> 512"), "{shown}");
}

#[test]
fn cases_run_against_a_folder_and_a_draft() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let tested = bulkhead(&["policy", "test", shipped.to_str().unwrap()]).ok().unwrap();
    assert!(tested.ends_with("cases pass"), "{tested}");
    let server = start();
    // What is in force has no cases of its own.
    let none = server.bulkhead(&["policy", "test"]).unwrap();
    assert!(none.code == Some(1) && none.stderr.contains("--cases DIR"), "{none}");
    let cases = shipped.join("cases");
    let cases = cases.to_str().unwrap();
    server.bulkhead(&["policy", "test", "--cases", cases]).unwrap().ok().unwrap();
    let put = ["policy", "draft", "put", "open", "--remove", "test/memory.cedar"];
    server.bulkhead(&put).unwrap().ok().unwrap();
    let failed = server.bulkhead(&["policy", "test", "open", "--cases", cases]).unwrap();
    assert_eq!(failed.code, Some(1), "{failed}");
    assert!(
        failed.stdout.contains("FAILED  memory/DENY/2049 MiB in test\n        allow instead of deny"),
        "{failed}"
    );
    let neither = server.bulkhead(&["policy", "test", "./nowhere"]).unwrap();
    assert!(neither.code == Some(2) && neither.stderr.contains("neither a folder"), "{neither}");
}

#[test]
fn telemetry_counts_requests_and_keeps_to_this_machine() {
    let server = start();
    let docker = server.create_vch("dev", &[]).unwrap();
    docker.ok(&["version"]).unwrap();
    assert!(server.telemetry("/healthz").unwrap().ends_with("ok\n"));
    let metrics = server.telemetry("/metrics").unwrap();
    for part in [
        r#"bulkhead_requests_total{listener="vch dev",method="GET",endpoint="/version",status="200"}"#,
        "bulkhead_vchs 1",
        r#"back_end="sim""#,
    ] {
        assert!(metrics.contains(part), "{part}\n{metrics}");
    }
    let log = server.log();
    assert!(log.contains("machines are simulated"), "{log}");
}

#[test]
fn folders_and_files_are_closed_to_others() {
    let server = start();
    server.create_vch("dev", &["--tls", "127.0.0.1:1"]).ok();
    let mut open = Vec::new();
    look(&server.data_dir(), &server.run_dir(), &mut open);
    assert!(open.is_empty(), "{open:?}");
}

/// Everything that others may read or write, apart from sockets and PostgreSQL's settings.
fn look(dir: &Path, but: &Path, open: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let Ok(facts) = entry.metadata() else { continue };
        if path == but || facts.is_symlink() {
            continue;
        }
        if facts.is_dir() {
            // Closed to others, whatever is in it.
            if facts.mode() & 0o007 != 0 {
                look(&path, but, open);
            }
        } else if facts.mode() & 0o006 != 0 && path.extension().is_none_or(|kind| kind != "conf") {
            open.push(path);
        }
    }
}

#[test]
fn a_bad_configuration_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.toml");
    std::fs::write(&file, "[telemetry]\nlog_formt = 'json'\n").unwrap();
    let data = dir.path().join("data");
    let output =
        bulkhead(&["serve", "--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]);
    assert_eq!(output.code, Some(2), "{output}");
    assert!(
        output
            .stderr
            .contains("b.toml:2: unknown key `log_formt` in [telemetry]; did you mean `log_format`?"),
        "{output}"
    );
    assert!(!data.exists());
}

#[test]
fn the_doctor_works_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.toml");
    std::fs::write(
        &file,
        format!("back_end = 'sim'\ndata_dir = {:?}\n[telemetry]\nlisten = ''\n", dir.path()),
    )
    .unwrap();
    let output = bulkhead(&["doctor", "--config", file.to_str().unwrap(), "-o", "json"]);
    let findings: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let findings = findings.as_array().unwrap();
    assert!(findings.len() > 8, "{output}");
    for finding in findings {
        let bad = finding["verdict"] != "OK";
        assert_eq!(bad, finding.get("remedy").is_some(), "{finding}");
    }
    let failed = findings.iter().any(|finding| finding["verdict"] == "FAILED");
    assert_eq!(output.code, Some(i32::from(failed)), "{output}");
}

#[test]
fn words_of_the_command_line() {
    assert_eq!(bulkhead(&["version"]).stdout, format!("bulkhead {}\n", env!("CARGO_PKG_VERSION")));
    assert!(bulkhead(&["config", "example"]).stdout.contains("[telemetry]"));
    assert_eq!(bulkhead(&["vch", "make"]).code, Some(2));
}

/// A layer with one file, as `docker import` takes it.
fn archive(server: &Server) -> PathBuf {
    let root = server.dir().join("root");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("hello"), "hello\n").unwrap();
    let path = server.dir().join("root.tar");
    let mut command = Command::new("tar");
    command.arg("-cf").arg(&path).arg("-C").arg(&root).arg(".");
    bulkhead_test_support::run(&mut command, Duration::from_secs(10)).unwrap().ok().unwrap();
    path
}

#[test]
fn a_refusal_is_told_to_the_user_and_its_whole_story_to_the_operator() {
    let server = start();
    let docker = server.create_vch("shop", &["--class", "prod"]).unwrap();
    let archive = archive(&server);
    docker.ok(&["import", archive.to_str().unwrap(), "hello:1"]).unwrap();
    let message = docker.fails(&["create", "--privileged", "hello:1", "sim"]).unwrap();
    assert!(message.contains("image-by-digest-in-prod") && message.contains("and 2 more"), "{message}");
    let id = message.split_whitespace().find(|word| word.starts_with("d-")).unwrap();
    let id = id.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
    let story = server.bulkhead(&["decision", "show", id]).unwrap().ok().unwrap();
    for part in
        ["verdict     DENY", "container.create", "uid:", "no-privileged-in-prod", "leave out --privileged"]
    {
        assert!(story.contains(part), "{part}\n{story}");
    }
    let list = server.bulkhead(&["decision", "ls", "shop"]).unwrap().ok().unwrap();
    assert!(list.contains(id), "{list}");
    let unknown = server.bulkhead(&["decision", "show", "d-00000000000000000000"]).unwrap();
    assert_eq!(unknown.code, Some(4), "{unknown}");
}

#[test]
fn a_vch_with_containers_goes_only_by_force() {
    let server = start();
    let docker = server.create_vch("dev", &[]).unwrap();
    let archive = archive(&server);
    docker.ok(&["import", archive.to_str().unwrap(), "hello:1"]).unwrap();
    docker.ok(&["run", "-d", "--name", "web", "hello:1", "sim", "sleep"]).unwrap();
    let kept = server.bulkhead(&["vch", "rm", "dev"]).unwrap();
    assert_eq!(kept.code, Some(5), "{kept}");
    assert!(kept.stderr.contains("remedy: bulkhead vch rm --force dev"), "{kept}");
    let metrics = server.telemetry("/metrics").unwrap();
    assert!(metrics.contains(r#"bulkhead_containers{vch="dev",status="running"} 1"#), "{metrics}");
    server.bulkhead(&["vch", "rm", "--force", "dev"]).unwrap().ok().unwrap();
}

#[test]
fn followers_do_not_hold_up_a_stop() {
    let mut server = start();
    let docker = server.create_vch("dev", &[]).unwrap();
    let mut follower = docker.command(&["events"]).spawn().unwrap();
    bulkhead_test_support::wait_for("the follower is there", Duration::from_secs(20), || {
        server.telemetry("/metrics").ok()?.contains(r#"endpoint="/events""#).then_some(())
    })
    .unwrap();
    let began = std::time::Instant::now();
    assert_eq!(server.terminate().unwrap().code(), Some(0), "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    follower.wait().unwrap();
}

#[tokio::test]
async fn your_own_database_is_used_and_left_running() {
    let dir = bulkhead_test_support::postgres::ClusterDir::new().unwrap();
    let own = bulkhead_store::EmbeddedPostgres::start(dir.path(), None).await.unwrap();
    let socket = dir.path().join("postgres/run");
    let server = tokio::task::spawn_blocking(move || {
        let mut with_url = options("");
        with_url.database_url =
            Some(format!("postgres://bulkhead@localhost/bulkhead?host={}", socket.display()));
        let mut server = Server::start(&with_url).unwrap();
        server.create_vch("dev", &[]).unwrap();
        assert!(!server.data_dir().join("postgres").exists());
        assert_eq!(server.terminate().unwrap().code(), Some(0));
        server
    });
    let server = server.await.unwrap();
    let store = bulkhead_store::Store::connect(own.database(), 2).await.unwrap();
    let names: Vec<String> =
        store.vchs().await.unwrap().into_iter().map(|vch| vch.name.to_string()).collect();
    assert_eq!(names, ["dev"]);
    store.close().await;
    // Cleans up by means of the database, which therefore goes last.
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
    drop(dir);
}
