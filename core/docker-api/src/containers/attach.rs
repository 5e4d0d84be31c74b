//! `POST /containers/{id}/attach`: the process's input and output, over the connection itself.
//!
//! A client may attach before the container was started; the stream begins with the run.

use crate::call::{Answer, Call};
use crate::detach::DetachKeys;
use crate::error::{ApiError, before, chain};
use crate::framing::{self, Channel};
use crate::hijack::{self, AtEnd, Duplex};
use crate::reply;
use bulkhead_engine::{EngineError, Output};
use bytes::Bytes;
use futures_util::StreamExt;

pub async fn post(mut call: Call) -> Answer {
    let query = &call.query;
    let (stdin, stdout, stderr) = (query.flag("stdin"), query.flag("stdout"), query.flag("stderr"));
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
    let frames = output.map(move |output| if stdio.tty { raw(output) } else { frame(output) });
    let duplex = Duplex {
        frames: reply::until_stop(&call, frames),
        input,
        at_end,
        detach: stdio.tty.then_some(keys),
        framed: !stdio.tty,
    };
    Ok(hijack::answer(&mut call, duplex))
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

/// A terminal's output as it is.
fn raw(output: Result<Output, EngineError>) -> Bytes {
    match output {
        Ok(output) => output.data,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "attached output broke off");
            format!("{}\r\n", ApiError::from(error).message).into()
        }
    }
}
