//! What a container looks like to clients.

use crate::version::ApiVersion;
use crate::{time, volumes};
use bulkhead_model::lifecycle::{Exit, Goal, Status};
use bulkhead_model::network::{DEFAULT_NETWORK, HOST_NETWORK, NO_NETWORK, exposed_port, predefined_id};
use bulkhead_model::ports::Protocol;
use bulkhead_model::restart::due;
use bulkhead_model::{Container, Endpoint};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

/// The words that clients know; they fail on others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Paused,
    /// It has ended, and its restart policy starts it again.
    Restarting,
    Removing,
    Exited,
}

impl State {
    pub fn of(container: &Container) -> Self {
        match (&container.desired.goal, &container.status) {
            (Goal::Gone, _) => Self::Removing,
            (_, Status::Exited { .. }) if due(&container.desired, &container.status).is_some() => {
                Self::Restarting
            }
            (Goal::Run, Status::Starting { .. } | Status::Exited { .. })
                if container.desired.restarts.count > 0
                    && (container.desired.run > container.status.run()
                        || matches!(container.status, Status::Starting { .. })) =>
            {
                Self::Restarting
            }
            // A process that never started leaves a container that was never run.
            (_, Status::Created | Status::Exited { run: 0 | 1, exit: Exit { started_at: None, .. } }) => {
                Self::Created
            }
            (_, Status::Starting { run: 0 | 1 }) => Self::Created,
            // The machine is coming up; until the process runs, the last run counts.
            (_, Status::Starting { .. } | Status::Exited { .. }) => Self::Exited,
            (_, Status::Running { paused: true, .. }) => Self::Paused,
            (_, Status::Running { paused: false, .. }) => Self::Running,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
        }
    }
}

/// As clients count it: also what stands still, and what is between two runs.
pub fn is_running(container: &Container) -> bool {
    matches!(State::of(container), State::Running | State::Paused | State::Restarting)
}

pub fn exit(container: &Container) -> Option<&Exit> {
    match &container.status {
        Status::Exited { exit, .. } => Some(exit),
        Status::Created | Status::Starting { .. } | Status::Running { .. } => None,
    }
}

/// `Up 3 minutes`, `Exited (1) 2 hours ago`.
pub fn status_text(container: &Container, now: DateTime<Utc>) -> String {
    match (State::of(container), &container.status) {
        (State::Removing, _) => "Removal In Progress".into(),
        (State::Running, Status::Running { started_at, .. }) => {
            format!("Up {}", time::in_words(now - *started_at))
        }
        (State::Paused, Status::Running { started_at, .. }) => {
            format!("Up {} (Paused)", time::in_words(now - *started_at))
        }
        (State::Restarting, Status::Exited { exit, .. }) => {
            format!("Restarting ({}) {} ago", exit.code, time::in_words(now - exit.finished_at))
        }
        (State::Restarting, _) => "Restarting".into(),
        (State::Exited, Status::Exited { exit, .. }) => {
            format!("Exited ({}) {} ago", exit.code, time::in_words(now - exit.finished_at))
        }
        (State::Exited | State::Running | State::Paused, _) => "Exited".into(),
        (State::Created, _) => "Created".into(),
    }
}

/// The command line as one text; words with spaces in quotes.
pub fn command(container: &Container) -> String {
    let words = container.spec.entrypoint.iter().chain(&container.spec.cmd);
    let quoted = words
        .enumerate()
        .map(|(at, word)| if at > 0 && word.contains(' ') { format!("'{word}'") } else { word.clone() });
    quoted.collect::<Vec<_>>().join(" ")
}

/// A part of what was stored at create: `HostConfig` or `Config`.
pub fn view<'a>(container: &'a Container, part: &str) -> &'a Value {
    container.client_view.get(part).unwrap_or(&Value::Null)
}

/// The networks of a container, by name. Addresses are there while it runs.
pub fn attached(container: &Container, version: ApiVersion) -> Value {
    let name = |endpoint: &Endpoint| match container.spec.network.host {
        true => HOST_NETWORK.to_owned(),
        false => endpoint.wish.network.clone(),
    };
    let of = |endpoint: &Endpoint| (name(endpoint), place(container, endpoint, version));
    let mut networks: Map<String, Value> = container.endpoints.iter().map(of).collect();
    if networks.is_empty() {
        networks.insert(NO_NETWORK.into(), nowhere(container));
    }
    networks.into()
}

