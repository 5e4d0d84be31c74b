//! Restart, rename, prune, pause, update and restart policies, as people type them.

use crate::endpoint::Endpoint;
use crate::world::{IMAGE, until, within};
use serde_json::Value;
use std::process::Stdio;

const RUN: [&str; 4] = ["run", "-d", "--network", "none"];

async fn run(vch: &Endpoint, options: &[&str], script: &str) -> String {
    let words: Vec<&str> = script.split_whitespace().collect();
    vch.docker_ok(&[&RUN[..], options, &[IMAGE, "sim"], &words].concat()).await
}

async fn inspect(vch: &Endpoint, format: &str, name: &str) -> String {
    vch.docker_ok(&["inspect", "-f", format, name]).await
}

/// The actions on containers so far, with those attributes that are not always there.
/// Of containers, with what is told of them beside their name.
pub async fn actions(vch: &Endpoint) -> Vec<String> {
    let since = vch.world.vch.created_at.timestamp().to_string();
    let until = (chrono::Utc::now().timestamp() + 1).to_string();
    let format = "{{.Action}}{{with .Actor.Attributes.oldName}} {{.}}{{end}}\
                  {{with .Actor.Attributes.exitCode}} {{.}}{{end}}{{with .Actor.Attributes.signal}} {{.}}{{end}}";
    let args =
        ["events", "--since", &since, "--until", &until, "--filter", "type=container", "--format", format];
    vch.docker_ok(&args).await.lines().map(Into::into).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_and_rename() {
    let vch = Endpoint::new().await;
    let id = run(&vch, &["--name", "web"], "sleep").await;
    assert_eq!(vch.docker_ok(&["restart", "web"]).await, "web");
    assert_eq!(vch.docker_ok(&["restart", "-t", "0", "-s", "USR1", &id[..12]]).await, id[..12]);
    vch.docker_ok(&["rename", "web", "shop"]).await;
    let said = vch.docker_fails(&["rename", "shop", "shop"]).await;
    assert!(said.contains("Renaming a container with the same name as its current name"), "{said}");
    let said = vch.docker_fails(&["rename", "shop", "x y"]).await;
    assert!(said.contains("Error when allocating new name: Invalid container name (x y)"), "{said}");
    let said = vch.docker_fails(&["kill", "nosuch"]).await;
    assert!(said.contains("cannot kill container: nosuch: No such container: nosuch"), "{said}");
    let said = vch.docker_fails(&["ps", "--filter", "health=odd"]).await;
    assert!(said.contains("unrecognized filter value for health: odd"), "{said}");
    assert_eq!(
        actions(&vch).await,
        [
            "create",
            "start",
            "kill 15",
            "die 143",
            "stop",
            "start",
            "restart",
            "kill 10",
            "die 138",
            "stop",
            "start",
            "restart",
            "rename /web"
        ]
    );
    assert_eq!(
        inspect(&vch, "{{.Name}} {{.State.Status}} {{.RestartCount}}", "shop").await,
        "/shop running 0"
    );
    let empty = vch.send("POST", "/containers/shop/rename", &[], "").await;
    assert_eq!((empty.status, empty.message().as_str()), (400, "Neither old nor new names may be empty"));
    run(&vch, &["--name", "other"], "sleep").await;
    let taken = vch.docker_fails(&["rename", "other", "shop"]).await;
    assert!(
        taken.contains("Conflict. The container name \"/shop\" is already in use by container"),
        "{taken}"
    );
    let link = vch.docker_fails(&["rm", "--link", "shop/db"]).await;
    assert!(link.contains("link is not supported (rm --link)"), "{link}");
    vch.docker_ok(&["rm", "-f", "-v", "shop", "other"]).await;
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_with_filters() {
    let vch = Endpoint::new().await;
    for (name, label) in [("aa", "keep=yes"), ("bb", "team=x"), ("cc", "team=y")] {
        vch.docker_ok(&["create", "--network", "none", "--name", name, "-l", label, IMAGE, "sim"]).await;
    }
    run(&vch, &["--name", "runs", "-l", "team=x"], "sleep").await;
    let prune = |filters: &'static [&'static str]| {
        let args: Vec<&str> = ["container", "prune", "-f"]
            .into_iter()
            .chain(filters.iter().flat_map(|filter| ["--filter", *filter]))
            .collect();
        let vch = &vch;
        async move { vch.docker_ok(&args).await }
    };
    let names = || async { vch.docker_ok(&["ps", "-a", "--format", "{{.Names}}"]).await };
    prune(&["until=1h"]).await;
    assert_eq!(names().await, "runs\ncc\nbb\naa");
    assert!(prune(&["label=team=x"]).await.contains("Total reclaimed space"));
    assert_eq!(names().await, "runs\ncc\naa");
    prune(&["label!=keep", "until=0s"]).await;
    assert_eq!(names().await, "runs\naa");
    let wrong = vch.docker_fails(&["container", "prune", "-f", "--filter", "name=a"]).await;
    assert!(wrong.contains("invalid filter 'name'"), "{wrong}");
    assert_eq!(actions(&vch).await.iter().filter(|action| *action == "prune").count(), 3);
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_policies() {
    let vch = Endpoint::new().await;
    run(&vch, &["--name", "twice", "--restart", "on-failure:2"], "exit 3").await;
    until("its retries are over", || async {
        inspect(&vch, "{{.State.Status}} {{.RestartCount}}", "twice").await == "exited 2"
    })
    .await;
    let policy = inspect(&vch, "{{json .HostConfig.RestartPolicy}}", "twice").await;
    let policy: Value = serde_json::from_str(&policy).unwrap();
    assert_eq!(policy, serde_json::json!({"Name": "on-failure", "MaximumRetryCount": 2}));

    run(&vch, &["--name", "loop", "--restart", "always"], "exit 1").await;
    let state = "{{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{.State.Pid}}";
    until("restarting", || async { inspect(&vch, state, "loop").await == "restarting true true 0" }).await;
    until("shown so", || async {
        let shown = vch.docker_ok(&["ps", "--format", "{{.Names}} {{.Status}}"]).await;
        shown.starts_with("loop Restarting (1) ")
    })
    .await;
    until("refused", || async {
        let refused = vch.docker(&["rm", "loop"]).await;
        refused.err.contains("cannot remove container \"/loop\": container is restarting: stop the container")
    })
    .await;
    vch.docker_ok(&["stop", "loop"]).await;
    assert_eq!(inspect(&vch, "{{.State.Status}}", "loop").await, "exited");

    for (args, text) in [
        (&["--rm", "--restart", "always"][..], "--rm"),
        (&["--restart", "sometimes"], "unknown policy 'sometimes'"),
        (&["--restart", "always:3"], "maximum retry count can only be used with 'on-failure'"),
    ] {
        let args = [&["create", "--network", "none"][..], args, &[IMAGE, "sim"]].concat();
        let said = vch.docker_fails(&args).await;
        assert!(said.contains(text), "{said}");
    }
    let body =
        r#"{"Image":"app","Cmd":["sim"],"HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}}"#;
    let both = vch.post_json("/containers/create", body).await;
    assert_eq!(
        (both.status, both.message().as_str()),
        (400, "can't create 'AutoRemove' container with restart policy")
    );
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_unpause() {
    let vch = Endpoint::new().await;
    let id = run(&vch, &["--name", "web"], "sleep").await;
    assert_eq!(vch.docker_ok(&["pause", "web"]).await, "web");
    assert_eq!(
        inspect(&vch, "{{.State.Status}} {{.State.Running}} {{.State.Paused}}", "web").await,
        "paused true true"
    );
    let shown =
        vch.docker_ok(&["ps", "--filter", "status=paused", "--format", "{{.Names}} {{.Status}}"]).await;
    assert!(shown.starts_with("web Up ") && shown.ends_with("(Paused)"), "{shown}");
    for (args, text) in [
        (&["pause", "web"][..], format!("container {id} is already paused")),
        (&["start", "web"], "cannot start a paused container, try unpause instead".into()),
        (
            &["rm", "web"],
            "cannot remove container \"/web\": container is paused and must be unpaused first".into(),
        ),
    ] {
        let said = vch.docker_fails(args).await;
        assert!(said.contains(&text), "{said}");
    }
    let attach = vch.send("POST", "/containers/web/attach?stream=1&stdout=1", &[], "").await;
    assert_eq!(attach.status, 409);
    assert_eq!(attach.message(), format!("container {id} is paused, unpause the container before attach"));
    let exec = vch.post_json("/containers/web/exec", r#"{"Cmd":["sim"]}"#).await;
    assert_eq!(exec.status, 409);
    assert_eq!(exec.message(), format!("container {id} is paused, unpause the container before exec"));
    vch.docker_ok(&["unpause", "web"]).await;
    let not = vch.docker_fails(&["unpause", "web"]).await;
    assert!(not.contains(&format!("Container {id} is not paused")), "{not}");
    vch.docker_ok(&["pause", "web"]).await;
    vch.docker_ok(&["stop", "web"]).await;
    assert_eq!(
        actions(&vch).await,
        ["create", "start", "pause", "unpause", "pause", "kill 15", "unpause", "die 143", "stop"]
    );
    let stopped = vch.docker_fails(&["pause", "web"]).await;
    assert!(stopped.contains(&format!("container {id} is not running")), "{stopped}");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn update_changes_what_can_change() {
    let vch = Endpoint::new().await;
    run(&vch, &["--name", "web", "--cpus", "2"], "sleep").await;
    vch.docker_ok(&["update", "--restart", "unless-stopped", "--cpus", "0.5", "web"]).await;
    let format = "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.NanoCpus}}";
    assert_eq!(inspect(&vch, format, "web").await, "unless-stopped 500000000");
    // Back up to what its machine has, and no further.
    vch.docker_ok(&["update", "--cpus", "2", "web"]).await;
    let more = vch.docker_fails(&["update", "--cpus", "3", "web"]).await;
    assert!(more.contains("cannot have more CPUs than its machine was started with, 2 here"), "{more}");
    let memory = vch.docker_fails(&["update", "-m", "3g", "web"]).await;
    assert!(memory.contains("cannot have more than 2048 MiB of memory"), "{memory}");
    vch.docker_ok(&["update", "-m", "700m", "web"]).await;
    vch.docker_ok(&["update", "-m", "400m", "--memory-swap", "400m", "--pids-limit", "9", "web"]).await;
    vch.docker_ok(&["update", "--cpuset-cpus", "0-1", "web"]).await;
    assert_eq!(
        inspect(
            &vch,
            "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpusetCpus}} {{.HostConfig.NanoCpus}}",
            "web"
        )
        .await,
        "419430400 9 0-1 2000000000"
    );
    vch.docker_ok(&["update", "--pids-limit", "-1", "web"]).await;
    assert_eq!(inspect(&vch, "{{.HostConfig.PidsLimit}}", "web").await, "<nil>");
    let shares = vch.docker_ok(&["update", "--cpu-shares", "5", "web"]).await;
    assert!(shares.contains("CpuShares discarded"), "{shares}");

    vch.docker_ok(&["stop", "web"]).await;
    vch.docker_ok(&["update", "-m", "300m", "--cpus", "3", "web"]).await;
    assert_eq!(
        inspect(&vch, "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", "web").await,
        "314572800 3000000000"
    );
    let small = vch.docker_fails(&["update", "-m", "1m", "web"]).await;
    assert!(
        small.contains("minimum memory limit allowed is 6MB") || small.contains("Minimum memory"),
        "{small}"
    );
    assert!(actions(&vch).await.contains(&"update".to_owned()));

    run(&vch, &["--name", "once", "--rm"], "sleep").await;
    let rm = vch.docker_fails(&["update", "--restart", "always", "once"]).await;
    assert!(rm.contains("Restart policy cannot be updated because AutoRemove is enabled"), "{rm}");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ps_filters_and_sizes() {
    let vch = Endpoint::new().await;
    run(&vch, &["--name", "web", "-l", "team=a", "--expose", "80"], "sleep").await;
    run(&vch, &["--name", "still"], "sleep").await;
    vch.docker_ok(&["pause", "still"]).await;
    run(&vch, &["--name", "done"], "exit 4").await;
    vch.docker_ok(&["wait", "done"]).await;
    let id = vch.docker_ok(&["create", "--network", "none", "--name", "new", IMAGE, "sim"]).await;
    for (filters, expect) in [
        (&[][..], "still web"),
        (&["status=paused"], "still"),
        (&["status=running"], "web"),
        (&["status=exited", "status=created"], "new done"),
        (&["exited=4"], "done"),
        (&["exited=0"], ""),
        (&["name=^/web$"], "web"),
        (&["name=e"], "web"),
        (&["label=team=a"], "web"),
        (&["label=team"], "web"),
        (&["label=team=b"], ""),
        (&["before=done"], "still web"),
        (&["since=web"], "still"),
        (&["ancestor=app"], "still web"),
        (&["ancestor=other"], ""),
        (&["expose=80"], "web"),
        (&["expose=80/udp"], ""),
        (&["publish=80"], ""),
        (&["volume=data"], ""),
        (&["network=none"], "still web"),
        (&["network=mine"], ""),
        (&["is-task=false"], "still web"),
        (&["is-task=true"], ""),
        (&["health=none"], "still web"),
    ] {
        let options: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", *filter]).collect();
        let args = [&["ps", "--format", "{{.Names}}"][..], &options].concat();
        let names = vch.docker_ok(&args).await.lines().collect::<Vec<_>>().join(" ");
        // An exit code and an id speak of what does not run, too.
        let all = filters.iter().any(|filter| filter.starts_with("exited"));
        if !all {
            assert_eq!(names, expect, "{filters:?}");
        }
        let args = [&["ps", "-a", "--format", "{{.Names}}"][..], &options].concat();
        let names = vch.docker_ok(&args).await.lines().collect::<Vec<_>>().join(" ");
        assert!(expect.split(' ').all(|name| names.contains(name)), "{filters:?}: {names}");
    }
    let by_id = format!("id={}", &id[..8]);
    assert_eq!(vch.docker_ok(&["ps", "-a", "--filter", &by_id, "--format", "{{.Names}}"]).await, "new");
    assert_eq!(vch.docker_ok(&["ps", "-l", "--format", "{{.Names}}"]).await, "new");
    assert_eq!(vch.docker_ok(&["ps", "-n", "2", "--format", "{{.Names}}"]).await, "new\ndone");
    let size = vch.docker_ok(&["ps", "-as", "--filter", "name=new", "--format", "{{.Size}}"]).await;
    assert!(size.ends_with(" (virtual 2kB)"), "{size}");
    let shown = vch
        .docker_ok(&[
            "info",
            "--format",
            "{{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}",
        ])
        .await;
    assert_eq!(shown, "1 1 2");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_the_foreground_ends_with_its_run() {
    let vch = Endpoint::new().await;
    let mut command = vch.docker_command(&[
        "run",
        "--network",
        "none",
        "--name",
        "web",
        "--restart",
        "always",
        IMAGE,
        "sim",
        "print",
        "x",
        ";",
        "exit",
        "7",
    ]);
    let output = within("run", command.stdout(Stdio::piped()).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x\n");
    vch.docker_ok(&["rm", "-f", "web"]).await;
    vch.world.engine.shutdown().await;
}
