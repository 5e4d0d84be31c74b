//! Health checks: what they make of a container's state, and who is told.

use crate::endpoint::Endpoint;
use crate::world::{IMAGE, until};
use serde_json::{Value, json};

/// A container whose probe ends as its simulated machine is told.
async fn checked(vch: &Endpoint, more: &[&str], timeout_ms: u64) -> bulkhead_model::ContainerId {
    // The CLI can only ask for a shell, which simulated machines have none of.
    let body = json!({
        "Image": IMAGE,
        "Cmd": ["sim", "sleep"],
        "Healthcheck": {
            "Test": if more.is_empty() { vec!["CMD", "sim", "probe"] } else { more.to_vec() },
            "Interval": 20_000_000,
            "Timeout": timeout_ms * 1_000_000,
            "Retries": 2,
        },
    });
    let made = vch.post_json("/containers/create?name=one", &body.to_string()).await;
    assert_eq!(made.status, 201, "{:?}", made.body);
    vch.docker_ok(&["start", "one"]).await;
    made.json()["Id"].as_str().unwrap().parse().unwrap()
}

async fn health(vch: &Endpoint) -> Value {
    vch.get("/containers/one/json").await.json()["State"]["Health"].take()
}

async fn becomes(vch: &Endpoint, word: &str) {
    until(word, || async { health(vch).await["Status"] == word }).await;
}

