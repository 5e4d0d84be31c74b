//! What each call takes after the `?`. An endpoint sees only parameters that stand here as taken, so that this is
//! what is carried out, and not a second list of it.

use crate::error::ApiError;
use crate::query::{Query, clip};
use crate::routes::Endpoint;

/// How a parameter is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The endpoint reads it.
    Taken,
    /// Any value is let through and makes no difference, for this reason.
    Idle(&'static str),
    /// Any value that says something is refused, with the reason.
    Refused(&'static str),
}

use Rule::{Idle, Refused, Taken};

type Table = &'static [(&'static str, Rule)];

/// What SDKs send along that is for themselves.
pub const OF_CLIENTS: Table = &[
    ("hijack", Idle("dockerode tells itself to take the connection over")),
    ("abortSignal", Idle("dockerode's way to break off")),
    ("only_ids", Idle("docker-py tells itself to return ids")),
    ("stream", Idle("aiodocker tells itself to read on, also where there is no such choice")),
];

const NONE: Table = &[];
const FILTERS: Table = &[("filters", Taken)];
const SIZE: Table = &[("h", Taken), ("w", Taken)];
const PATH: Table = &[("path", Taken)];
const STOP: Table = &[("signal", Taken), ("t", Taken)];
const ATTACH: Table = &[
    ("detachKeys", Taken),
    ("logs", Taken),
    ("stream", Taken),
    ("stdin", Taken),
    ("stdout", Taken),
    ("stderr", Taken),
];
const REMOVE: Table = &[
    ("v", Taken),
    ("force", Taken),
    ("link", Refused("is not supported (rm --link): containers have no links")),
];
const CHECKPOINTS: &str = "is not supported: there are no checkpoints";
const PLATFORM: &str = "is not supported yet here: all images are for linux/amd64";
const OWN_FILTER: &str = "is a filter: filters={\"since\":[\"NAME\"]} or {\"before\":[\"NAME\"]}";

/// Of a call that is there.
pub fn of(endpoint: Endpoint) -> Table {
    match endpoint {
        Endpoint::Ping
        | Endpoint::PingHead
        | Endpoint::Version
        | Endpoint::Info
        | Endpoint::Auth
        | Endpoint::ContainerPause
        | Endpoint::ContainerUnpause
        | Endpoint::ContainerUpdate
        | Endpoint::ContainerExport
        | Endpoint::ContainerChanges
        | Endpoint::ExecCreate
        | Endpoint::ExecInspect
        | Endpoint::NetworkCreate
        | Endpoint::NetworkConnect
        | Endpoint::NetworkDisconnect
        | Endpoint::NetworkRemove
        | Endpoint::VolumeCreate
        | Endpoint::DistributionInspect
        | Endpoint::VolumeInspect => NONE,
        Endpoint::Events => &[("since", Taken), ("until", Taken), ("filters", Taken)],
        Endpoint::DiskUsage => &[("type", Taken), ("verbose", Taken)],
        Endpoint::ContainerList => &[
            ("all", Taken),
            ("limit", Taken),
            ("size", Taken),
            ("filters", Taken),
            ("since", Refused(OWN_FILTER)),
            ("before", Refused(OWN_FILTER)),
            ("trunc_cmd", Idle("commands are told whole; clients cut them")),
        ],
        Endpoint::ContainerCreate => &[("name", Taken), ("platform", Taken)],
        Endpoint::ContainerInspect => &[("size", Taken)],
        Endpoint::ContainerStart => &[
            ("detachKeys", Idle("concerns who is attached: attach takes it")),
            ("checkpoint", Refused(CHECKPOINTS)),
            ("checkpoint-dir", Refused(CHECKPOINTS)),
        ],
        Endpoint::ContainerStop | Endpoint::ContainerRestart => STOP,
        Endpoint::ContainerKill => &[("signal", Taken)],
        Endpoint::ContainerRename => &[("name", Taken)],
        Endpoint::ContainerWait => &[("condition", Taken)],
        Endpoint::ContainerAttach | Endpoint::AttachSocket => ATTACH,
        Endpoint::ContainerResize | Endpoint::ExecResize => SIZE,
        Endpoint::ExecStart => &[("detachKeys", Taken)],
        Endpoint::ContainerLogs => &[
            ("follow", Taken),
            ("stdout", Taken),
            ("stderr", Taken),
            ("since", Taken),
            ("until", Taken),
            ("timestamps", Taken),
            ("tail", Taken),
            ("details", Taken),
        ],
        Endpoint::ContainerTop => &[("ps_args", Taken)],
        Endpoint::ContainerStats => &[("stream", Taken), ("one-shot", Taken)],
        Endpoint::ArchiveStat | Endpoint::ArchiveGet => PATH,
        Endpoint::ArchivePut => &[("path", Taken), ("noOverwriteDirNonDir", Taken), ("copyUIDGID", Taken)],
        Endpoint::Commit => &[
            ("container", Taken),
            ("repo", Taken),
            ("tag", Taken),
            ("comment", Taken),
            ("author", Taken),
            ("pause", Taken),
            ("changes", Taken),
        ],
        Endpoint::ContainerRemove | Endpoint::LinkRemove => REMOVE,
        Endpoint::VolumeRemove => &[("force", Taken)],
        Endpoint::ContainerPrune
        | Endpoint::ImagePrune
        | Endpoint::NetworkList
        | Endpoint::NetworkListSlash
        | Endpoint::NetworkPrune => FILTERS,
        Endpoint::VolumeList | Endpoint::VolumePrune | Endpoint::PluginList => FILTERS,
        Endpoint::ImageList => &[
            ("all", Idle("there are no intermediate images")),
            ("filters", Taken),
            ("filter", Taken),
            ("shared-size", Taken),
            ("digests", Idle("digests are always told")),
            (
                "manifests",
                Idle("an image is of one platform; dockerd without containerd's store tells none, too"),
            ),
            ("identity", Idle("tells of manifests, and there are none")),
        ],
        Endpoint::ImageCreate => &[
            ("fromImage", Taken),
            ("fromSrc", Taken),
            ("repo", Taken),
            ("tag", Taken),
            ("message", Taken),
            ("changes", Taken),
            ("platform", Taken),
            ("registry", Refused("is not supported: the registry is part of the name in fromImage")),
        ],
        Endpoint::ImageLoad => &[("quiet", Idle("no progress is told")), ("platform", Refused(PLATFORM))],
        Endpoint::ImageSaveMany => &[("names", Taken), ("platform", Refused(PLATFORM))],
        Endpoint::ImageSave | Endpoint::ImageHistory => &[("platform", Refused(PLATFORM))],
        Endpoint::ImageInspect => &[
            (
                "manifests",
                Idle("an image is of one platform; dockerd without containerd's store tells none, too"),
            ),
            ("platform", Refused(PLATFORM)),
        ],
        Endpoint::ImageTag => &[("repo", Taken), ("tag", Taken)],
        Endpoint::ImageRemove => &[
            ("force", Taken),
            ("noprune", Idle("images have no parents to prune")),
            ("platforms", Refused(PLATFORM)),
        ],
        Endpoint::NetworkInspect => {
            &[("verbose", Idle("tells of swarm services, and there are none")), ("scope", Taken)]
        }
        // Refused whatever it says.
        Endpoint::Unsupported(_) => NONE,
    }
}

