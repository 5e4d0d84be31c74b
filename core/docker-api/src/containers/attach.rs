//! `POST /containers/{id}/attach`: the process's input and output, over the connection itself; and
//! `GET /containers/{id}/attach/ws`: the same as a WebSocket.
//!
//! A client may attach before the container was started; the stream begins with the run.

use crate::call::{Answer, Call};
use crate::detach::{DetachKeys, Leave};
use crate::error::{ApiError, before, chain};
use crate::framing::{self, Channel};
use crate::hijack::{self, AtEnd, Duplex};
use crate::{reply, websocket as socket};
use bulkhead_engine::{EngineError, Output};
use bytes::Bytes;
use futures_util::StreamExt;

pub async fn post(mut call: Call) -> Answer {
    let query = &call.query;
    let streams = [query.flag("stdin"), query.flag("stdout"), query.flag("stderr")];
    let duplex = attach(&mut call, streams, true).await?;
    Ok(hijack::answer(&mut call, duplex))
}

pub async fn websocket(mut call: Call) -> Answer {
    let query = &call.query;
    // Which ones could not be said before.
    let all = !call.version.since(42);
    let streams = ["stdin", "stdout", "stderr"].map(|name| all || query.flag(name));
    let duplex = attach(&mut call, streams, false).await?;
    socket::answer(&mut call, duplex)
}

/// `framed`: whether frames keep the streams apart; a terminal has only one.
async fn attach(
    call: &mut Call,
    [stdin, stdout, stderr]: [bool; 3],
    framed: bool,
) -> Result<Duplex, ApiError> {
    let query = &call.query;
    let (replay, stream) = (query.flag("logs"), query.flag("stream"));
    let keys = DetachKeys::parse(query.text("detachKeys"))?;
    let container = call.engine().container(&call.session, &call.name).await?;
    let stdio = container.spec.stdio;
    let output = call.engine().attach(&call.session, &call.name, stdout, stderr, replay, stream).await;
    let output = output.map_err(before("attach"))?;
    let input = if stdin && stream { call.engine().input(&call.session, &call.name).await? } else { None };
    let at_end = match (&input, stdio.stdin_once && !stdio.tty) {
        (None, _) => AtEnd::Nothing,
        (Some(_), true) => AtEnd::EndsInput,
        (Some(_), false) => AtEnd::EndsStream,
    };
    let framed = framed && !stdio.tty;
    let frames = output.map(move |output| if framed { frame(output) } else { raw(output) });
    let (engine, session) = (call.engine().clone(), call.session.clone());
    let told = Box::pin(async move {
        if let Err(error) = engine.detached(&session, container.id.as_str()).await {
            tracing::warn!(error = %chain(&error), "a client that left a terminal is not told of");
        }
    });
    Ok(Duplex {
        frames: reply::until_stop(call, frames),
        input,
        at_end,
        leave: stdio.tty.then_some(Leave { keys, told }),
        framed,
    })
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

/// Output as it is.
fn raw(output: Result<Output, EngineError>) -> Bytes {
    match output {
        Ok(output) => output.data,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "attached output broke off");
            format!("{}\r\n", ApiError::from(error).message).into()
        }
    }
}
