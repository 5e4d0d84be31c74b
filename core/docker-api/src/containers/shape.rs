//! What a container looks like to clients.

use crate::{networks, time, volumes};
use bulkhead_model::Container;
use bulkhead_model::lifecycle::{Exit, Goal, Status};
use bulkhead_model::restart::due;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

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

/// The networks of a container: the loopback interface is Docker's network `none`.
pub fn attached(container: &Container) -> Value {
    let running = is_running(container);
    json!({
        "none": {
            "IPAMConfig": null,
            "Links": null,
            "Aliases": null,
            "MacAddress": "",
            "DriverOpts": null,
            "GwPriority": 0,
            "NetworkID": networks::none_id(container.vch),
            "EndpointID": if running { container.id.as_str() } else { "" },
            "Gateway": "",
            "IPAddress": "",
            "IPPrefixLen": 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": null,
        },
    })
}

/// As in `GET /containers/json`.
pub fn summary(container: &Container, now: DateTime<Utc>) -> Value {
    let mode = view(container, "HostConfig").get("NetworkMode").cloned().unwrap_or_else(|| "default".into());
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": container.image_name,
        "ImageID": container.image,
        "Command": command(container),
        "Created": container.created_at.timestamp(),
        "Ports": [],
        "Labels": container.spec.labels,
        "State": State::of(container).word(),
        "Status": status_text(container, now),
        "HostConfig": { "NetworkMode": mode },
        "NetworkSettings": { "Networks": attached(container) },
        "Mounts": volumes::shape::mounts(container),
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use bulkhead_model::lifecycle::Desired;
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
            layers: Vec::new(),
            image_name: "alpine:latest".into(),
            client_view: request.view,
            owner: "uid:0".into(),
            created_at: at(3600),
            desired: Desired::default(),
            status,
            health: None,
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
        let summary = summary(&container("web", Status::Created), at(0));
        assert_eq!(summary["Names"], json!(["/web"]));
        assert_eq!(summary["Ports"], json!([]));
        assert_eq!(summary["Mounts"], json!([]));
        assert_eq!(summary["Command"], "sh -c 'echo hi'");
        assert_eq!(summary["HostConfig"]["NetworkMode"], "default");
        assert!(summary["ImageID"].as_str().unwrap().starts_with("sha256:"));
    }
}
