//! A VCH's endpoint on a unix socket, and two kinds of client.

use crate::world::{World, within};
use bulkhead_docker_api::{ApiState, router};
use bulkhead_model::{Caller, Clock, VchSettings};
use bulkhead_test_support::Docker;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

pub struct Endpoint {
    pub world: World,
    pub stop: CancellationToken,
    dir: tempfile::TempDir,
    tasks: TaskTracker,
}

/// What a docker command printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Of an error.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Endpoint {
    pub async fn new() -> Self {
        Self::of("dev").await
    }

    /// Of a VCH of that class.
    pub async fn of(class: &str) -> Self {
        let world = World::with(class, VchSettings::default()).await;
        let dir = tempfile::tempdir().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let state = ApiState {
            engine: world.engine.clone(),
            vch: world.vch.id,
            clock: Clock::system(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let caller = world.session.caller.clone();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        tasks.spawn(serve(listener, state, caller, tasks.clone(), stop.clone()));
        Self { world, stop, dir, tasks }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// `docker ARGS`, to its end.
    pub async fn docker(&self, args: &[&str]) -> Said {
        let mut command = self.docker_command(args);
        let output = within("docker", command.output()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What it printed; it must succeed.
    pub async fn docker_ok(&self, args: &[&str]) -> String {
        let said = self.docker(args).await;
        assert_eq!(said.code, 0, "docker {args:?}: {}", said.err);
        said.out.trim_end().to_owned()
    }

    /// What it complained about; it must fail.
    pub async fn docker_fails(&self, args: &[&str]) -> String {
        let said = self.docker(args).await;
        assert_ne!(said.code, 0, "docker {args:?}: {}", said.out);
        said.err
    }

    pub fn docker_command(&self, args: &[&str]) -> tokio::process::Command {
        let cli = Docker::new(format!("unix://{}", self.socket().display()), self.dir.path());
        let mut command = tokio::process::Command::from(cli.command(args));
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        command
    }

    pub async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Got {
        self.send("GET", path, &[], "").await
    }

    pub async fn post_json(&self, path: &str, body: &str) -> Got {
        self.send("POST", path, &[("content-type", "application/json")], body).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        let response = self.begin(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let body = within("body", body.collect()).await.unwrap().to_bytes();
        Got { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// The answer's head; its body is still to come.
    pub async fn begin(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Incoming> {
        let io = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        self.tasks.spawn(async move {
            connection.with_upgrades().await.ok();
        });
        let mut request = Request::builder().method(method).uri(path).header("host", "docker");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        within("headers", sender.send_request(request)).await.unwrap()
    }
}

/// As a listener of the server does it.
async fn serve(
    listener: UnixListener,
    state: ApiState,
    caller: Caller,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else { return };
        let caller = caller.clone();
        let app = router(state.clone()).map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(caller.clone());
            request
        });
        tasks.spawn(async move {
            Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .half_close(true)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
                .with_upgrades()
                .await
                .ok();
        });
    }
}
