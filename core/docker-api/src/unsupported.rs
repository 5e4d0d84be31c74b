//! Calls of Docker's API that are known and not there: each is refused by its name, so that nobody has to guess.

use crate::call::Answer;
use crate::error::ApiError;
use http::{Method, StatusCode};

#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    pub method: Method,
    pub path: &'static str,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Comes later; by the command that people know it by.
    Later(&'static str),
    /// There is no swarm, in Docker's words: some clients look at status and text.
    NoSwarm,
    NotInSwarm,
    /// There are no plugins of Docker's kind, hence none of that name.
    NoPlugin,
    Experimental,
    /// One registry only can be searched, by an interface of its own.
    NoSearch,
}

macro_rules! operations {
    ($($method:ident $path:literal $kind:expr;)+) => {
        pub static OPERATIONS: &[Operation] =
            &[$(Operation { method: Method::$method, path: $path, kind: $kind }),+];
    };
}

use Kind::{Experimental, Later, NoPlugin, NoSearch, NoSwarm, NotInSwarm};

operations! {
    POST   "/build"                        Later("build");
    POST   "/build/prune"                  Later("builder prune");
    POST   "/build/cancel"                 Later("build");
    POST   "/session"                      Later("build");
    POST   "/grpc"                         Later("build");
    GET    "/images/search"                NoSearch;
    POST   "/images/{*}/push"              Later("push");
    GET    "/images/{*}/attestations"      Later("image attestations");
    PUT    "/volumes/{}"                   NoSwarm;

    GET    "/containers/{}/checkpoints"    Experimental;
    POST   "/containers/{}/checkpoints"    Experimental;
    DELETE "/containers/{}/checkpoints/{}" Experimental;

    GET    "/plugins/privileges"           Later("plugin install");
    POST   "/plugins/pull"                 Later("plugin install");
    POST   "/plugins/create"               Later("plugin create");
    GET    "/plugins/{*}/json"             NoPlugin;
    POST   "/plugins/{*}/enable"           NoPlugin;
    POST   "/plugins/{*}/disable"          NoPlugin;
    POST   "/plugins/{*}/upgrade"          NoPlugin;
    POST   "/plugins/{*}/push"             NoPlugin;
    POST   "/plugins/{*}/set"              NoPlugin;
    DELETE "/plugins/{*}"                  NoPlugin;

    GET    "/swarm"                        NoSwarm;
    POST   "/swarm/init"                   Later("swarm init");
    POST   "/swarm/join"                   Later("swarm join");
    POST   "/swarm/leave"                  NotInSwarm;
    POST   "/swarm/update"                 NoSwarm;
    GET    "/swarm/unlockkey"              NoSwarm;
    POST   "/swarm/unlock"                 NotInSwarm;
    GET    "/nodes"                        NoSwarm;
    GET    "/nodes/{}"                     NoSwarm;
    DELETE "/nodes/{}"                     NoSwarm;
    POST   "/nodes/{}/update"              NoSwarm;
    GET    "/services"                     NoSwarm;
    POST   "/services/create"              NoSwarm;
    GET    "/services/{}"                  NoSwarm;
    DELETE "/services/{}"                  NoSwarm;
    POST   "/services/{}/update"           NoSwarm;
    GET    "/services/{}/logs"             NoSwarm;
    GET    "/tasks"                        NoSwarm;
    GET    "/tasks/{}"                     NoSwarm;
    GET    "/tasks/{}/logs"                NoSwarm;
    GET    "/secrets"                      NoSwarm;
    POST   "/secrets/create"               NoSwarm;
    GET    "/secrets/{}"                   NoSwarm;
    DELETE "/secrets/{}"                   NoSwarm;
    POST   "/secrets/{}/update"            NoSwarm;
    GET    "/configs"                      NoSwarm;
    POST   "/configs/create"               NoSwarm;
    GET    "/configs/{}"                   NoSwarm;
    DELETE "/configs/{}"                   NoSwarm;
    POST   "/configs/{}/update"            NoSwarm;
}

pub fn refuse(operation: &Operation, name: &str) -> Answer {
    let (status, message) = match operation.kind {
        Later(what) => {
            let path = operation.path.replace("{*}", "{name}").replace("{}", "{id}");
            let method = &operation.method;
            (StatusCode::NOT_IMPLEMENTED, format!("bulkhead: {method} {path} ({what}) is not supported yet"))
        }
        NoSwarm => (
            StatusCode::SERVICE_UNAVAILABLE,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
             to connect this node to swarm and try again."
                .to_owned(),
        ),
        NotInSwarm => (StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm".to_owned()),
        NoPlugin => (StatusCode::NOT_FOUND, format!("plugin \"{}\" not found", crate::query::clip(name))),
        NoSearch => (
            StatusCode::NOT_IMPLEMENTED,
            "bulkhead: search is not supported, registries have no common way to be searched: look for images on the \
             registry's own page, and pull them by name"
                .to_owned(),
        ),
        Experimental => (
            StatusCode::NOT_IMPLEMENTED,
            "bulkhead: checkpoints are an experimental feature that is not supported yet".to_owned(),
        ),
    };
    Err(ApiError { status, message })
}

#[cfg(test)]
mod tests {
    use crate::routes::find;
    use http::Method;

    fn check(method: Method, path: &str, status: u16, message: &str) {
        let (endpoint, name) = find(&method, path).unwrap();
        let crate::routes::Endpoint::Unsupported(operation) = endpoint else { panic!("{path} is supported") };
        let error = super::refuse(operation, &name).unwrap_err();
        assert_eq!((error.status.as_u16(), error.message.as_str()), (status, message));
    }

    #[test]
    fn refusals_name_the_call() {
        check(
            Method::POST,
            "/images/a/b/push",
            501,
            "bulkhead: POST /images/{name}/push (push) is not supported yet",
        );
        let (found, _) = find(&Method::GET, "/images/search").unwrap();
        let crate::routes::Endpoint::Unsupported(search) = found else { panic!("search is supported") };
        assert!(super::refuse(search, "").unwrap_err().message.contains("pull them by name"));
        check(Method::GET, "/plugins/a/b/json", 404, "plugin \"a/b\" not found");
        check(
            Method::GET,
            "/services",
            503,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        );
    }
}
