//! A process's input and output as a WebSocket: each piece of output is one binary message, unframed, and what the
//! client sends is input.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::hijack::{self, AtEnd, Duplex};
use crate::reply;
use axum::body::Body;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

/// Largest message of a client; it is held in memory whole.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Answers with the stream, if the client asked for a WebSocket as RFC 6455 has it.
pub fn answer(call: &mut Call, duplex: Duplex) -> Answer {
    let accept = accept(call)?;
    let no_connection = || ApiError::bad("a WebSocket needs a connection of its own (HTTP/1.1)");
    let upgrade = call.upgrade.take().ok_or_else(no_connection)?;
    let mut response = reply::empty(StatusCode::SWITCHING_PROTOCOLS)?;
    *response.body_mut() = Body::empty();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    call.state.tasks.spawn(serve(upgrade, duplex));
    Ok(response)
}

fn accept(call: &Call) -> Result<HeaderValue, ApiError> {
    let is = |name: header::HeaderName, word: &str| {
        let value = call.header(name.as_str()).unwrap_or_default();
        value.split(',').any(|found| found.trim().eq_ignore_ascii_case(word))
    };
    if !is(header::CONNECTION, "upgrade") || !is(header::UPGRADE, "websocket") {
        return Err(ApiError::bad(
            "not a WebSocket: `Connection: Upgrade` and `Upgrade: websocket` are needed",
        ));
    }
    if !is(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(ApiError::bad("this version of WebSocket is not supported: version 13 is"));
    }
    let key = call.header(header::SEC_WEBSOCKET_KEY.as_str()).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| ApiError::bad("not a WebSocket: Sec-WebSocket-Key is missing"))?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| ApiError::bad("not a WebSocket: Sec-WebSocket-Key is wrong"))
}

async fn serve(upgrade: OnUpgrade, mut duplex: Duplex) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(error = %error, "attached client left before the stream began");
            return;
        }
    };
    // A WebSocket has no half that could be closed alone: whoever closes it has left.
    duplex.at_end = match duplex.at_end {
        AtEnd::Nothing | AtEnd::EndsStream => AtEnd::EndsStream,
        AtEnd::EndsInput | AtEnd::EndsBoth => AtEnd::EndsBoth,
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (messages_out, messages_in) = socket.split();
    let output = messages_out
        .sink_map_err(io::Error::other)
        .with(|piece| std::future::ready(Ok::<_, io::Error>(Message::Binary(piece))));
    let input = messages_in.filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(data)) => Some(Ok(data)),
            Ok(Message::Text(text)) => Some(Ok(text.into())),
            // Pings are answered below here, and the end of the stream follows a close.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => None,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let (reader, writer) = (StreamReader::new(input), SinkWriter::new(CopyToBytes::new(output)));
    if let Err(error) = hijack::pump(reader, writer, duplex).await {
        tracing::debug!(error = %error, "attached client left");
    }
}
