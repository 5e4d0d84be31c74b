//! A connection that becomes a process's input and output.
//!
//! ```text
//!   client asks for an upgrade:  101, then bytes both ways until one side closes
//!   client does not:             200, output until the end of the connection; the request's body is the input
//! ```
//!
//! dockerd also takes bare bytes behind a request without upgrade and without a body. Here they are lost: HTTP has them
//! as the connection's next request. Input without an upgrade has to be a body, with a length or chunked.
//!
//! A client may close its own half at any time: that is the end of its input, not of its interest.

use crate::call::Call;
use crate::detach::{Leave, Typed};
use crate::{framing, reply};
use axum::body::Body;
use bulkhead_engine::{EngineError, Input};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::{HeaderValue, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// For a client to take the end of the stream, and to close its half.
const FAREWELL: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 16 << 10;

/// What the end of a client's input means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    Nothing,
    /// It is the end of the process's input.
    EndsInput,
    /// The client is done; the process's input stays open for the next.
    EndsStream,
    /// The client is done, and so is the process's input.
    EndsBoth,
}

/// What to do with a connection.
pub struct Duplex {
    /// As they go on the wire.
    pub frames: BoxStream<'static, Bytes>,
    /// `None`: what the client sends is thrown away.
    pub input: Option<Input>,
    pub at_end: AtEnd,
    pub leave: Option<Leave>,
    /// Frames keep stdout and stderr apart.
    pub framed: bool,
}

/// Answers with the stream.
pub fn answer(call: &mut Call, duplex: Duplex) -> axum::response::Response {
    let framed = duplex.framed;
    answer_then(call, framed, std::future::ready(duplex))
}

/// Answers, and only then begins. Output that comes in one piece with the answer's head is lost on clients that read
/// the two by different means, as Docker's SDK for Python does.
pub fn answer_then(
    call: &mut Call,
    framed: bool,
    begin: impl Future<Output = Duplex> + Send + 'static,
) -> axum::response::Response {
    match call.upgrade.take() {
        Some(upgrade) if wants_upgrade(call) => {
            let response = switching(call, framed);
            call.state.tasks.spawn(serve(upgrade, begin));
            response
        }
        _ => {
            let (body, tasks) = (std::mem::take(&mut call.body), call.state.tasks.clone());
            let begun = async move {
                let duplex = begin.await;
                if let Some(input) = duplex.input {
                    tasks.spawn(feed_body(body, input, duplex.at_end));
                }
                duplex.frames
            };
            plain(stream::once(begun).flatten().boxed())
        }
    }
}

fn wants_upgrade(call: &Call) -> bool {
    let connection = call.header(header::CONNECTION.as_str()).unwrap_or_default();
    let named = connection.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    named && call.header(header::UPGRADE.as_str()).is_some_and(|to| to.eq_ignore_ascii_case("tcp"))
}

fn switching(call: &Call, framed: bool) -> axum::response::Response {
    let content_type = framing::content_type(call.version, framed);
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

async fn feed_body(body: Body, mut input: Input, at_end: AtEnd) {
    let mut pieces = body.into_data_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        if let Err(error) = input.write(&piece).await {
            tracing::debug!(%error, "input of a process ended");
            return;
        }
    }
    if matches!(at_end, AtEnd::EndsInput | AtEnd::EndsBoth)
        && let Err(error) = input.end().await
    {
        tracing::debug!(%error, "input of a process could not be ended");
    }
}

async fn serve(upgrade: OnUpgrade, begin: impl Future<Output = Duplex>) {
    match upgrade.await {
        Ok(upgraded) => {
            let duplex = begin.await;
            let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
            if let Err(error) = pump(reader, writer, duplex).await {
                tracing::debug!(error = %error, "attached client left");
            }
        }
        Err(error) => tracing::debug!(error = %error, "attached client left before the stream began"),
    }
}

/// How the client's half went on.
#[derive(Debug, PartialEq, Eq)]
enum Fed {
    /// It closed its half; output goes on.
    Closed,
    /// It wants no more of anything.
    Done,
}

