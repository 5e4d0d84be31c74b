//! `POST /exec/{id}/start`: runs it, over the connection itself or detached.

use crate::body;
use crate::call::{Answer, Call};
use crate::create::ask::console_size;
use crate::detach::DetachKeys;
use crate::framing::{self, Channel};
use crate::hijack::{self, AtEnd, Duplex};
use crate::json::{self, Fields};
use crate::reply;
use bulkhead_engine::{EngineError, ExecSession, Size};
use futures_util::{StreamExt, stream};
use http::StatusCode;

pub async fn post(mut call: Call) -> Answer {
    let bytes = body::json_or_nothing(&mut call).await?;
    let fields = match bytes.as_ref() {
        [] => Fields::of("", serde_json::json!({}))?,
        bytes => Fields::of("", json::parse(bytes)?)?,
    };
    let detach = fields.flag("Detach")?;
    let size = console_size(&fields)?.map(|(rows, columns)| Size { rows, columns });
    let facts = call.engine().exec_facts(&call.session, &call.name).await?;
    let (tty, wants) = (facts.ask.tty, (facts.ask.stdout, facts.ask.stderr));
    let started = call.engine().exec_start(&call.session, &call.name, size).await;
    if detach {
        return match started {
            Ok(_) => reply::empty(StatusCode::OK),
            // As dockerd words it: what cannot run is the client's mistake.
            Err(EngineError::StartFailed { message, .. }) => Err(crate::error::ApiError::bad(message)),
            Err(error) => Err(error.into()),
        };
    }
    let session = match started {
        Ok(session) => session,
        // The connection is promised; the reason comes as output, the code by inspect.
        Err(EngineError::StartFailed { message, .. }) => {
            let text = format!("{message}\r\n");
            let frame = if tty { text.into() } else { framing::frame(Channel::Stdout, &[text.as_bytes()]) };
            let duplex = Duplex {
                frames: stream::iter([frame]).boxed(),
                input: None,
                at_end: AtEnd::Nothing,
                detach: None,
                framed: !tty,
            };
            return Ok(hijack::answer(&mut call, duplex));
        }
        Err(error) => return Err(error.into()),
    };
    let ExecSession { output, input } = session;
    let frames = output.filter_map(move |output| {
        let wanted = match output.stream {
            bulkhead_engine::OutputStream::Stdout => wants.0,
            bulkhead_engine::OutputStream::Stderr => wants.1,
        };
        let frame = match tty {
            true => output.data,
            false => framing::frame(output.stream.into(), &[&output.data]),
        };
        futures_util::future::ready(wanted.then_some(frame))
    });
    let duplex = Duplex {
        frames: reply::until_stop(&call, frames),
        at_end: match (&input, tty) {
            (None, _) => AtEnd::Nothing,
            (Some(_), false) => AtEnd::EndsInput,
            (Some(_), true) => AtEnd::EndsStream,
        },
        input,
        detach: tty.then(|| DetachKeys::parse(call.query.text("detachKeys"))).transpose()?,
        framed: !tty,
    };
    Ok(hijack::answer(&mut call, duplex))
}
