//! One connection: HTTP/1 with upgrades, under deadlines.

use super::Stop;
use super::gone::Gone;
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
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

/// Headers of one request together. Docker's credentials header is the largest that there is.
const HEADER_BYTES_MAX: usize = 64 << 10;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

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
        match self.open(peer, &stop).await {
            Ok(Some((stream, gone, caller))) => self.http(stream, gone, caller, stop).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a connection cannot be watched, and is closed"),
        }
    }

    /// The stream of HTTP and whose it is; `None` where the client got its answer already, or none.
    async fn open(&self, peer: Peer, stop: &Stop) -> io::Result<Option<(Box<dyn Stream>, Gone, Caller)>> {
        match peer {
            Peer::Unix { stream, refusal: Some(refused), .. } => {
                self.refuse(stream, refused, stop).await;
                Ok(None)
            }
            Peer::Unix { stream, uid, refusal: None } => {
                let gone = Gone::new(&stream)?;
                Ok(Some((Box::new(stream), gone, Caller::unix(uid))))
            }
            Peer::Loopback { stream, .. } => {
                let gone = Gone::with_keepalive(&stream)?;
                Ok(Some((Box::new(stream), gone, Caller { name: "loopback".into(), via: Via::Loopback })))
            }
            Peer::Tls { stream, address, acceptor } => {
                let gone = Gone::with_keepalive(&stream)?;
                let handshake = tokio::time::timeout(self.timeout, acceptor.accept(stream)).await;
                let error = match handshake {
                    Ok(Ok(stream)) => match client_name(stream.get_ref().1.peer_certificates()) {
                        Some(name) => {
                            let caller = Caller { name: format!("cert:{name}"), via: Via::Tls };
                            return Ok(Some((Box::new(stream), gone, caller)));
                        }
                        None => "the client certificate has no common name".into(),
                    },
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "no TLS handshake in time".into(),
                };
                tracing::info!(peer = %address, error, "a TLS client was turned away");
                Ok(None)
            }
        }
    }

    async fn http(self, stream: Box<dyn Stream>, gone: Gone, caller: Caller, stop: Stop) {
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
        let until_stop = async {
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.soft.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        let ended = tokio::select! {
            ended = until_stop => ended,
            // What the request began goes on; only its waiting ends here.
            () = gone.wait() => return,
        };
        if let Err(error) = ended {
            // A client that goes away, or an idle one that was closed: nobody's fault.
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Every request gets the same answer, and the connection ends with the first.
    async fn refuse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        refused: Refused,
        stop: &Stop,
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
