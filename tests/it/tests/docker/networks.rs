//! Networks, addresses, ports and names, as people ask for them.

use crate::endpoint::Endpoint;
use crate::world::{IMAGE, until};
use bulkhead_model::ports::Protocol;
use bulkhead_model::{ContainerId, VchId};
use serde_json::{Value, json};

pub async fn inspect(vch: &Endpoint, what: &[&str]) -> Value {
    let text = vch.docker_ok(&[&["inspect"], what].concat()).await;
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

pub async fn run(vch: &Endpoint, name: &str, options: &[&str]) -> ContainerId {
    let fixed = ["run", "-d", "--name", name];
    let sim = [IMAGE, "sim", "sleep"];
    vch.docker_ok(&[&fixed, options, &sim].concat()).await.parse().unwrap()
}

/// Ports of the host that lead into the VCH, as the back end was told.
fn leading(vch: &Endpoint) -> Vec<String> {
    let all = vch.world.sim.networks().into_iter().flat_map(|networks| networks.published);
    all.map(|one| {
        format!(
            "{}:{} {}:{}",
            one.published.host_address, one.published.host_port, one.target, one.published.container_port
        )
    })
    .collect()
}

/// Names that a container's guest knows, with addresses.
pub fn names(vch: &Endpoint, id: &ContainerId) -> Vec<String> {
    let told = vch.world.sim.told_network(id).unwrap_or_default();
    let is_short_id = |name: &str| name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let named = told.resolver.names.into_iter().filter(|one| !is_short_id(&one.name));
    named.map(|one| format!("{} {:?}", one.name, one.addresses)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_published_once() {
    let vch = Endpoint::new().await;
    run(&vch, "web", &["-p", "8080:80", "-p", "127.0.0.1::53/udp"]).await;
    assert_eq!(vch.docker_ok(&["port", "web", "80"]).await, "0.0.0.0:8080");
    assert_eq!(vch.docker_ok(&["port", "web", "53/udp"]).await, "127.0.0.1:32768");
    assert_eq!(leading(&vch), ["127.0.0.1:32768 172.17.0.2:53", "0.0.0.0:8080 172.17.0.2:80"]);
    let ports = vch.docker_ok(&["ps", "--format", "{{.Ports}}"]).await;
    assert_eq!(ports, "127.0.0.1:32768->53/udp, 0.0.0.0:8080->80/tcp");

    vch.docker_ok(&["create", "--name", "other", "-p", "127.0.0.1:8080:80", IMAGE, "sim", "sleep"]).await;
    let refused = vch.docker_fails(&["start", "other"]).await;
    assert!(refused.contains("Bind for 127.0.0.1:8080 failed: port is already allocated"), "{refused}");
    let refused = vch.docker_fails(&["create", "-p", "22:22", IMAGE, "sim"]).await;
    assert!(refused.contains("port 22 of the host is not this VCH's to publish"), "{refused}");

    // What runs no more has neither port nor address.
    vch.docker_ok(&["rm", "-f", "web"]).await;
    vch.docker_ok(&["start", "other"]).await;
    assert_eq!(leading(&vch), ["127.0.0.1:8080 172.17.0.2:80"]);
    vch.docker_ok(&["stop", "-t", "0", "other"]).await;
    until("nothing leads there", || async { leading(&vch).is_empty() }).await;
    let stopped = inspect(&vch, &["other"]).await;
    assert_eq!(stopped["NetworkSettings"]["Ports"], json!({}));
    assert_eq!(stopped["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_something_else_uses_is_not_taken() {
    let vch = Endpoint::new().await;
    vch.world.sim.use_port(Protocol::Tcp, 9090);
    vch.world.sim.use_port(Protocol::Tcp, 32768);
    let refused =
        vch.docker_fails(&["run", "-d", "--name", "web", "-p", "9090:80", IMAGE, "sim", "sleep"]).await;
    assert!(refused.contains("listen tcp4 0.0.0.0:9090: bind: address already in use"), "{refused}");
    assert_eq!(inspect(&vch, &["web"]).await["State"]["Status"], "created");
    run(&vch, "any", &["-P", "--expose", "80"]).await;
    assert_eq!(vch.docker_ok(&["port", "any"]).await, "80/tcp -> 0.0.0.0:32769");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_from_create_to_rm() {
    let vch = Endpoint::new().await;
    let subnet = ["--subnet", "10.5.0.0/24", "--gateway", "10.5.0.254", "--ip-range", "10.5.0.64/26"];
    vch.docker_ok(&[&["network", "create", "--label", "a=b"], &subnet[..], &["mine"]].concat()).await;
    vch.docker_ok(&["network", "create", "--internal", "inside"]).await;
    let list = ["network", "ls", "--filter", "type=custom", "--format", "{{.Name}} {{.Driver}}"];
    assert_eq!(vch.docker_ok(&list).await, "inside bridge\nmine bridge");
    for (args, text) in [
        (&["mine"][..], "network with name mine already exists"),
        (&["--subnet", "10.5.0.128/25", "x"], "Pool overlaps with other one on this address space"),
        (&["--subnet", "198.18.4.0/24", "x"], "Pool overlaps"),
        (&["bridge"], "operation is not permitted on predefined bridge network"),
        (&["--driver", "overlay", "x"], "plugin \"overlay\" not found"),
        (&["--subnet", "fd00::/64", "x"], "EnableIPv6 (--ipv6) is not set"),
    ] {
        let refused = vch.docker_fails(&[&["network", "create"], args].concat()).await;
        assert!(refused.contains(text), "{args:?}: {refused}");
    }

    let web = run(&vch, "web", &["--network", "mine", "--ip", "10.5.0.9", "--network-alias", "www"]).await;
    let db = run(&vch, "db", &["--network", "mine"]).await;
    let of = |container: &Value, network: &str| container["NetworkSettings"]["Networks"][network].clone();
    let shown = inspect(&vch, &["web"]).await;
    assert_eq!(of(&shown, "mine")["IPAddress"], "10.5.0.9");
    assert_eq!(of(&shown, "mine")["Gateway"], "10.5.0.254");
    assert_eq!(of(&inspect(&vch, &["db"]).await, "mine")["IPAddress"], "10.5.0.64");
    assert_eq!(names(&vch, &db), ["db [10.5.0.64]", "web [10.5.0.9]", "www [10.5.0.9]"]);
    until("told", || async { names(&vch, &web).len() == 3 }).await;

    let taken = vch.docker_fails(&["run", "--network", "mine", "--ip", "10.5.0.9", IMAGE, "sim"]).await;
    assert!(taken.contains("Address already in use"), "{taken}");
    let refused = vch.docker_fails(&["run", "--ip", "172.17.0.9", IMAGE, "sim"]).await;
    assert!(
        refused.contains("user-specified IP address is supported on user-defined networks only"),
        "{refused}"
    );

    let network = inspect(&vch, &["--type", "network", "mine"]).await;
    assert_eq!(network["Containers"][web.as_str()]["IPv4Address"], "10.5.0.9/24");
    assert_eq!(network["IPAM"]["Config"][0]["IPRange"], "10.5.0.64/26");
    assert!(vch.docker_fails(&["network", "rm", "mine"]).await.contains("has active endpoints"));
    vch.docker_ok(&["rm", "-f", "web", "db"]).await;
    let event = ["--filter", "event=create", "--filter", "event=destroy", "--filter", "type=network"];
    let event = [&event[..], &["--format", "{{.Action}} {{.Actor.Attributes.name}}"]].concat();
    let pruned = vch.docker_ok(&["network", "prune", "-f", "--filter", "label=a"]).await;
    assert!(pruned.contains("mine") && !pruned.contains("inside"), "{pruned}");
    vch.docker_ok(&["network", "rm", "inside"]).await;
    assert!(vch.docker_fails(&["network", "rm", "bridge"]).await.contains("pre-defined network"));
    let story = vch.docker_ok(&[&["events", "--since", "1h", "--until=-2s"], &event[..]].concat()).await;
    assert_eq!(story, "create mine\ncreate inside\ndestroy mine\ndestroy inside");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_comes_and_goes() {
    let vch = Endpoint::new().await;
    for name in ["one", "two"] {
        vch.docker_ok(&["network", "create", name]).await;
    }
    let web = run(&vch, "web", &["--network", "one"]).await;
    let db = run(&vch, "db", &["--network", "two"]).await;
    assert_eq!(names(&vch, &web), ["web [172.18.0.2]"]);
    vch.docker_ok(&["network", "connect", "--alias", "store", "one", "db"]).await;
    assert_eq!(vch.world.sim.nics(&db).len(), 2);
    assert_eq!(vch.world.sim.told_network(&db).unwrap().interfaces.len(), 2);
    until("told", || async {
        names(&vch, &web) == ["db [172.18.0.3]", "store [172.18.0.3]", "web [172.18.0.2]"]
    })
    .await;
    let again = vch.docker_fails(&["network", "connect", "one", "db"]).await;
    assert!(again.contains("endpoint with name db already exists in network one"), "{again}");

    vch.docker_ok(&["network", "disconnect", "two", "db"]).await;
    assert_eq!(vch.world.sim.nics(&db).len(), 1);
    let shown = inspect(&vch, &["db"]).await;
    let networks = shown["NetworkSettings"]["Networks"].as_object().unwrap();
    assert_eq!(networks.keys().collect::<Vec<_>>(), ["one"]);
    let not_there = vch.docker_fails(&["network", "disconnect", "two", "db"]).await;
    assert!(not_there.contains("is not connected to network two"), "{not_there}");

    vch.docker_ok(&["rename", "db", "base"]).await;
    until("renamed", || async { names(&vch, &web).iter().any(|name| name == "base [172.18.0.3]") }).await;
    // A network that went while its container rested is missed at the start.
    vch.docker_ok(&["stop", "-t", "0", "base", "web"]).await;
    vch.docker_ok(&["network", "rm", "one"]).await;
    let missed = vch.docker_fails(&["start", "web"]).await;
    assert!(missed.contains("network") && missed.contains("not found"), "{missed}");
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_survive_the_server_and_a_flush() {
    let mut vch = Endpoint::new().await;
    let web = run(&vch, "web", &["-p", "8080:80"]).await;
    let before = vch.world.sim.networks();
    vch.world.sim.disturb_networks();
    until("made anew", || async { vch.world.sim.networks() == before }).await;
    vch.world.engine.shutdown().await;
    // As after a boot of the host.
    vch.world.sim.disturb_networks();
    vch.world.next_engine().await;
    assert_eq!(vch.world.sim.networks(), before);
    assert_eq!(vch.world.container(&web).await.published.len(), 1);
    let of = |id: VchId| before.iter().filter(|networks| networks.vch == id).count();
    assert_eq!(of(vch.world.vch.id), 1);
    vch.world.engine.shutdown().await;
}
