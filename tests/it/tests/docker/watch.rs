//! What is told about a container: its log as it was asked for, its processes, what it takes.

use crate::endpoint::Endpoint;
use crate::world::{IMAGE, until, within};
use serde_json::Value;

const QUIET: [&str; 4] = ["run", "-d", "--network", "none"];

async fn over(vch: &Endpoint, name: &str) {
    vch.docker_ok(&["wait", name]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn details_of_lines_are_labels_and_variables() {
    let vch = Endpoint::new().await;
    let log = ["--log-opt", "labels=team,none", "--log-opt", "env=ZONE", "-l", "team=a b", "-e", "ZONE=x=1"];
    vch.docker_ok(&[&QUIET[..], &log, &["--name", "one", IMAGE, "sim", "print", "hi"]].concat()).await;
    vch.docker_ok(&[&QUIET[..], &["--name", "two", IMAGE, "sim", "print", "hi"]].concat()).await;
    over(&vch, "one").await;
    over(&vch, "two").await;
    assert_eq!(vch.docker_ok(&["logs", "--details", "one"]).await, "ZONE=x%3D1,team=a+b hi");
    assert_eq!(vch.docker_ok(&["logs", "--details", "two"]).await, " hi");
    let stamped = vch.docker_ok(&["logs", "--details", "-t", "one"]).await;
    assert!(stamped.ends_with("Z ZONE=x%3D1,team=a+b hi"), "{stamped}");
    let config = vch.docker_ok(&["inspect", "-f", "{{json .HostConfig.LogConfig}}", "one"]).await;
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(
        config,
        serde_json::json!({"Type": "json-file", "Config": {"labels": "team,none", "env": "ZONE"}})
    );
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_kept_no_longer_than_it_was_asked_for() {
    let vch = Endpoint::new().await;
    let log = ["--log-driver", "local", "--log-opt", "max-size=150k", "--log-opt", "max-file=2"];
    vch.docker_ok(
        &[&QUIET[..], &log, &["--name", "one", IMAGE, "sim", "flood", "3000000", ";", "print", "end"]]
            .concat(),
    )
    .await;
    vch.docker_ok(&[&QUIET[..], &["--name", "two", IMAGE, "sim", "flood", "3000000"]].concat()).await;
    over(&vch, "one").await;
    over(&vch, "two").await;
    let kept = vch.docker(&["logs", "one"]).await.out;
    assert!(kept.ends_with("\nend\n"));
    assert!((100_000..1_000_000).contains(&kept.len()), "{} bytes", kept.len());
    assert_eq!(vch.docker(&["logs", "two"]).await.out.len(), 3_000_000);
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_log_only_who_is_attached_reads() {
    let vch = Endpoint::new().await;
    let run = ["run", "--network", "none", "--log-driver", "none", "--name", "one", IMAGE];
    let said = vch.docker(&[&run[..], &["sim", "flood", "1000000", ";", "print", "hi"]].concat()).await;
    assert_eq!((said.code, said.out.len()), (0, 1_000_003), "{}", said.err);
    let refused = vch.docker_fails(&["logs", "one"]).await;
    assert!(refused.contains("configured logging driver does not support reading"), "{refused}");
    let answer = vch.send("POST", "/containers/one/attach?logs=1&stdout=1", &[], "").await;
    assert_eq!(answer.message(), "configured logging driver does not support reading");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_more_of_a_log_than_its_vch_keeps_is_told() {
    let vch = Endpoint::new().await;
    let made = async |args: &[&str]| vch.docker(&[&["create"], args, &[IMAGE, "sim"]].concat()).await;
    let told = made(&["--log-opt", "max-size=50m"]).await;
    assert_eq!(
        (told.code, told.err.trim()),
        (0, "WARNING: this VCH keeps 16 MiB of a container's log, not 47.6 MiB")
    );
    for fine in [&["--log-opt", "max-size=10m"][..], &["--log-driver", "local"], &[]] {
        assert_eq!(made(fine).await.err, "", "{fine:?}");
    }
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_options_are_refused_by_name() {
    let vch = Endpoint::new().await;
    for (args, text) in [
        (&["--log-opt", "speed=1"][..], "unknown log opt 'speed' for json-file log driver"),
        (&["--log-driver", "local", "--log-opt", "env=A"], "unknown log opt 'env' for log driver local"),
        (
            &["--log-driver", "journald"],
            "HostConfig.LogConfig.Type `journald` (--log-driver) is not supported",
        ),
        (&["--log-driver", "quill"], "error looking up logging plugin quill: plugin \"quill\" not found"),
        (&["--log-opt", "max-size=big"], "invalid size: 'big'"),
    ] {
        let error = vch.docker_fails(&[&["create"], args, &[IMAGE, "sim"][..]].concat()).await;
        assert!(error.contains(text), "{args:?}: {error}");
    }
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_s_log_is_not_framed() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&[&QUIET[..], &["-t", "--name", "one", IMAGE, "sim", "print", "hi"]].concat()).await;
    over(&vch, "one").await;
    assert!(vch.docker_ok(&["logs", "one"]).await.ends_with("hi"));
    let answer = vch.get("/containers/one/logs?stdout=1").await;
    assert_eq!(answer.header("content-type"), "application/vnd.docker.raw-stream");
    assert!(answer.body.starts_with(b"hi"), "{:?}", answer.body);
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_in_time() {
    let vch = Endpoint::new().await;
    let steps = ["sim", "count", "3", ";", "cat", ";", "print", "late"];
    vch.docker_ok(&[&QUIET[..], &["-i", "--name", "one", IMAGE], &steps].concat()).await;
    until("three lines", || async { vch.docker_ok(&["logs", "one"]).await.lines().count() == 3 }).await;
    let stamped = vch.docker_ok(&["logs", "-t", "one"]).await;
    let stamps: Vec<&str> = stamped.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    // Both bounds are included.
    assert_eq!(vch.docker_ok(&["logs", "--since", stamps[1], "one"]).await.lines().count(), 2);
    assert_eq!(vch.docker_ok(&["logs", "--until", stamps[1], "one"]).await.lines().count(), 2);
    assert_eq!(vch.docker_ok(&["logs", "--tail", "0", "one"]).await, "");
    assert_eq!(vch.docker_ok(&["logs", "--tail", "-1", "one"]).await.lines().count(), 3);
    // A line that is later than the end ends it, also where it is there already.
    for tail in ["all", "1"] {
        let args = ["logs", "-f", "--tail", tail, "--until", stamps[1], "one"];
        let said = within("logs", vch.docker(&args)).await;
        assert_eq!(said.out, if tail == "1" { "line 2\n" } else { "line 1\nline 2\n" });
    }
    vch.docker_ok(&["rm", "-f", "one"]).await;
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_lists_processes_in_the_columns_of_ps() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&[&QUIET[..], &["--name", "one", IMAGE, "sim", "sleep"]].concat()).await;
    let listed = vch.docker_ok(&["top", "one"]).await;
    let mut lines = listed.lines();
    let titles: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(titles, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!((&row[..3], &row[5..]), (&["root", "1", "0"][..], &["?", "00:00:00", "sim", "sleep"][..]));
    let chosen = vch.docker_ok(&["top", "one", "-o", "pid,cmd"]).await;
    assert_eq!(chosen.split_whitespace().collect::<Vec<_>>(), ["PID", "CMD", "1", "sim", "sleep"]);
    assert!(vch.docker_ok(&["top", "one", "aux"]).await.starts_with("USER"));
    let refused = vch.docker_fails(&["top", "one", "--forest"]).await;
    assert!(refused.contains("`--forest` (top) is not supported; what works: -e"), "{refused}");
    let events = vch.get("/events?since=1&until=99999999&filters=%7B%22event%22%3A%5B%22top%22%5D%7D").await;
    assert_eq!(events.status, 200);
    vch.docker_ok(&["kill", "one"]).await;
    over(&vch, "one").await;
    let answer = vch.get("/containers/one/top").await;
    assert_eq!(answer.status, 409);
    assert!(answer.message().ends_with(" is not running"), "{}", answer.message());
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_count_by_one_clock() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&[&QUIET[..], &["--name", "one", IMAGE, "sim", "sleep"]].concat()).await;
    let form = "{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.MemPerc}}|{{.NetIO}}|{{.BlockIO}}|{{.PIDs}}";
    let drawn = vch.docker_ok(&["stats", "--no-stream", "--format", form, "one"]).await;
    let cells: Vec<&str> = drawn.split('|').collect();
    // A quarter of its one CPU, whatever this test's own clock says.
    assert_eq!((cells[0], cells[1]), ("one", "25.00%"), "{drawn}");
    // Without what could be dropped at once.
    assert_eq!(cells[2..], ["2MiB / 64MiB", "3.12%", "0B / 0B", "2.1MB / 1.05MB", "1"]);

    // Two samples by default, one where that is asked for.
    let both = vch.get("/containers/one/stats?stream=0").await.json();
    assert!(both["precpu_stats"]["system_cpu_usage"].as_u64().unwrap() > 0);
    assert!(both["preread"].as_str().unwrap() < both["read"].as_str().unwrap());
    let single = vch.get("/containers/one/stats?stream=0&one-shot=1").await.json();
    assert_eq!(single["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    assert!(single["cpu_stats"]["cpu_usage"]["total_usage"].as_u64().unwrap() > 0);

    vch.docker_ok(&["pause", "one"]).await;
    let still = vch.get("/containers/one/stats?stream=0").await.json();
    assert_eq!((&still["name"], &still["memory_stats"]["usage"]), (&"/one".into(), &(3 << 20).into()));
    assert!(vch.docker_ok(&["top", "one"]).await.ends_with("sim sleep"));
    vch.docker_ok(&["unpause", "one"]).await;
    vch.docker_ok(&["kill", "one"]).await;
    over(&vch, "one").await;
    let over = vch.get("/containers/one/stats?stream=0").await.json();
    assert_eq!((&over["read"], &over["name"]), (&"0001-01-01T00:00:00Z".into(), &"/one".into()));
    assert_eq!(vch.get("/containers/two/stats").await.status, 404);
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_stats_goes_on_over_a_pause_and_ends_with_the_container() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&[&QUIET[..], &["--name", "one", IMAGE, "sim", "sleep"]].concat()).await;
    let mut body = vch.begin("GET", "/containers/one/stats", &[], "").await.into_body();
    let first = next_sample(&mut body).await.unwrap();
    assert_eq!(first["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    let second = next_sample(&mut body).await.unwrap();
    assert_eq!(second["precpu_stats"], first["cpu_stats"]);
    vch.docker_ok(&["pause", "one"]).await;
    // What stands still takes what it took, and no time passes for it.
    loop {
        let sample = next_sample(&mut body).await.unwrap();
        if sample["precpu_stats"] == sample["cpu_stats"] {
            break;
        }
    }
    vch.docker_ok(&["rm", "-f", "one"]).await;
    while next_sample(&mut body).await.is_some() {}
    vch.world.engine.shutdown().await;
}

async fn next_sample(body: &mut hyper::body::Incoming) -> Option<Value> {
    use http_body_util::BodyExt as _;
    let frame = within("a sample", body.frame()).await?.unwrap();
    Some(serde_json::from_slice(&frame.into_data().unwrap()).unwrap())
}
