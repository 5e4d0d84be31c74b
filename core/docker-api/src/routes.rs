//! All of the API on one screen.
//!
//! `{}` stands for one segment, `{*}` for one or more (names of images hold slashes). The first match wins.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::{containers, exec, images, networks, system, unsupported, volumes};
use http::Method;

macro_rules! routes {
    ($($method:ident $path:literal => $name:ident, $handler:path;)+) => {
        /// A call that is there.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Endpoint { $($name),+ , Unsupported(&'static unsupported::Operation) }

        pub const ROUTES: &[(Method, &str, Endpoint)] =
            &[$((Method::$method, $path, Endpoint::$name)),+];

        pub async fn run(endpoint: Endpoint, mut call: Call) -> Answer {
            match endpoint {
                // Each on the heap: together they would need more stack than a thread has.
                $(Endpoint::$name => Box::pin($handler(call)).await,)+
                Endpoint::Unsupported(operation) => {
                    crate::body::discard(&mut call).await;
                    unsupported::refuse(operation, &call.name)
                }
            }
        }
    };
}

routes! {
    GET    "/_ping"                    => Ping,             system::ping::get;
    HEAD   "/_ping"                    => PingHead,         system::ping::head;
    GET    "/version"                  => Version,          system::version::get;
    GET    "/info"                     => Info,             system::info::get;
    POST   "/auth"                     => Auth,             system::auth::post;
    GET    "/events"                   => Events,           system::events::get;
    GET    "/system/df"                => DiskUsage,        system::disk_usage::get;

    GET    "/containers/json"          => ContainerList,    containers::list::get;
    POST   "/containers/create"        => ContainerCreate,  containers::create::post;
    GET    "/containers/{}/json"       => ContainerInspect, containers::inspect::get;
    POST   "/containers/{}/start"      => ContainerStart,   containers::start::post;
    POST   "/containers/{}/stop"       => ContainerStop,    containers::stop::post;
    POST   "/containers/{}/restart"    => ContainerRestart, containers::restart::post;
    POST   "/containers/{}/kill"       => ContainerKill,    containers::kill::post;
    POST   "/containers/{}/pause"      => ContainerPause,   containers::pause::pause;
    POST   "/containers/{}/unpause"    => ContainerUnpause, containers::pause::unpause;
    POST   "/containers/{}/update"     => ContainerUpdate,  containers::update::post;
    POST   "/containers/{}/rename"     => ContainerRename,  containers::rename::post;
    POST   "/containers/{}/wait"       => ContainerWait,    containers::wait::post;
    POST   "/containers/{}/attach"     => ContainerAttach,  containers::attach::post;
    GET    "/containers/{}/attach/ws"  => AttachSocket,     containers::attach::websocket;
    POST   "/containers/{}/resize"     => ContainerResize,  containers::resize::post;
    POST   "/containers/{}/exec"       => ExecCreate,       exec::create::post;
    POST   "/exec/{}/start"            => ExecStart,        exec::start::post;
    POST   "/exec/{}/resize"           => ExecResize,       exec::resize::post;
    GET    "/exec/{}/json"             => ExecInspect,      exec::inspect::get;
    GET    "/containers/{}/logs"       => ContainerLogs,    containers::logs::get;
    GET    "/containers/{}/top"        => ContainerTop,     containers::top::get;
    GET    "/containers/{}/stats"      => ContainerStats,   containers::stats::get;
    HEAD   "/containers/{}/archive"    => ArchiveStat,      containers::archive::head;
    GET    "/containers/{}/archive"    => ArchiveGet,       containers::archive::get;
    PUT    "/containers/{}/archive"    => ArchivePut,       containers::archive::put;
    GET    "/containers/{}/export"     => ContainerExport,  containers::export::get;
    GET    "/containers/{}/changes"    => ContainerChanges, containers::changes::get;
    POST   "/commit"                   => Commit,           images::commit::post;
    DELETE "/containers/{}"            => ContainerRemove,  containers::remove::delete;
    DELETE "/containers/{}/{}"         => LinkRemove,       containers::remove::delete_link;
    POST   "/containers/prune"         => ContainerPrune,   containers::prune::post;

    GET    "/images/json"              => ImageList,        images::list::get;
    POST   "/images/create"            => ImageCreate,      images::create::post;
    POST   "/images/load"              => ImageLoad,        images::load::post;
    GET    "/images/get"               => ImageSaveMany,    images::save::many;
    GET    "/images/{*}/get"           => ImageSave,        images::save::one;
    GET    "/images/{*}/json"          => ImageInspect,     images::inspect::get;
    GET    "/images/{*}/history"       => ImageHistory,     images::history::get;
    POST   "/images/{*}/tag"           => ImageTag,         images::tag::post;
    DELETE "/images/{*}"               => ImageRemove,      images::remove::delete;
    POST   "/images/prune"             => ImagePrune,       images::prune::post;
    GET    "/distribution/{*}/json"    => DistributionInspect, images::distribution::get;

    GET    "/networks"                 => NetworkList,      networks::list::get;
    GET    "/networks/"                => NetworkListSlash, networks::list::get;
    GET    "/networks/{}"              => NetworkInspect,   networks::inspect::get;
    POST   "/networks/create"          => NetworkCreate,    networks::create::post;
    POST   "/networks/prune"           => NetworkPrune,     networks::remove::prune;
    DELETE "/networks/{}"              => NetworkRemove,    networks::remove::delete;
    POST   "/networks/{}/connect"      => NetworkConnect,   networks::connect::connect;
    POST   "/networks/{}/disconnect"   => NetworkDisconnect, networks::connect::disconnect;
    GET    "/volumes"                  => VolumeList,       volumes::list::get;
    POST   "/volumes/create"           => VolumeCreate,     volumes::create::post;
    POST   "/volumes/prune"            => VolumePrune,      volumes::prune::post;
    GET    "/volumes/{}"               => VolumeInspect,    volumes::inspect::get;
    DELETE "/volumes/{}"               => VolumeRemove,     volumes::remove::delete;
    GET    "/plugins"                  => PluginList,       system::plugins::get;
}

