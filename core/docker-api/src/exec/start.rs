//! `POST /exec/{id}/start`: runs it, over the connection itself or detached.

use crate::body;
use crate::call::{Answer, Call};
use crate::create::ask::console_size;
use crate::detach::{DetachKeys, Leave};
use crate::error::{ApiError, chain};
use crate::framing::{self, Channel};
use crate::hijack::{self, AtEnd, Duplex};
use crate::json::{self, Fields};
use crate::reply;
use bulkhead_engine::{EngineError, ExecAsk, ExecSession, OutputStream, Size};
use futures_util::{StreamExt, stream};
use http::StatusCode;

pub async fn post(mut call: Call) -> Answer {
    let bytes = body::json_or_nothing(&mut call).await?;
    let fields = match bytes.as_ref() {
        [] => Fields::of("", serde_json::json!({}))?,
        bytes => Fields::of("", json::parse(bytes)?)?,
    };
    let size = console_size(&fields)?.map(|(rows, columns)| Size { rows, columns });
    let facts = call.engine().exec_check(&call.session, &call.name).await?;
    let keys = call.query.text("detachKeys").or(facts.ask.detach_keys.as_deref());
    let keys = DetachKeys::parse(keys)?;
    let (engine, session, id) = (call.engine().clone(), call.session.clone(), call.name.clone());
    if fields.flag("Detach")? {
        return match engine.exec_start(&session, &id, size).await {
            Ok(_) => reply::empty(StatusCode::OK),
            // As dockerd words it: what cannot run is the client's mistake.
            Err(EngineError::StartFailed { message, .. }) => Err(ApiError::bad(message)),
            Err(error) => Err(error.into()),
        };
    }
    // As in dockerd, who starts it says how the output comes, whatever it was created with.
    let (framed, stop) = (!fields.flag("Tty")?, call.state.stop.clone());
    let begin = async move {
        let duplex = match engine.exec_start(&session, &id, size).await {
            Ok(begun) => {
                let told = Box::pin(async move {
                    if let Err(error) = engine.exec_detached(&session, &id).await {
                        tracing::warn!(error = %chain(&error), "a client that left a terminal is not told of");
                    }
                });
                duplex(begun, &facts.ask, Leave { keys, told }, framed)
            }
            // The connection is promised; the reason comes as output, the code by inspect.
            Err(error) => failure(error, framed),
        };
        Duplex { frames: duplex.frames.take_until(stop.cancelled_owned()).boxed(), ..duplex }
    };
    Ok(hijack::answer_then(&mut call, framed, begin))
}

fn duplex(begun: ExecSession, ask: &ExecAsk, leave: Leave, framed: bool) -> Duplex {
    let ExecSession { output, input } = begun;
    let (tty, stdout, stderr) = (ask.tty, ask.stdout, ask.stderr);
    let frames = output.filter_map(move |output| {
        let wanted = match output.stream {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr,
        };
        let frame = match framed {
            true => framing::frame(output.stream.into(), &[&output.data]),
            false => output.data,
        };
        std::future::ready(wanted.then_some(frame))
    });
    let at_end = match (&input, tty) {
        (None, _) => AtEnd::Nothing,
        (Some(_), false) => AtEnd::EndsInput,
        (Some(_), true) => AtEnd::EndsStream,
    };
    Duplex { frames: frames.boxed(), input, at_end, leave: tty.then_some(leave), framed }
}

fn failure(error: EngineError, framed: bool) -> Duplex {
    let message = match error {
        EngineError::StartFailed { message, .. } => message,
        other => ApiError::from(other).message,
    };
    let text = format!("{message}\r\n");
    let frame = if framed { framing::frame(Channel::Stdout, &[text.as_bytes()]) } else { text.into() };
    Duplex { frames: stream::iter([frame]).boxed(), input: None, at_end: AtEnd::Nothing, leave: None, framed }
}