fn place(container: &Container, endpoint: &Endpoint, version: ApiVersion) -> Value {
    let wish = &endpoint.wish;
    let lease = endpoint.lease;
    let text = |value: Option<String>| value.unwrap_or_default();
    let six = lease.and_then(|lease| lease.six);
    let asked = [
        ("IPv4Address", wish.address.map(|address| json!(address))),
        ("IPv6Address", wish.address6.map(|address| json!(address))),
    ];
    let asked = asked.into_iter().filter_map(|(name, address)| Some((name.to_owned(), address?)));
    let ipam = Some(asked.collect::<Map<_, _>>()).filter(|ipam| !ipam.is_empty());
    let is_default = wish.network == DEFAULT_NETWORK;
    let mut names = vec![container.name.clone()];
    names.extend(wish.aliases.iter().cloned());
    names.push(container.id.short().to_owned());
    let mut aliases = wish.aliases.clone();
    if !version.since(45) && !is_default {
        aliases.push(container.id.short().to_owned());
    }
    let list = |words: Vec<String>| if words.is_empty() { Value::Null } else { json!(words) };
    // Those of the default network are the container's own, in HostConfig.
    let links = wish.links.iter().filter(|_| !is_default);
    let links = links.map(|link| format!("{}:{}", link.target, link.alias)).collect();
    let network = match container.spec.network.host {
        true => predefined_id(container.vch, HOST_NETWORK),
        false => endpoint.network.clone(),
    };
    json!({
        "IPAMConfig": ipam,
        "Links": list(links),
        "Aliases": list(aliases),
        "MacAddress": text(lease.map(|lease| lease.mac).or(wish.mac).map(|mac| mac.to_string())),
        "DriverOpts": null,
        "GwPriority": wish.gateway_priority,
        "NetworkID": network,
        "EndpointID": if lease.is_some() { endpoint.id.as_str() } else { "" },
        "Gateway": text(lease.and_then(|lease| lease.gateway).map(|gateway| gateway.to_string())),
        "IPAddress": text(lease.map(|lease| lease.address.to_string())),
        "IPPrefixLen": lease.map_or(0, |lease| lease.prefix),
        "IPv6Gateway": text(six.and_then(|six| six.gateway).map(|gateway| gateway.to_string())),
        "GlobalIPv6Address": text(six.map(|six| six.address.to_string())),
        "GlobalIPv6PrefixLen": six.map_or(0, |six| six.prefix),
        "DNSNames": if is_default { Value::Null } else { json!(names) },
    })
}

/// A loopback interface alone is Docker's network `none`.
fn nowhere(container: &Container) -> Value {
    let running = is_running(container);
    json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": null,
        "MacAddress": "",
        "DriverOpts": null,
        "GwPriority": 0,
        "NetworkID": predefined_id(container.vch, NO_NETWORK),
        "EndpointID": if running { container.id.as_str() } else { "" },
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    })
}

/// Ports as `ps` has them: published ones, and exposed ones that are not.
fn ports(container: &Container) -> Value {
    if !is_running(container) || container.spec.network.host {
        return json!([]);
    }
    let published = container.published.iter().map(|port| {
        json!({
            "IP": port.host_address,
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol.as_str(),
        })
    });
    let only_exposed = exposed(container).filter(|(port, protocol)| {
        !container.published.iter().any(|one| one.container_port == *port && one.protocol == *protocol)
    });
    let only_exposed =
        only_exposed.map(|(port, protocol)| json!({ "PrivatePort": port, "Type": protocol.as_str() }));
    published.chain(only_exposed).collect()
}

/// Ports of the container that something may listen on, in no particular order.
pub fn exposed(container: &Container) -> impl Iterator<Item = (u16, Protocol)> {
    container.spec.network.exposed.iter().filter_map(|text| exposed_port(text))
}

