//! Networks with IPv6 beside IPv4.

use crate::endpoint::Endpoint;
use crate::networks::{inspect, names, run};
use crate::world::IMAGE;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_network_with_ipv6_gives_addresses_of_both_families() {
    let vch = Endpoint::new().await;
    vch.docker_ok(&["network", "create", "--ipv6", "--subnet", "fd01::/64", "--gateway", "fd01::9", "mine"])
        .await;
    vch.docker_ok(&["network", "create", "--ipv6", "found"]).await;
    let shown = inspect(&vch, &["--type", "network", "mine"]).await;
    assert_eq!(shown["EnableIPv6"], true);
    assert_eq!(shown["IPAM"]["Config"][1], json!({"Subnet": "fd01::/64", "Gateway": "fd01::9"}));
    let found = inspect(&vch, &["--type", "network", "found"]).await;
    assert!(found["IPAM"]["Config"][1]["Subnet"].as_str().unwrap().starts_with("fd"), "{found}");
    for (args, text) in [
        (&["--ipv6", "--subnet", "fd01::/80", "x"][..], "Pool overlaps with other one on this address space"),
        (&["--ipv6", "--subnet", "fd62:6c6b:6864::/96", "x"], "Pool overlaps"),
        (&["--ipv6", "--subnet", "fe80::/64", "x"], "it is link-local"),
    ] {
        let refused = vch.docker_fails(&[&["network", "create"], args].concat()).await;
        assert!(refused.contains(text), "{args:?}: {refused}");
    }

    let web = run(&vch, "web", &["--network", "mine", "--ip6", "fd01::5", "-p", "8080:80"]).await;
    let db = run(&vch, "db", &["--network", "mine"]).await;
    let of = |shown: &serde_json::Value| shown["NetworkSettings"]["Networks"]["mine"].clone();
    let place = of(&inspect(&vch, &["web"]).await);
    assert_eq!(place["GlobalIPv6Address"], "fd01::5");
    assert_eq!((&place["GlobalIPv6PrefixLen"], &place["IPv6Gateway"]), (&json!(64), &json!("fd01::9")));
    assert_eq!(place["IPAMConfig"], json!({"IPv6Address": "fd01::5"}));
    assert_eq!(of(&inspect(&vch, &["db"]).await)["GlobalIPv6Address"], "fd01::1");
    let told = vch.world.sim.told_network(&db).unwrap();
    assert_eq!(told.interfaces[0].six.unwrap().gateway, "fd01::9".parse().ok());
    assert!(names(&vch, &db).contains(&"web [172.18.0.2, fd01::5]".to_owned()), "{:?}", names(&vch, &db));
    let network = inspect(&vch, &["--type", "network", "mine"]).await;
    assert_eq!(network["Containers"][web.as_str()]["IPv6Address"], "fd01::5/64");

    // On every address of the host: of both families, each to the container's of the same.
    assert_eq!(vch.docker_ok(&["port", "web", "80"]).await, "0.0.0.0:8080\n[::]:8080");
    let leading = vch.world.sim.networks().into_iter().flat_map(|networks| networks.published);
    let leading: Vec<_> =
        leading.map(|one| format!("{} {}", one.published.host_address, one.target)).collect();
    assert_eq!(leading, ["0.0.0.0 172.18.0.2", ":: fd01::5"]);
    let taken = vch.docker_fails(&["run", "--network", "mine", "--ip6", "fd01::5", IMAGE, "sim"]).await;
    assert!(taken.contains("Address already in use"), "{taken}");
    vch.docker_ok(&["rm", "-f", "web"]).await;
    run(&vch, "web", &["--network", "mine", "-p", "[2001:db8::1]:8080:80"]).await;
    assert_eq!(vch.docker_ok(&["port", "web", "80"]).await, "[2001:db8::1]:8080");
    let refused = vch.docker_fails(&["create", "--network", "mine", "-p", "[::1]:81:80", IMAGE, "sim"]).await;
    assert!(refused.contains("publish it on 127.0.0.1"), "{refused}");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ipv6_there_is_none() {
    let vch = Endpoint::new().await;
    let four = ["--subnet", "10.5.0.0/24"];
    vch.docker_ok(&[&["network", "create"], &four[..], &["mine"]].concat()).await;
    run(&vch, "web", &["--network", "mine", "-p", "8080:80"]).await;
    assert_eq!(vch.docker_ok(&["port", "web", "80"]).await, "0.0.0.0:8080");
    let refused = vch.docker_fails(&["run", "--network", "mine", "-p", "[::]:81:80", IMAGE, "sim"]).await;
    assert!(refused.contains("put it on a network that was created with --ipv6"), "{refused}");
    let refused = vch.docker_fails(&["run", "--network", "mine", "--ip6", "fd01::5", IMAGE, "sim"]).await;
    assert!(refused.contains("no configured subnet contains IP address fd01::5"), "{refused}");
    vch.world.engine.shutdown().await;
}