async fn shown(vch: &Endpoint, word: &str) -> String {
    let filter = format!("health={word}");
    vch.docker_ok(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}} {{.Status}}"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_healthy_until_it_fails_in_a_row() {
    let vch = Endpoint::new().await;
    let id = checked(&vch, &[], 500).await;
    becomes(&vch, "healthy").await;
    let status = shown(&vch, "healthy").await;
    assert!(status.starts_with("one Up ") && status.ends_with(" (healthy)"), "{status}");
    assert_eq!(shown(&vch, "none").await, "");
    vch.world.sim.set_probe_code(&id, 3);
    becomes(&vch, "unhealthy").await;
    assert!(shown(&vch, "unhealthy").await.ends_with(" (unhealthy)"));
    until("five probes", || async { health(&vch).await["FailingStreak"].as_u64() > Some(5) }).await;
    let told = health(&vch).await;
    let log = told["Log"].as_array().unwrap();
    assert_eq!((log.len(), &log[4]["ExitCode"], &log[4]["Output"]), (5, &json!(3), &json!("probe says 3\n")));
    vch.world.sim.set_probe_code(&id, 0);
    becomes(&vch, "healthy").await;

    // What is paused is not asked, and so not well until it is.
    vch.docker_ok(&["pause", "one"]).await;
    let still = health(&vch).await;
    assert!(shown(&vch, "unhealthy").await.ends_with(" (Paused)"));
    assert_eq!(health(&vch).await, still);
    vch.docker_ok(&["unpause", "one"]).await;
    becomes(&vch, "healthy").await;

    // Each run begins anew, and what has ended is not well.
    vch.docker_ok(&["kill", "one"]).await;
    vch.docker_ok(&["wait", "one"]).await;
    assert_eq!(health(&vch).await["Status"], "unhealthy");
    vch.docker_ok(&["start", "one"]).await;
    becomes(&vch, "healthy").await;

    let story = vch.docker_ok(&["events", "--since", "1h", "--until=-2s", "--format", "{{.Action}}"]).await;
    let told: Vec<&str> = story.lines().filter(|action| action.starts_with("health_status")).collect();
    let expect = ["healthy", "unhealthy", "healthy", "healthy", "healthy"]
        .map(|word| format!("health_status: {word}"));
    assert_eq!(told, expect);
    for action in ["exec_create: sim probe", "exec_start: sim probe", "exec_die"] {
        assert!(story.lines().any(|line| line == action), "{action} in {story}");
    }
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_cannot_be_run_or_takes_too_long_failed() {
    let vch = Endpoint::new().await;
    for (words, text) in [
        (&["CMD-SHELL", "true"][..], "executable file not found in $PATH"),
        (&["CMD", "sim", "print", "wait", ";", "sleep"], "Health check exceeded timeout (500ms): wait\n"),
    ] {
        checked(&vch, words, 500).await;
        becomes(&vch, "unhealthy").await;
        let told = health(&vch).await;
        assert_eq!(told["Log"][0]["ExitCode"], -1);
        assert!(told["Log"][0]["Output"].as_str().unwrap().contains(text), "{told}");
        vch.docker_ok(&["rm", "-f", "one"]).await;
    }
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_ends_with_what_breaks_it_off() {
    let vch = Endpoint::new().await;
    // Long enough to be in one at any time.
    checked(&vch, &["CMD", "sim", "sleep"], 60_000).await;
    let count = async |action: &str| {
        let story =
            vch.docker_ok(&["events", "--since", "1h", "--until=-0s", "--format", "{{.Action}}"]).await;
        story.lines().filter(|line| line.starts_with(action)).count()
    };
    until("it is asked", || async { count("exec_start").await == 1 }).await;
    vch.docker_ok(&["pause", "one"]).await;
    vch.docker_ok(&["unpause", "one"]).await;
    until("the process is over", || async { count("exec_die").await == 1 }).await;
    becomes(&vch, "unhealthy").await;
    let told = health(&vch).await;
    assert_eq!(told["FailingStreak"], 0, "{told}");
    assert_eq!(told["Log"], json!([]), "it says nothing of the container");
    until("it is asked again", || async { count("exec_start").await == 2 }).await;
    vch.docker_ok(&["kill", "one"]).await;
    vch.docker_ok(&["wait", "one"]).await;
    until("all are over", || async { count("exec_die").await == count("exec_start").await }).await;
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_shown_as_they_were_decided() {
    let vch = Endpoint::new().await;
    let config = async |name: &str| {
        vch.get(&format!("/containers/{name}/json")).await.json()["Config"]["Healthcheck"].take()
    };
    let args = ["--health-cmd", "x y", "--health-retries", "2"];
    vch.docker_ok(&[&["create", "--name", "aa"], &args[..], &[IMAGE, "sim"]].concat()).await;
    assert_eq!(config("aa").await, json!({"Test": ["CMD-SHELL", "x y"], "Retries": 2}));
    vch.docker_ok(&["create", "--name", "bb", "--no-healthcheck", IMAGE, "sim"]).await;
    assert_eq!(config("bb").await, json!({"Test": ["NONE"]}));
    // Absent without a check, and before there was a run.
    for name in ["aa", "bb"] {
        let told = vch.get(&format!("/containers/{name}/json")).await.json();
        assert!(told["State"].get("Health").is_none(), "{name}");
    }
    // A line goes to the container's own shell.
    let body = json!({
        "Image": IMAGE, "Cmd": ["sim", "sleep"], "Shell": ["sim", "print"],
        "Healthcheck": {"Test": ["CMD-SHELL", "x y"], "Interval": 20_000_000},
    });
    vch.post_json("/containers/create?name=one", &body.to_string()).await;
    vch.docker_ok(&["start", "one"]).await;
    becomes(&vch, "healthy").await;
    assert_eq!(health(&vch).await["Log"][0]["Output"], "x y\n");
    assert_eq!(
        vch.docker_ok(&["inspect", "-f", "{{json .Config.Shell}}", "one"]).await,
        r#"["sim","print"]"#
    );
    let wrong = json!({"Image": IMAGE, "Cmd": ["sim"], "Healthcheck": {"Test": ["CMD", "x"], "Timeout": 5}});
    let refused = vch.post_json("/containers/create", &wrong.to_string()).await;
    assert_eq!(
        (refused.status, refused.message()),
        (400, "Timeout in Healthcheck cannot be less than 1ms".into())
    );
    vch.world.engine.shutdown().await;
}
