//! One connection: HTTP/1 with upgrades, under deadlines.

use super::Stop;
use super::guard::Origins;
use super::peer::{Peer, Refused};
use crate::tls::client_name;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use axum::response::Response;
use bulkhead_model::Caller;
use bulkhead_model::caller::Via;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

/// Headers of one request together. Docker's credentials header is the largest that there is.
const HEADER_BYTES_MAX: usize = 64 << 10;

pub(super) struct Served {
    pub app: Router,
    pub origins: Origins,
    /// For headers, and for a TLS handshake.
    pub timeout: Duration,
}

impl Served {
    pub async fn run(self, peer: Peer, stop: Stop) {
        let hard = stop.hard.clone();
        tokio::select! {
            () = self.serve(peer, stop) => {}
            () = hard.cancelled() => {}
        }
    }

    async fn serve(self, peer: Peer, stop: Stop) {
        match peer {
            Peer::Unix { stream, refusal: Some(refused), .. } => self.refuse(stream, refused, stop).await,
            Peer::Unix { stream, uid, refusal: None } => self.http(stream, Caller::unix(uid), stop).await,
            Peer::Loopback { stream, .. } => {
                self.http(stream, Caller { name: "loopback".into(), via: Via::Loopback }, stop).await;
            }
            Peer::Tls { stream, address, acceptor } => {
                let handshake = tokio::time::timeout(self.timeout, acceptor.accept(stream)).await;
                let error = match handshake {
                    Ok(Ok(stream)) => match client_name(stream.get_ref().1.peer_certificates()) {
                        Some(name) => {
                            let caller = Caller { name: format!("cert:{name}"), via: Via::Tls };
                            return self.http(stream, caller, stop).await;
                        }
                        None => "the client certificate has no common name".into(),
                    },
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "no TLS handshake in time".into(),
                };
                tracing::info!(peer = %address, error, "a TLS client was turned away");
            }
        }
    }

    async fn http(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        caller: Caller,
        stop: Stop,
    ) {
        let Self { app, origins, timeout } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let app = app.clone();
            let refusal = origins.check(request.headers());
            request.extensions_mut().insert(caller.clone());
            async move {
                match refusal {
                    Some(response) => Ok(response),
                    None => app.oneshot(request.map(Body::new)).await,
                }
            }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(timeout)
            .max_buf_size(HEADER_BYTES_MAX)
            // `docker run` closes its sending side and still reads the output.
            .half_close(true);
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.soft.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // A client that goes away, or an idle one that was closed: nobody's fault.
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Every request gets the same answer, and the connection ends with the first.
    async fn refuse(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        refused: Refused,
        stop: Stop,
    ) {
        let service = service_fn(move |_: Request<Incoming>| {
            let mut response: Response = refused.response();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            async move { Ok::<_, Infallible>(response) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.timeout).max_buf_size(HEADER_BYTES_MAX);
        tokio::select! {
            _ = builder.serve_connection(TokioIo::new(stream), service) => {}
            () = stop.soft.cancelled() => {}
        }
    }
}