/// Writes all frames and feeds the process, then says goodbye in the order that loses nothing: end of output, the
/// client's own end, close. A connection that is closed with unread input would be reset, and the tail of the output
/// lost with it.
pub async fn pump(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    duplex: Duplex,
) -> io::Result<()> {
    let Duplex { mut frames, input, at_end, leave, .. } = duplex;
    let mut input_open = true;
    {
        let feed = feed(&mut reader, input, at_end, leave);
        tokio::pin!(feed);
        loop {
            tokio::select! {
                frame = frames.next() => match frame {
                    // A client that does not read holds up only itself: the engine keeps the output.
                    Some(frame) => {
                        let write = write(&mut writer, &frame);
                        tokio::pin!(write);
                        // Its input goes on meanwhile: it may have to be read for the output to be taken.
                        let fed = tokio::select! {
                            written = &mut write => { written?; continue }
                            fed = &mut feed, if input_open => fed?,
                        };
                        input_open = false;
                        if fed == Fed::Done {
                            break;
                        }
                        write.await?;
                    }
                    None => break,
                },
                fed = &mut feed, if input_open => {
                    input_open = false;
                    if fed? == Fed::Done {
                        break;
                    }
                }
            }
        }
    }
    let farewell = async {
        writer.shutdown().await?;
        let mut buffer = [0; 4096];
        while reader.read(&mut buffer).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(FAREWELL, farewell).await.unwrap_or(Ok(()))
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    writer.write_all(frame).await?;
    writer.flush().await
}

/// Reads what the client sends, no faster than the process takes it.
async fn feed(
    reader: &mut (impl AsyncRead + Unpin),
    mut input: Option<Input>,
    at_end: AtEnd,
    mut leave: Option<Leave>,
) -> io::Result<Fed> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = reader.read(&mut buffer).await?;
        let data = buffer.get(..count).unwrap_or_default();
        if count == 0 {
            break;
        }
        let typed = match &mut leave {
            Some(leave) => leave.keys.type_in(data),
            None => Typed { data: data.to_vec(), detached: false },
        };
        pass_on(&mut input, &typed.data).await;
        if typed.detached {
            if let Some(leave) = leave {
                leave.told.await;
            }
            return Ok(Fed::Done);
        }
    }
    if let (AtEnd::EndsInput | AtEnd::EndsBoth, Some(input)) = (at_end, &mut input)
        && let Err(error) = input.end().await
    {
        tracing::debug!(%error, "input of a process could not be ended");
    }
    Ok(match at_end {
        AtEnd::Nothing | AtEnd::EndsInput => Fed::Closed,
        AtEnd::EndsStream | AtEnd::EndsBoth => Fed::Done,
    })
}

/// A process that is over takes no more; its client need not be told, the output says so.
async fn pass_on(input: &mut Option<Input>, data: &[u8]) {
    let Some(open) = input.as_mut().filter(|_| !data.is_empty()) else { return };
    match open.write(data).await {
        Ok(()) => {}
        Err(EngineError::NotRunning(_) | EngineError::InputClosed | EngineError::Stopping) => *input = None,
        Err(error) => {
            tracing::debug!(%error, "input of a process ended");
            *input = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detach::DetachKeys;
    use tokio::net::UnixStream;

    fn output(frames: BoxStream<'static, Bytes>) -> Duplex {
        Duplex { frames, input: None, at_end: AtEnd::Nothing, leave: None, framed: true }
    }

    #[tokio::test]
    async fn a_half_closed_client_still_gets_everything() {
        let (server, mut client) = UnixStream::pair().unwrap();
        client.shutdown().await.unwrap();
        let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
        let frames = tokio_stream::wrappers::ReceiverStream::new(receive).boxed();
        let (reader, writer) = tokio::io::split(server);
        let served = tokio::spawn(pump(reader, writer, output(frames)));
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
    async fn input_without_a_process_is_read_and_thrown_away() {
        let (server, mut client) = UnixStream::pair().unwrap();
        let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
        let frames = tokio_stream::wrappers::ReceiverStream::new(receive).boxed();
        let (reader, writer) = tokio::io::split(server);
        let served = tokio::spawn(pump(reader, writer, output(frames)));
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
        assert!(pump(reader, writer, output(frames)).await.is_err());
    }

    #[tokio::test]
    async fn keys_and_the_end_of_input_end_a_stream() {
        // What is typed behind the keys is nobody's, and must not reset the connection.
        let typed = [&b"abc\x10\x11"[..], &[b'x'; 4 * READ_BYTES]].concat();
        for bytes in [&typed[..], b""] {
            let (server, mut client) = UnixStream::pair().unwrap();
            let duplex = Duplex {
                at_end: AtEnd::EndsStream,
                leave: Some(Leave { keys: DetachKeys::parse(None).unwrap(), told: Box::pin(async {}) }),
                ..output(stream::pending().boxed())
            };
            let (reader, writer) = tokio::io::split(server);
            let served = tokio::spawn(pump(reader, writer, duplex));
            client.write_all(bytes).await.unwrap();
            if bytes.is_empty() {
                client.shutdown().await.unwrap();
            }
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            drop(client);
            served.await.unwrap().unwrap();
        }
    }
}
