//! Links, and the network mode `host`.

use crate::endpoint::Endpoint;
use crate::networks::{inspect, names, run};
use crate::world::IMAGE;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_a_name_that_one_container_knows() {
    let vch = Endpoint::new().await;
    let missing = vch.docker_fails(&["create", "--link", "db", IMAGE, "sim"]).await;
    assert!(missing.contains("could not get container for db: no such container: db"), "{missing}");
    let db = run(&vch, "db", &[]).await;
    let web = run(&vch, "web", &["--link", "db:store"]).await;
    let other = run(&vch, "other", &[]).await;
    assert!(names(&vch, &web).contains(&"store [172.17.0.2]".to_owned()), "{:?}", names(&vch, &web));
    assert!(!names(&vch, &other).iter().any(|name| name.starts_with("store ")));
    let shown = inspect(&vch, &["web"]).await;
    assert_eq!(shown["HostConfig"]["Links"], json!(["/db:/web/store"]));

    // It is to the container, whatever that is called, and the target must run at the start.
    vch.docker_ok(&["rename", "db", "base"]).await;
    assert_eq!(inspect(&vch, &["web"]).await["HostConfig"]["Links"], json!(["/base:/web/store"]));
    vch.docker_ok(&["stop", "-t", "0", "web", "base"]).await;
    let refused = vch.docker_fails(&["start", "web"]).await;
    assert!(refused.contains("Cannot link to a non running container: /base AS /web/store"), "{refused}");
    let once = vch.docker_fails(&["run", "--rm", "--name", "once", "--link", "base", IMAGE, "sim"]).await;
    assert!(once.contains("Cannot link to a non running container"), "{once}");
    assert_eq!(vch.docker_ok(&["ps", "-aq", "--filter", "name=once"]).await, "");
    vch.docker_ok(&["start", "base", "web"]).await;
    assert_eq!(vch.world.container(&db).await.name, "base");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_network_of_its_own_a_link_is_to_a_name() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&["network", "create", "mine"]).await;
    let web = run(&vch, "web", &["--network", "mine", "--link", "db:store"]).await;
    assert_eq!(names(&vch, &web), ["web [172.18.0.2]"]);
    run(&vch, "db", &["--network", "mine"]).await;
    crate::world::until("told", || async {
        names(&vch, &web) == ["db [172.18.0.3]", "store [172.18.0.3]", "web [172.18.0.2]"]
    })
    .await;
    let shown = inspect(&vch, &["web"]).await;
    assert_eq!(shown["NetworkSettings"]["Networks"]["mine"]["Links"], json!(["db:store"]));
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_a_container_has_an_address_and_no_ports() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&["network", "create", "mine"]).await;
    let created = vch
        .docker(&["run", "-d", "--name", "web", "--network", "host", "-p", "80:80", IMAGE, "sim", "sleep"])
        .await;
    assert!(
        created.err.contains("with an address of its own on the VCH's default network"),
        "{}",
        created.err
    );
    assert!(created.err.contains("ublished ports are discarded"), "{}", created.err);
    let shown = inspect(&vch, &["web"]).await;
    assert_eq!(shown["HostConfig"]["NetworkMode"], "host");
    assert_eq!(shown["NetworkSettings"]["Ports"], json!({}));
    assert_eq!(shown["NetworkSettings"]["Networks"]["host"]["IPAddress"], "172.17.0.2");
    assert_eq!(vch.docker_ok(&["ps", "--format", "{{.Networks}}{{.Ports}}"]).await, "host");
    assert_eq!(vch.docker_ok(&["ps", "-q", "--filter", "network=bridge"]).await, "");
    assert_ne!(vch.docker_ok(&["ps", "-q", "--filter", "network=host"]).await, "");
    let (host, bridge) = (&["--type", "network", "host"], &["--type", "network", "bridge"]);
    assert_eq!(inspect(&vch, host).await["Containers"].as_object().unwrap().len(), 1);
    assert_eq!(inspect(&vch, bridge).await["Containers"], json!({}));
    let list = vch.docker_ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]).await;
    assert_eq!(list, "bridge bridge\nhost host\nmine bridge\nnone null");

    for (args, text) in [
        (&["connect", "mine", "web"][..], "sharing network namespace with another container or host"),
        (&["connect", "host", "web"], "connected to host network"),
        (&["disconnect", "host", "web"], "cannot be disconnected from host network"),
        (&["disconnect", "bridge", "web"], "is not connected to network bridge"),
        (&["rm", "host"], "pre-defined network"),
    ] {
        let refused = vch.docker_fails(&[&["network"], args].concat()).await;
        assert!(refused.contains(text), "{args:?}: {refused}");
    }
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_begin_on_networks_and_end_off_them() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&["network", "create", "mine"]).await;
    vch.docker_ok(&["create", "--name", "web", IMAGE, "sim", "sleep"]).await;
    // Not before there is something that is on it.
    vch.docker_ok(&["network", "connect", "mine", "web"]).await;
    vch.docker_ok(&["start", "web"]).await;
    vch.docker_ok(&["network", "disconnect", "mine", "web"]).await;
    vch.docker_ok(&["network", "connect", "mine", "web"]).await;
    vch.docker_ok(&["kill", "web"]).await;
    vch.docker_ok(&["wait", "web"]).await;
    vch.docker_ok(&["run", "--network", "none", IMAGE, "sim", "exit", "0"]).await;
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}";
    let story = || async {
        let args = ["events", "--since", "1h", "--until", "0s", "--format", format];
        let kinds = ["--filter", "type=network", "--filter", "event=connect", "--filter", "event=disconnect"];
        vch.docker_ok(&[&args[..], &kinds].concat()).await
    };
    // The end of a time is the beginning of a second.
    crate::world::until("told", || async { story().await.contains("disconnect none") }).await;
    assert_eq!(
        story().await.lines().collect::<Vec<_>>(),
        [
            "network connect bridge bridge",
            "network connect mine bridge",
            "network disconnect mine bridge",
            "network connect mine bridge",
            "network disconnect bridge bridge",
            "network disconnect mine bridge",
            "network connect none null",
            "network disconnect none null",
        ]
    );
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_api_1_44_a_container_is_made_on_one_network() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&["network", "create", "mine"]).await;
    let body = json!({
        "Image": IMAGE, "Cmd": ["sim"], "HostConfig": {"NetworkMode": "bridge"},
        "NetworkingConfig": {"EndpointsConfig": {"bridge": {}, "mine": {}}},
    });
    let json_body = [("Content-Type", "application/json")];
    let create = |version: &'static str| {
        let (vch, body) = (&vch, body.to_string());
        async move { vch.send("POST", &format!("/{version}/containers/create"), &json_body, &body).await }
    };
    let old = create("v1.43").await;
    assert_eq!(old.status, 400);
    assert_eq!(old.message(), "Container cannot be created with multiple network endpoints: bridge, mine");
    assert_eq!(create("v1.44").await.status, 201);
    vch.world.engine.shutdown().await;
}
