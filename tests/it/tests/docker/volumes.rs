//! docker volume, and what docker run does with volumes.

use crate::endpoint::Endpoint;
use crate::world::{IMAGE, until};
use serde_json::{Value, json};

async fn json_of(vch: &Endpoint, args: &[&str]) -> Value {
    serde_json::from_str(&vch.docker_ok(args).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_from_create_to_prune() {
    let vch = Endpoint::new().await;
    let made = vch.docker_ok(&["volume", "create", "--label", "team=a", "-o", "size=64m", "data"]).await;
    assert_eq!(made, "data");
    // It is there: nothing else happens.
    assert_eq!(vch.docker_ok(&["volume", "create", "data"]).await, "data");
    let random = vch.docker_ok(&["volume", "create"]).await;
    assert_eq!(random.len(), 64);

    let inspected = json_of(&vch, &["volume", "inspect", "data"]).await;
    let volume = &inspected[0];
    assert_eq!(
        (&volume["Name"], &volume["Driver"], &volume["Scope"], &volume["Labels"], &volume["Options"]),
        (&json!("data"), &json!("local"), &json!("local"), &json!({"team": "a"}), &json!({"size": "64m"}))
    );
    assert!(chrono::DateTime::parse_from_rfc3339(volume["CreatedAt"].as_str().unwrap()).is_ok());
    let inspected = json_of(&vch, &["volume", "inspect", &random]).await;
    assert_eq!(inspected[0]["Labels"], json!({"com.docker.volume.anonymous": ""}));

    vch.docker_ok(&["create", "--network", "none", "--name", "web", "-v", "data:/d", IMAGE, "sim"]).await;
    for (filter, expect) in [
        ("name=dat", vec!["data"]),
        ("label=team", vec!["data"]),
        ("label=team=b", vec![]),
        ("driver=local", vec!["data", random.as_str()]),
        ("dangling=true", vec![random.as_str()]),
        ("dangling=0", vec!["data"]),
    ] {
        let listed = vch.docker_ok(&["volume", "ls", "-q", "--filter", filter]).await;
        let mut listed: Vec<&str> = listed.lines().collect();
        let mut expect = expect;
        listed.sort_unstable();
        expect.sort_unstable();
        assert_eq!(listed, expect, "{filter}");
    }
    let df = json_of(&vch, &["system", "df", "-v", "--format", "{{json .Volumes}}"]).await;
    assert!(df.as_array().unwrap().iter().any(|one| one["Name"] == "data" && one["Links"] == "1"), "{df}");

    let used = vch.docker_fails(&["volume", "rm", "data"]).await;
    assert!(used.contains("remove data: volume is in use - ["), "{used}");
    let missing = vch.docker_fails(&["volume", "rm", "nosuch"]).await;
    assert!(missing.contains("get nosuch: no such volume"), "{missing}");
    let missing = vch.docker_fails(&["volume", "inspect", "nosuch"]).await;
    assert!(missing.contains("get nosuch: no such volume"), "{missing}");
    for (args, text) in [
        (vec!["-d", "nfs", "x1"], "plugin \"nfs\" not found"),
        (vec!["-o", "type=tmpfs", "x1"], "volume option \"type\" is not supported"),
        (vec!["-o", "size=1k", "x1"], "a volume has 16777216 to"),
        (vec!["-o", "size=32m", "data"], "can be made larger but not smaller"),
        (vec!["/etc"], "includes invalid characters for a local volume name"),
    ] {
        let said = vch.docker_fails(&[&["volume", "create"], args.as_slice()].concat()).await;
        assert!(said.contains(text), "{args:?}: {said}");
    }

    // Only what nobody named; then all that nothing uses.
    assert!(vch.docker_ok(&["volume", "prune", "-f"]).await.contains(&random));
    vch.docker_ok(&["rm", "web"]).await;
    vch.docker_ok(&["volume", "create", "keep", "--label", "keep"]).await;
    let pruned = vch.docker_ok(&["volume", "prune", "-af", "--filter", "label!=keep"]).await;
    assert!(pruned.contains("data") && !pruned.contains("keep\n"), "{pruned}");
    assert_eq!(vch.docker_ok(&["volume", "ls", "-q"]).await, "keep");
    vch.docker_ok(&["volume", "rm", "-f", "nosuch", "keep"]).await;
    assert!(vch.world.sim.volume_sizes().is_empty());
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_shows_what_it_mounts() {
    let vch = Endpoint::new().await;
    let run = ["create", "--network", "none", "--name"];
    let mounts = [
        "-v",
        "data:/d",
        "-v",
        "/own",
        "--mount",
        "type=volume,src=cfg,dst=/etc/cfg,readonly,volume-label=a=b,volume-opt=size=32m",
        "--mount",
        "type=tmpfs,dst=/scratch,tmpfs-size=65536",
        "--volume-driver",
        "local",
    ];
    vch.docker_ok(&[&run[..], &["web"], &mounts, &[IMAGE, "sim"]].concat()).await;
    let web = json_of(&vch, &["inspect", "web"]).await[0].take();
    let shown = web["Mounts"].as_array().unwrap();
    let own = shown.iter().find(|mount| mount["Destination"] == "/own").unwrap();
    assert_eq!(own["Name"].as_str().unwrap().len(), 64);
    let cfg = shown.iter().find(|mount| mount["Destination"] == "/etc/cfg").unwrap();
    assert_eq!(
        (&cfg["Type"], &cfg["Name"], &cfg["Driver"], &cfg["Mode"], &cfg["RW"], &cfg["Propagation"]),
        (&json!("volume"), &json!("cfg"), &json!("local"), &json!("ro"), &json!(false), &json!(""))
    );
    assert_eq!(web["HostConfig"]["Binds"], json!(["data:/d"]));
    assert_eq!(web["HostConfig"]["Mounts"][0]["Source"], "cfg");
    assert_eq!(web["Config"]["Volumes"], json!({"/own": {}}));
    assert_eq!(json_of(&vch, &["volume", "inspect", "cfg"]).await[0]["Labels"], json!({"a": "b"}));
    let listed = vch.docker_ok(&["ps", "-a", "--format", "{{.Mounts}}", "--filter", "volume=/d"]).await;
    assert!(listed.contains("data") && listed.contains("cfg"), "{listed}");
    assert_eq!(vch.docker_ok(&["ps", "-aq", "--filter", "volume=nosuch"]).await, "");

    vch.docker_ok(
        &[&run[..], &["other", "--volumes-from", "web:ro", "-v", "mine:/d", IMAGE, "sim"]].concat(),
    )
    .await;
    let other = json_of(&vch, &["inspect", "-f", "{{json .Mounts}}", "other"]).await;
    let mut names: Vec<_> = other
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| format!("{} {}", mount["Destination"].as_str().unwrap(), mount["RW"]))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["/d true", "/etc/cfg false", "/own false"]);

    for (args, text) in [
        (
            vec!["-v", "/etc:/x"],
            "HostConfig.Binds (-v) has the host's `/etc`: a container has no files of the host",
        ),
        (vec!["--mount", "type=bind,src=/etc,dst=/x"], "(--mount type=bind) has the host's `/etc`"),
        (vec!["-v", "aa:/x", "-v", "bb:/x/"], "Duplicate mount point: /x"),
        (vec!["-v", "aa:/x", "--tmpfs", "/x"], "Duplicate mount point: /x"),
        (vec!["-v", "aa:/proc/x"], "must not be inside /proc or /sys"),
        (vec!["--volumes-from", "nosuch"], "No such container: nosuch"),
    ] {
        let said = vch.docker_fails(&[&["create"], args.as_slice(), &[IMAGE, "sim"]].concat()).await;
        assert!(said.contains(text), "{args:?}: {said}");
    }
    assert_eq!(vch.docker_ok(&["volume", "ls", "-q"]).await.lines().count(), 4, "refusals made volumes");
    vch.docker_ok(&["rm", "-v", "other", "web"]).await;
    assert_eq!(vch.docker_ok(&["volume", "ls", "-q"]).await, "cfg\ndata\nmine");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_tells_its_mounts_and_leaves_what_is_named() {
    let vch = Endpoint::new().await;
    let run = ["run", "--network", "none"];
    vch.docker_ok(&[&run[..], &["-d", "--name", "web", "-v", "data:/d:ro", IMAGE, "sim", "sleep"]].concat())
        .await;
    let held = vch.docker(&[&run[..], &["-v", "data:/e", IMAGE, "sim"]].concat()).await;
    assert!(held.code == 125 && held.err.contains("volume data is in use by container"), "{held:?}");
    // Also where it is to be removed at its end, which is waited for.
    let held = vch.docker(&[&run[..], &["--rm", "-v", "data:/e", "-v", "/o", IMAGE, "sim"]].concat()).await;
    assert!(held.code == 125 && held.err.contains("volume data is in use by container"), "{held:?}");
    assert_eq!(vch.docker_ok(&["ps", "-aq"]).await.lines().count(), 2);
    assert_eq!(vch.docker_ok(&["volume", "ls", "-q"]).await, "data");
    vch.docker_ok(&["rm", "-f", "web"]).await;
    vch.docker_ok(&[&run[..], &["--rm", "-v", "data:/d", "-v", "/own", IMAGE, "sim", "exit", "0"]].concat())
        .await;
    until("removed", || async { vch.docker_ok(&["volume", "ls", "-q"]).await == "data" }).await;
    let told = async |filter: &str| -> Vec<Value> {
        let args = ["events", "--since", "1h", "--until", "0s", "--format", "{{json .}}"];
        let filters = ["--filter", "type=volume", "--filter", filter];
        let events = vch.docker_ok(&[&args[..], &filters].concat()).await;
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // The end of a time is the beginning of a second.
    until("told", || async { told("volume=data").await.len() >= 5 }).await;
    let events = told("volume=data").await;
    let actions: Vec<_> = events.iter().map(|event| event["Action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["create", "mount", "unmount", "mount", "unmount"]);
    let mounted = &events[1]["Actor"]["Attributes"];
    assert_eq!(
        (&mounted["driver"], &mounted["destination"], &mounted["read/write"], &mounted["propagation"]),
        (&json!("local"), &json!("/d"), &json!("false"), &json!(""))
    );
    assert_eq!(mounted["container"].as_str().unwrap().len(), 64);
    until("destroyed", || async { told("event=destroy").await.len() == 2 }).await;
    vch.world.engine.shutdown().await;
}