/// The endpoint of a request, and what stands for the braces. `path` is decoded and without a version.
pub fn find(method: &Method, path: &str) -> Result<(Endpoint, String), ApiError> {
    let here = ROUTES.iter().map(|(of, pattern, endpoint)| (of, *pattern, *endpoint));
    // What is not there yet comes after all that is: `GET /images/search` is also an image's name.
    let later = unsupported::OPERATIONS
        .iter()
        .map(|operation| (&operation.method, operation.path, Endpoint::Unsupported(operation)));
    let literal_first = |(_, pattern, _): &(&Method, &str, Endpoint)| !pattern.contains('{');
    let all: Vec<_> = here.chain(later).filter(|(of, ..)| *of == method).collect();
    let literal = all.iter().filter(|route| literal_first(route));
    let patterns = all.iter().filter(|route| !literal_first(route));
    for (_, pattern, endpoint) in literal.chain(patterns) {
        if let Some(name) = matches(pattern, path) {
            return Ok((*endpoint, name));
        }
    }
    Err(ApiError::page_not_found())
}

/// What stands for the braces, if the path is of the pattern. Each pattern has one pair at most, or is followed by
/// single ones that nobody reads.
fn matches(pattern: &str, path: &str) -> Option<String> {
    let Some((before, after)) = pattern.split_once('{') else {
        return (pattern == path).then(String::new);
    };
    let (braces, after) = after.split_once('}')?;
    let rest = path.strip_prefix(before)?;
    if braces == "*" {
        let name = rest.strip_suffix(after)?;
        let good = !name.is_empty() && name.split('/').all(|part| !part.is_empty());
        return good.then(|| name.to_owned());
    }
    let (name, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (!name.is_empty() && matches(after, tail).is_some()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn check(method: Method, path: &str, endpoint: Endpoint, name: &str) {
        let found = find(&method, path).unwrap();
        assert_eq!(found, (endpoint, name.to_owned()), "{method} {path}");
    }

    #[test]
    fn names_of_images_hold_slashes() {
        check(Method::GET, "/images/json", Endpoint::ImageList, "");
        check(Method::GET, "/images/a/json", Endpoint::ImageInspect, "a");
        check(
            Method::GET,
            "/images/reg:5000/a/b@sha256:1/json",
            Endpoint::ImageInspect,
            "reg:5000/a/b@sha256:1",
        );
        check(Method::GET, "/images/json/json", Endpoint::ImageInspect, "json");
        check(Method::DELETE, "/images/a/b", Endpoint::ImageRemove, "a/b");
        check(Method::GET, "/containers/x/json", Endpoint::ContainerInspect, "x");
        check(Method::GET, "/networks/", Endpoint::NetworkListSlash, "");
    }

    #[test]
    fn all_else_is_page_not_found() {
        for (method, path) in [
            (Method::GET, "/"),
            (Method::GET, "/containers"),
            (Method::GET, "/containers/json/"),
            (Method::GET, "/containers//json"),
            (Method::GET, "/containers/a/b/json"),
            (Method::POST, "/containers/json"),
            (Method::HEAD, "/info"),
            (Method::PATCH, "/info"),
            (Method::GET, "/images//json"),
            (Method::GET, "/images/a//json"),
        ] {
            let error = find(&method, path).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.message.as_str()),
                (404, "page not found"),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn every_operation_of_the_api_is_there_or_refused_by_name() {
        // Operations of a version newer than the newest served.
        for line in include_str!("../tests/data/operations.txt").lines() {
            let mut words = line.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let path: String = path
                .split('/')
                .map(|part| if part.starts_with('{') { "x" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            assert!(find(&method.parse().unwrap(), &path).is_ok(), "{line}");
        }
    }

    #[test]
    fn no_route_comes_twice() {
        let mut seen = BTreeSet::new();
        let here = ROUTES.iter().map(|(method, path, _)| (method.as_str(), *path));
        let later =
            unsupported::OPERATIONS.iter().map(|operation| (operation.method.as_str(), operation.path));
        for route in here.chain(later) {
            assert!(seen.insert(route), "{route:?}");
        }
    }
}
