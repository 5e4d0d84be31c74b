//! What people type.

use crate::endpoint::Endpoint;
use crate::world::{IMAGE, until};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_from_create_to_rm() {
    let vch = Endpoint::new().await;
    let created = vch
        .docker(&["create", "--name", "web", "-l", "team=a", IMAGE, "sim", "count", "3", ";", "exit", "5"])
        .await;
    assert_eq!(created.code, 0, "{created:?}");
    assert_eq!(created.err, "", "{created:?}");
    let id = created.out.trim();
    assert_eq!(id.len(), 64);

    assert_eq!(
        vch.docker_ok(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.Image}}"]).await,
        "web created app"
    );
    assert_eq!(vch.docker_ok(&["start", "web"]).await, "web");
    assert_eq!(vch.docker_ok(&["wait", "web"]).await, "5");
    assert_eq!(vch.docker_ok(&["logs", "web"]).await, "line 1\nline 2\nline 3");
    assert_eq!(vch.docker_ok(&["logs", "--tail", "1", "web"]).await, "line 3");
    let stamped = vch.docker_ok(&["logs", "-t", "--tail", "1", "web"]).await;
    assert!(stamped.starts_with("20") && stamped.ends_with("Z line 3"), "{stamped}");
    let line = vch.docker_ok(&["ps", "-a", "--filter", "label=team=a", "--format", "{{.Status}}"]).await;
    assert!(line.starts_with("Exited (5) "), "{line}");

    let inspected: Value = serde_json::from_str(&vch.docker_ok(&["inspect", "web"]).await).unwrap();
    let inspected = &inspected[0];
    assert_eq!(inspected["Id"], id);
    assert_eq!(inspected["State"]["Status"], "exited");
    assert_eq!(inspected["State"]["ExitCode"], 5);
    assert_eq!(inspected["Config"]["Cmd"][0], "sim");
    assert_eq!(inspected["HostConfig"]["NetworkMode"], "bridge");
    assert!(inspected["NetworkSettings"]["Networks"]["bridge"].is_object());

    assert_eq!(vch.docker_ok(&["rm", "web"]).await, "web");
    assert_eq!(vch.docker_ok(&["ps", "-aq"]).await, "");
    let gone = vch.docker_fails(&["inspect", "web"]).await;
    assert!(gone.contains("no such object: web") || gone.contains("No such object: web"), "{gone}");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_brings_output_and_exit_code() {
    let vch = Endpoint::new().await;
    let said = vch
        .docker(&["run", "--rm", IMAGE, "sim", "print", "out", ";", "eprint", "err", ";", "exit", "7"])
        .await;
    assert_eq!((said.code, said.out.as_str()), (7, "out\n"), "{said:?}");
    assert_eq!(said.err, "err\n", "{said:?}");
    until("removed", || async { vch.docker_ok(&["ps", "-aq"]).await.is_empty() }).await;

    let said = vch.docker(&["run", "--network", "none", IMAGE, "sim", "flood", "300000"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(said.out.len(), 300_000);
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_there_is_127() {
    let vch = Endpoint::new().await;
    for args in [vec!["run", IMAGE, "nosuch"], vec!["run", "--rm", IMAGE, "nosuch"]] {
        let said = vch.docker(&args).await;
        assert_eq!(said.code, 127, "{said:?}");
        assert_eq!(said.err.matches("executable file not found in $PATH").count(), 1, "{said:?}");
    }
    assert_eq!(vch.docker_ok(&["ps", "-a", "--format", "{{.State}}"]).await, "created");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_kill_and_rm_force() {
    let vch = Endpoint::new().await;
    let run = ["run", "-d", "--network", "none", "--name"];
    let sleep = [IMAGE, "sim", "sleep"];
    for name in ["one", "two", "three"] {
        vch.docker_ok(&[&run[..], &[name], &sleep[..]].concat()).await;
    }
    assert!(vch.docker_ok(&["ps", "--format", "{{.Status}}"]).await.starts_with("Up "));
    let running = vch.docker_fails(&["rm", "one"]).await;
    assert!(running.contains("cannot remove container \"/one\": container is running: stop the container before removing or force remove"), "{running}");
    vch.docker_ok(&["stop", "one"]).await;
    assert_eq!(vch.docker_ok(&["inspect", "-f", "{{.State.ExitCode}}", "one"]).await, "143");
    vch.docker_ok(&["stop", "one"]).await;
    vch.docker_ok(&["kill", "two"]).await;
    assert_eq!(vch.docker_ok(&["wait", "two"]).await, "137");
    let dead = vch.docker_fails(&["kill", "two"]).await;
    assert!(
        dead.contains("cannot kill container: two: container ") && dead.contains(" is not running"),
        "{dead}"
    );
    vch.docker_ok(&["rm", "-f", "three"]).await;
    vch.docker_ok(&["rm", "one", "two"]).await;
    let taken = vch.docker_ok(&["create", "--name", "db", IMAGE, "sim"]).await;
    let conflict = vch.docker_fails(&["create", "--name", "db", IMAGE, "sim"]).await;
    let text = format!(
        "Conflict. The container name \"/db\" is already in use by container \"{taken}\". You have to remove (or rename) that container to be able to reuse that name."
    );
    assert!(conflict.contains(&text), "{conflict}");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_by_name() {
    let vch = Endpoint::new().await;
    for (args, text) in [
        (&["-v", "/a:/b"][..], "HostConfig.Binds (-v) has the host's `/a`"),
        (
            &["--mount", "type=bind,src=/a,dst=/b"],
            "HostConfig.Mounts (--mount type=bind) has the host's `/a`",
        ),
        (&["--network", "container:x"], "HostConfig.NetworkMode `container:x`"),
        (&["--pid", "container:x"], "HostConfig.PidMode"),
        (&["--ipc", "container:x"], "HostConfig.IpcMode"),
        (&["--security-opt", "apparmor=mine"], "HostConfig.SecurityOpt"),
        (&["--log-driver", "syslog"], "HostConfig.LogConfig"),
        (&["--runtime", "runc"], "HostConfig.Runtime"),
    ] {
        let error = vch.docker_fails(&[&["create"], args, &[IMAGE, "sim"][..]].concat()).await;
        assert!(error.contains("bulkhead: ") && error.contains(text), "{args:?}: {error}");
    }
    // In the words of an engine whose host has none.
    let device = vch.docker_fails(&["create", "--device", "/dev/kvm", IMAGE, "sim"]).await;
    assert!(device.contains("adding custom device \"/dev/kvm\": no such file or directory"), "{device}");
    vch.docker_ok(&["create", "--device", "/dev/fuse", IMAGE, "sim"]).await;
    // The CLI's own defaults, and what means what is so anyway.
    for args in [
        &[][..],
        &["--shm-size", "64m"],
        &["--memory-swappiness", "-1"],
        &["--no-healthcheck"],
        &["--restart", "no"],
        &["--read-only", "--tmpfs", "/tmp:size=1m", "--init", "--domainname", "x", "--ulimit", "nofile=1"],
        &["--cap-drop", "ALL", "--cap-add", "net_raw", "--security-opt", "no-new-privileges"],
        &["--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host"],
    ] {
        vch.docker_ok(&[&["create"], args, &[IMAGE, "sim"][..]].concat()).await;
    }
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_s_refusal_is_read_by_its_user() {
    let vch = Endpoint::of("prod").await;
    let error = vch.docker_fails(&["create", "--privileged", IMAGE, "sim"]).await;
    assert!(
        error.contains("denied by policy \"") && error.contains("see: bulkhead decision show d-"),
        "{error}"
    );
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_that_only_read() {
    let vch = Endpoint::new().await;
    let version = vch
        .docker_ok(&["version", "--format", "{{.Server.APIVersion}} {{.Server.Os}} {{.Server.Version}}"])
        .await;
    assert_eq!(version, "1.54 linux 0.0.0-test");
    vch.docker_ok(&["version"]).await;
    let info = vch.docker_ok(&["info", "--format", "{{json .}}"]).await;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["Images"], 1);
    assert!(info["NCPU"].is_number() && info["MemTotal"].is_number());
    vch.docker_ok(&["info"]).await;
    vch.docker_ok(&["system", "df"]).await;
    vch.docker_ok(&["system", "df", "-v"]).await;
    assert_eq!(
        vch.docker_ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]).await,
        "bridge bridge\nhost host\nnone null"
    );
    vch.docker_ok(&["network", "inspect", "none"]).await;
    assert_eq!(vch.docker_ok(&["volume", "ls", "-q"]).await, "");
    assert!(vch.docker_fails(&["volume", "inspect", "data"]).await.contains("no such volume"));
    assert!(vch.docker_fails(&["network", "inspect", "mine"]).await.contains("network mine not found"));
    assert_eq!(vch.docker_ok(&["plugin", "ls", "-q"]).await, "");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_tagged_and_removed() {
    let vch = Endpoint::new().await;
    assert_eq!(vch.docker_ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).await, "app:latest");
    vch.docker_ok(&["history", IMAGE]).await;
    let inspected: Value = serde_json::from_str(&vch.docker_ok(&["image", "inspect", IMAGE]).await).unwrap();
    assert_eq!(inspected[0]["RepoTags"][0], "app:latest");
    vch.docker_ok(&["tag", IMAGE, "localhost:5000/a/b:1"]).await;
    assert_eq!(vch.docker_ok(&["rmi", "localhost:5000/a/b:1"]).await, "Untagged: localhost:5000/a/b:1");
    let id = vch.docker_ok(&["create", "--network", "none", IMAGE, "sim"]).await;
    let used = vch.docker_fails(&["rmi", IMAGE]).await;
    let text = "conflict: unable to remove repository reference \"app:latest\" (must force) - container ";
    assert!(used.contains(text) && used.contains(&id[..12]), "{used}");
    vch.docker_ok(&["rm", &id]).await;
    assert!(vch.docker_ok(&["rmi", IMAGE]).await.contains("Deleted: sha256:"));
    let missing = vch.docker_fails(&["image", "inspect", IMAGE]).await;
    assert!(missing.to_lowercase().contains("no such image: app:latest"), "{missing}");
    let until = (chrono::Utc::now().timestamp() + 1).to_string();
    let filter = ["events", "--since", "1h", "--until", &until, "--filter", "type=image", "--format"];
    let told = vch.docker_ok(&[&filter[..], &["{{.Action}} {{.Actor.Attributes.name}}"]].concat()).await;
    let id = inspected[0]["Id"].as_str().unwrap();
    let removed = format!("tag localhost:5000/a/b:1\nuntag {id}\nuntag {id}\ndelete {id}");
    assert!(told.ends_with(&removed), "{told}");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_the_story() {
    let vch = Endpoint::new().await;
    let said =
        vch.docker(&["run", "--rm", "--network", "none", "--name", "web", IMAGE, "sim", "exit", "2"]).await;
    assert_eq!(said.code, 2, "{said:?}");
    until("removed", || async { vch.docker_ok(&["ps", "-aq"]).await.is_empty() }).await;
    // Whole seconds: a bound of now would leave out the second that is on.
    let story = vch
        .docker_ok(&[
            "events",
            "--since",
            "1h",
            "--until=-2s",
            "--filter",
            "container=web",
            "--format",
            "{{.Action}}",
        ])
        .await;
    assert_eq!(story.lines().collect::<Vec<_>>(), ["create", "attach", "start", "die", "destroy"]);
    let died = vch
        .docker_ok(&[
            "events",
            "--since",
            "1h",
            "--until=-2s",
            "--filter",
            "event=die",
            "--format",
            "{{json .Actor.Attributes}}",
        ])
        .await;
    let died: Value = serde_json::from_str(&died).unwrap();
    assert_eq!((&died["exitCode"], &died["name"]), (&"2".into(), &"web".into()));
    vch.world.engine.shutdown().await;
}