/// As in `GET /containers/json`.
pub fn summary(container: &Container, version: ApiVersion, now: DateTime<Utc>) -> Value {
    let mode =
        view(container, "HostConfig").get("NetworkMode").cloned().unwrap_or_else(|| DEFAULT_NETWORK.into());
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": container.image_name,
        "ImageID": container.image,
        "Command": command(container),
        "Created": container.created_at.timestamp(),
        "Ports": ports(container),
        "Labels": container.spec.labels,
        "State": State::of(container).word(),
        "Status": status_text(container, now),
        "HostConfig": { "NetworkMode": mode },
        "NetworkSettings": { "Networks": attached(container, version) },
        "Mounts": volumes::shape::mounts(container),
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use bulkhead_model::lifecycle::Desired;
    use bulkhead_model::network::{EndpointWish, Lease, MacAddress};
    use bulkhead_model::{Clock, ContainerAsk, ImageConfig, RestartPolicy, VchId, VchSettings};

    pub const NOW: i64 = 1_700_000_000;

    pub fn at(seconds_ago: i64) -> DateTime<Utc> {
        Clock::fixed(NOW - seconds_ago).now()
    }

    pub fn container(name: &str, status: Status) -> Container {
        let digest = bulkhead_model::Digest::of(name.as_bytes());
        let id: bulkhead_model::ContainerId = digest.hex().parse().unwrap();
        let image =
            ImageConfig { cmd: vec!["sh".into(), "-c".into(), "echo hi".into()], ..Default::default() };
        let request =
            crate::create::read(br#"{"Image":"alpine","Labels":{"team":"a"},"ExposedPorts":{"80/tcp":{}}}"#)
                .unwrap();
        let spec =
            bulkhead_model::container::resolve(&id, &request.ask, &image, &VchSettings::default()).unwrap();
        Container {
            id,
            vch: VchId(Default::default()),
            name: name.into(),
            ask: ContainerAsk::default(),
            spec,
            image: digest,
            placement: Default::default(),
            layers: Vec::new(),
            image_name: "alpine:latest".into(),
            client_view: request.view,
            owner: "uid:0".into(),
            created_at: at(3600),
            desired: Desired::default(),
            status,
            health: None,
            endpoints: Vec::new(),
            published: Vec::new(),
        }
    }

    pub fn exited(code: i32, started: bool) -> Status {
        let exit = Exit {
            code,
            error: (!started).then(|| "exec: \"x\": executable file not found in $PATH".into()),
            oom_killed: false,
            started_at: started.then(|| at(200)),
            finished_at: at(120),
        };
        Status::Exited { run: 1, exit }
    }

    #[test]
    fn states_and_their_texts() {
        let check = |status, word, text| {
            let container = container("web", status);
            assert_eq!((State::of(&container).word(), status_text(&container, at(0)).as_str()), (word, text));
        };
        check(Status::Created, "created", "Created");
        check(Status::Starting { run: 1 }, "created", "Created");
        check(
            Status::Running { run: 1, started_at: at(180), stop_signalled: false, paused: false },
            "running",
            "Up 3 minutes",
        );
        check(exited(3, true), "exited", "Exited (3) 2 minutes ago");
        check(exited(127, false), "created", "Created");
    }

    #[test]
    fn what_stands_still_and_what_is_between_two_runs() {
        let paused = Status::Running { run: 1, started_at: at(180), stop_signalled: false, paused: true };
        let paused = container("web", paused);
        assert_eq!(State::of(&paused).word(), "paused");
        assert_eq!(status_text(&paused, at(0)), "Up 3 minutes (Paused)");
        assert!(is_running(&paused));
        let mut looping = container("web", exited(3, true));
        looping.desired.goal = Goal::Run;
        looping.desired.run = 1;
        looping.desired.restarts.policy = RestartPolicy::Always;
        assert_eq!(State::of(&looping).word(), "restarting");
        assert_eq!(status_text(&looping, at(0)), "Restarting (3) 2 minutes ago");
        looping.desired.restarts.count = 1;
        looping.desired.run = 2;
        assert_eq!(State::of(&looping).word(), "restarting");
        looping.status = Status::Starting { run: 2 };
        assert_eq!(State::of(&looping).word(), "restarting");
        looping.desired.restarts.cancelled = true;
        looping.status = exited(3, true);
        looping.desired.run = 1;
        assert_eq!(State::of(&looping).word(), "exited");
    }

    #[test]
    fn a_container_on_its_way_out_says_so() {
        let mut container = container("web", Status::Created);
        container.desired.goal = Goal::Gone;
        assert_eq!(status_text(&container, at(0)), "Removal In Progress");
    }

    #[test]
    fn lists_are_lists_and_maps_are_maps() {
        let summary = summary(&container("web", Status::Created), crate::version::NEWEST, at(0));
        assert_eq!(summary["Names"], json!(["/web"]));
        assert_eq!(summary["Ports"], json!([]));
        assert_eq!(summary["Mounts"], json!([]));
        assert_eq!(summary["Command"], "sh -c 'echo hi'");
        assert_eq!(summary["HostConfig"]["NetworkMode"], "bridge");
        assert!(summary["ImageID"].as_str().unwrap().starts_with("sha256:"));
    }

    #[test]
    fn networks_and_ports_of_what_runs() {
        let status = Status::Running { run: 1, started_at: at(9), stop_signalled: false, paused: false };
        let mut container = container("web", status);
        let wish = EndpointWish { network: "mine".into(), aliases: vec!["www".into()], ..Default::default() };
        let address = std::net::Ipv4Addr::new(172, 18, 0, 2);
        let gateway = Some(std::net::Ipv4Addr::new(172, 18, 0, 1));
        container.endpoints = vec![Endpoint {
            id: bulkhead_model::EndpointId::from_random([1; 32]),
            container: container.id.clone(),
            network: bulkhead_model::NetworkId::from_random([2; 32]),
            wish,
            lease: Some(Lease { address, prefix: 16, mac: MacAddress::of(address), gateway, six: None }),
        }];
        container.spec.network.exposed = ["80/tcp".to_owned(), "53/udp".into()].into();
        container.published = vec![bulkhead_model::Published {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: "0.0.0.0".parse().unwrap(),
            host_port: 8080,
            inner_port: 8080,
        }];
        let mine = &attached(&container, crate::version::NEWEST)["mine"];
        assert_eq!(mine["IPAddress"], "172.18.0.2");
        assert_eq!(mine["MacAddress"], "02:42:ac:12:00:02");
        assert_eq!(mine["Aliases"], json!(["www"]));
        assert_eq!(mine["DNSNames"], json!(["web", "www", container.id.short()]));
        let old = attached(&container, ApiVersion::new(1, 44));
        assert_eq!(old["mine"]["Aliases"], json!(["www", container.id.short()]));
        let expect = json!([
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 53, "Type": "udp"},
        ]);
        assert_eq!(ports(&container), expect);
        container.status = exited(0, true);
        container.endpoints[0].lease = None;
        assert_eq!(ports(&container), json!([]));
        assert_eq!(attached(&container, crate::version::NEWEST)["mine"]["IPAddress"], "");
    }
}
