//! `POST /containers/{id}/attach`: the process's output, over the connection itself.
//!
//! ```text
//!   client asks for an upgrade:  101, then frames both ways until one side closes
//!   client does not:             200, frames until the end of the connection
//! ```
//!
//! A client may attach before the container was started; the stream begins with the run. It may close its own half
//! at once (the CLI does without `-i`): that is the end of its input, not of its interest. Input is read and thrown
//! away, since no container has an open stdin yet.

use crate::call::{Answer, Call};
use crate::error::{ApiError, chain};
use crate::framing::{self, Channel};
use crate::reply;
use axum::body::Body;
use bulkhead_engine::{EngineError, Output};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderValue, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// For a client to take the end of the stream, and to close its half.
const FAREWELL: Duration = Duration::from_secs(10);

pub async fn post(mut call: Call) -> Answer {
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    let (replay, stream) = (query.flag("logs"), query.flag("stream"));
    let output = call.engine().attach(&call.session, &call.name, stdout, stderr, replay, stream).await?;
    let frames = reply::until_stop(&call, output.map(frame));
    match call.upgrade.take() {
        Some(upgrade) if wants_upgrade(&call) => {
            call.state.tasks.spawn(serve(upgrade, frames));
            Ok(switching(&call))
        }
        _ => Ok(plain(frames)),
    }
}

fn wants_upgrade(call: &Call) -> bool {
    let connection = call.header(header::CONNECTION.as_str()).unwrap_or_default();
    let named = connection.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    named && call.header(header::UPGRADE.as_str()).is_some_and(|to| to.eq_ignore_ascii_case("tcp"))
}

fn switching(call: &Call) -> axum::response::Response {
    let content_type = framing::content_type(call.version, true);
    let mut response = reply::with_body(StatusCode::SWITCHING_PROTOCOLS, content_type, Body::empty());
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    response
}

/// Old clients read the bare bytes until the connection ends: an HTTP/1.0 answer is exactly that.
fn plain(frames: BoxStream<'static, Bytes>) -> axum::response::Response {
    let content_type = HeaderValue::from_static("application/vnd.docker.raw-stream");
    let body = Body::from_stream(frames.map(Ok::<_, Infallible>));
    let mut response = reply::with_body(StatusCode::OK, content_type, body);
    *response.version_mut() = Version::HTTP_10;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn frame(output: Result<Output, EngineError>) -> Bytes {
    match output {
        Ok(output) => framing::frame(output.stream.into(), &[&output.data]),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "attached output broke off");
            framing::frame(Channel::EngineError, &[ApiError::from(error).message.as_bytes(), b"\n"])
        }
    }
}

async fn serve(upgrade: OnUpgrade, frames: BoxStream<'static, Bytes>) {
    match upgrade.await {
        Ok(upgraded) => {
            let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
            if let Err(error) = pump(reader, writer, frames).await {
                tracing::debug!(error = %error, "attached client left");
            }
        }
        Err(error) => tracing::debug!(error = %error, "attached client left before the stream began"),
    }
}

/// Writes all frames, then says goodbye in the order that loses nothing: end of output, the client's own end, close.
/// A connection that is closed with unread input would be reset, and the tail of the output lost with it.
async fn pump(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    mut frames: BoxStream<'static, Bytes>,
) -> io::Result<()> {
    let mut input_open = true;
    loop {
        tokio::select! {
            frame = frames.next() => match frame {
                // A client that does not read holds up only itself: the engine keeps the output.
                Some(frame) => {
                    writer.write_all(&frame).await?;
                    writer.flush().await?;
                }
                None => break,
            },
            // The end of input ends nothing; an error means that nobody is there any more.
            open = discard(&mut reader), if input_open => input_open = open?,
        }
    }
    let farewell = async {
        writer.shutdown().await?;
        while input_open {
            input_open = discard(&mut reader).await?;
        }
        Ok(())
    };
    tokio::time::timeout(FAREWELL, farewell).await.unwrap_or(Ok(()))
}

/// Whether there may be more.
async fn discard(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    Ok(reader.read(&mut buffer).await? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn a_half_closed_client_still_gets_everything() {
        let (server, mut client) = UnixStream::pair().unwrap();
        client.shutdown().await.unwrap();
        let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
        let frames = tokio_stream::wrappers::ReceiverStream::new(receive).boxed();
        let (reader, writer) = tokio::io::split(server);
        let served = tokio::spawn(pump(reader, writer, frames));
        for _ in 0..3 {
            send.send(Bytes::from_static(b"abc")).await.unwrap();
        }
        drop(send);
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"abcabcabc");
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn input_is_read_and_thrown_away() {
        let (server, mut client) = UnixStream::pair().unwrap();
        let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
        let frames = tokio_stream::wrappers::ReceiverStream::new(receive).boxed();
        let (reader, writer) = tokio::io::split(server);
        let served = tokio::spawn(pump(reader, writer, frames));
        // More than any buffer holds: it would block if nobody read.
        client.write_all(&vec![b'x'; 4 << 20]).await.unwrap();
        send.send(Bytes::from_static(b"end")).await.unwrap();
        drop(send);
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"end");
        drop(client);
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_is_gone_ends_the_stream() {
        let (server, client) = UnixStream::pair().unwrap();
        drop(client);
        let frames = stream::repeat(Bytes::from_static(b"x")).boxed();
        let (reader, writer) = tokio::io::split(server);
        assert!(pump(reader, writer, frames).await.is_err());
    }
}