/// What of a query an endpoint sees. Refuses what is refused, and what is not known, unless it says nothing.
pub fn admit(endpoint: Endpoint, query: Query) -> Result<Query, ApiError> {
    if matches!(endpoint, Endpoint::Unsupported(_)) {
        return Ok(query);
    }
    let rule = |name: &str| {
        of(endpoint).iter().chain(OF_CLIENTS).find(|(known, _)| *known == name).map(|(_, rule)| *rule)
    };
    for (name, value) in query.iter() {
        let why = match rule(name) {
            Some(Taken | Idle(_)) => continue,
            _ if says_nothing(value) => continue,
            Some(Refused(why)) => why,
            None => "is not known here",
        };
        return Err(ApiError::bad(format!("bulkhead: query parameter {} {why}", clip(name))));
    }
    Ok(query.only(|name| rule(name) == Some(Taken)))
}

fn says_nothing(value: &str) -> bool {
    matches!(
        value.trim().to_ascii_lowercase().as_str(),
        "" | "0" | "no" | "false" | "none" | "null" | "[]" | "{}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes;
    use http::Method;
    use std::path::Path;

    fn admitted(method: Method, target: &str) -> Result<Query, String> {
        let (path, query) = target.split_once('?').unwrap();
        let (endpoint, _) = routes::find(&method, path).unwrap();
        admit(endpoint, Query::parse(query).unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn every_parameter_of_the_api_has_a_rule() {
        for line in include_str!("../tests/data/parameters.txt").lines() {
            let [method, path, name] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let path = path.replace("{id}", "x").replace("{name}", "x");
            let (endpoint, _) = routes::find(&method.parse().unwrap(), &path).unwrap();
            assert!(of(endpoint).iter().any(|(known, _)| *known == name), "{line} has no rule");
        }
    }

    #[test]
    fn refusals_name_the_parameter() {
        for (method, target, text) in [
            (Method::POST, "/containers/x/start?checkpoint=a", "query parameter checkpoint is not supported"),
            (Method::DELETE, "/containers/x?link=1", "query parameter link is not supported (rm --link)"),
            (Method::GET, "/images/x/json?platform=linux", "query parameter platform is not supported yet"),
            (Method::POST, "/containers/x/kill?sginal=TERM", "query parameter sginal is not known here"),
            (Method::GET, "/_ping?x=1", "query parameter x is not known here"),
        ] {
            let message = admitted(method, target).unwrap_err();
            assert!(message.starts_with("bulkhead: ") && message.contains(text), "{target}: {message}");
        }
    }

    #[test]
    fn an_endpoint_sees_what_it_takes_and_nothing_else() {
        let query = admitted(
            Method::POST,
            "/containers/x/attach?stream=1&hijack=true&logs=&future=0&more=%7B%7D&abortSignal=%7B%7D",
        )
        .unwrap();
        assert_eq!(query.iter().collect::<Vec<_>>(), [("stream", "1"), ("logs", "")]);
    }

    /// A parameter that is called taken and that nobody reads would be a lie in `COVERAGE.md`. (One that is read and
    /// not called taken never arrives.)
    #[test]
    fn what_is_taken_is_read() {
        let text = source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        for (_, _, endpoint) in routes::ROUTES {
            for (name, _) in of(*endpoint).iter().filter(|(_, rule)| *rule == Taken) {
                let read = ["flag", "flag_or", "get", "text", "all", "number", "number::<u16>"];
                let read = read.iter().any(|how| text.contains(&format!("{how}(\"{name}\"")));
                assert!(read, "{name} of {endpoint:?} is read nowhere");
            }
        }
    }

    /// All that is below a folder, without tests.
    fn source(folder: &Path) -> String {
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return source(&path);
            }
            let text = std::fs::read_to_string(path).unwrap();
            text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
        };
        std::fs::read_dir(folder).unwrap().map(read).collect()
    }
}
