//! Speaks to the admin socket.

use super::failure::{FAILED, Failure, UNAVAILABLE};
use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use bulkhead_admin_api::Problem;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Until the answer is there. Removing a VCH with running machines takes the longest.
const ANSWER: Duration = Duration::from_secs(120);
const JSON: &str = "application/json";
const ANSWER_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    pub fn new(socket: PathBuf) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(FAILED, error.to_string()))?;
        Ok(Self { socket, runtime })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.parse(&self.ask(Method::GET, path, JSON, None)?)
    }

    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::new(FAILED, error.to_string()))?;
        self.parse(&self.ask(Method::POST, path, JSON, Some(body))?)
    }

    pub fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::new(FAILED, error.to_string()))?;
        self.parse(&self.ask(Method::PATCH, path, JSON, Some(body))?)
    }

    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::new(FAILED, error.to_string()))?;
        self.parse(&self.ask(Method::PUT, path, JSON, Some(body))?)
    }

    /// With `If-Match`, where there is one.
    pub fn post_if<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        tag: Option<&str>,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::new(FAILED, error.to_string()))?;
        self.parse(&self.ask_if(Method::POST, path, JSON, Some(body), tag)?)
    }

    /// What is no JSON.
    pub fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: &'static str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        self.parse(&self.ask(Method::POST, path, kind, Some(body))?)
    }

    pub fn delete(&self, path: &str) -> Result<(), Failure> {
        self.ask(Method::DELETE, path, JSON, None).map(|_| ())
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(bytes)
            .map_err(|error| Failure::new(FAILED, format!("the server's answer is not understood: {error}")))
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, Failure> {
        self.ask_if(method, path, kind, body, None)
    }

    fn ask_if(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<Vec<u8>>,
        tag: Option<&str>,
    ) -> Result<Bytes, Failure> {
        let exchange = self.exchange(method, path, kind, body, tag);
        let answer = self.runtime.block_on(async { tokio::time::timeout(ANSWER, exchange).await });
        answer.unwrap_or_else(|_| {
            Err(Failure::new(UNAVAILABLE, format!("the server did not answer within {} s", ANSWER.as_secs())))
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<Vec<u8>>,
        tag: Option<&str>,
    ) -> Result<Bytes, Failure> {
        let broken = |error: &dyn std::fmt::Display| {
            Failure::new(UNAVAILABLE, format!("the connection to the server broke: {error}"))
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "bulkhead")
            .header(header::CONTENT_TYPE, kind);
        if let Some(tag) = tag {
            request = request.header(header::IF_MATCH, tag);
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| Failure::new(FAILED, error.to_string()))?;
        // Owns the sender, so that the connection ends with the exchange.
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok::<_, Failure>((status, body.map_err(|error| broken(&error))?.to_bytes()))
        };
        // The connection has to be driven for the exchange to get on. How it ended is told by the exchange: a server
        // may well close it with its answer.
        let (answer, _) = tokio::join!(exchange, connection);
        let (status, bytes) = answer?;
        if status.is_success() { Ok(bytes) } else { Err(refusal(status, &bytes)) }
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let failure =
            Failure::new(UNAVAILABLE, format!("no server answers at `{}`: {error}", self.socket.display()));
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                failure.remedy("use an account that may reach the socket's folder")
            }
            _ => failure.remedy(
                "start it with `bulkhead serve`, or name its socket with --socket or BULKHEAD_ADMIN_SOCKET",
            ),
        }
    }
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Failure {
    match serde_json::from_slice::<Problem>(bytes) {
        Ok(problem) => problem.into(),
        Err(_) => Failure::new(FAILED, format!("the server answered {status}")),
    }
}
