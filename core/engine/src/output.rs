//! A container's output, read from its journal by as many as like: each at its own pace.

use crate::driver::{Handle, run_of};
use crate::{Engine, EngineError, Session};
use bulkhead_guest_protocol::journal::{Body, Reader, Record, Stream};
use bulkhead_machine::Journals;
use bulkhead_model::lifecycle::Status;
use bulkhead_model::restart::due;
use bulkhead_model::{Action, Container, ContainerId, LogDriver};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;

const READ_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// A piece of output, as the process wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stream: OutputStream,
    pub data: Bytes,
}

impl From<Stream> for OutputStream {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
        }
    }
}

/// Reads records onwards, up to the end of a run.
pub(crate) struct Cursor {
    journals: Arc<dyn Journals>,
    id: ContainerId,
    reader: Reader,
    ready: VecDeque<(u64, Record)>,
    handle: Arc<Handle>,
    seen: tokio::sync::watch::Receiver<crate::driver::Seen>,
    stop: tokio_util::sync::CancellationToken,
    /// The run at whose end the cursor ends; `None`: where the journal ended when it began.
    last_run: Option<u32>,
    end: u64,
    over: bool,
    /// Holds the log under an attached reader.
    pin: Option<u64>,
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(pin) = self.pin {
            self.handle.pins.remove(pin);
            self.handle.wake();
        }
    }
}

impl Cursor {
    /// The next record; `None` at the end, and after an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>, EngineError> {
        let next = self.look().await;
        if next.is_err() {
            self.over = true;
            self.ready.clear();
        }
        next
    }

    /// Goes on, after the end of what there was, to the end of that run: no record twice, none missed.
    pub(crate) fn follow(&mut self, last_run: u32) {
        self.last_run = Some(last_run);
    }

    /// Whether the next record is there without waiting.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    async fn look(&mut self) -> Result<Option<Record>, EngineError> {
        loop {
            let beyond = |(offset, record): &(u64, Record)| match self.last_run {
                None => *offset >= self.end,
                Some(last) => record.run > last,
            };
            if self.ready.front().is_some_and(beyond) {
                return Ok(None);
            }
            if let Some((offset, record)) = self.ready.pop_front() {
                self.over |= match record.body {
                    Body::Exited(_) | Body::StartFailed(_) => {
                        self.last_run.is_some_and(|last| record.run >= last)
                    }
                    Body::Output { .. } | Body::Started(_) => false,
                };
                if let Some(pin) = self.pin {
                    self.handle.pins.advance(pin, offset);
                }
                return Ok(Some(record));
            }
            if self.over || (self.last_run.is_none() && self.reader.end() >= self.end) {
                return Ok(None);
            }
            // Looked at before the journal: what was written before the end is then read for certain.
            let ended = self.ended();
            let chunk = self.journals.read(&self.id, self.reader.end(), READ_BYTES).await?;
            if chunk.data.is_empty() {
                if ended || self.last_run.is_none() {
                    return Ok(None);
                }
                if let Some(pin) = self.pin {
                    self.handle.pins.advance(pin, self.reader.offset());
                    self.handle.wake();
                }
                let beyond = self.reader.end();
                tokio::select! {
                    () = self.journals.grown(&self.id, beyond) => {}
                    changed = self.seen.changed() => if changed.is_err() { return Ok(None) },
                    () = self.stop.cancelled() => return Err(EngineError::Stopping),
                }
                continue;
            }
            self.reader.push(chunk.offset, &chunk.data);
            while let Some(found) = self.reader.next_record() {
                self.ready.push_back(found);
            }
        }
    }

    /// Whether the run that is waited for is over, as its driver recorded it: a machine that was killed says nothing.
    fn ended(&mut self) -> bool {
        let seen = self.seen.borrow_and_update();
        let over = |run: u32| seen.last_exit.as_ref().is_some_and(|(of, _)| *of >= run);
        seen.gone || self.last_run.is_some_and(over)
    }
}

/// The run that is on, or the next.
pub(crate) fn current_or_next_run(container: &Container) -> u32 {
    match container.status {
        Status::Starting { run } | Status::Running { run, .. } => run,
        Status::Created | Status::Exited { .. } => run_of(&container.status) + 1,
    }
}

impl Engine {
    pub(crate) async fn cursor(
        &self,
        container: &Container,
        from_start: bool,
        last_run: Option<u32>,
        pinned: bool,
    ) -> Result<Cursor, EngineError> {
        let journals = self.back_end().journals.clone();
        let extent = journals.extent(&container.id).await?;
        let handle = self.drive(container);
        let from = if from_start { extent.start } else { extent.end };
        let pin = pinned.then(|| handle.pins.add(from));
        Ok(Cursor {
            journals,
            id: container.id.clone(),
            reader: Reader::new(from),
            ready: VecDeque::new(),
            seen: handle.seen(),
            handle,
            stop: self.0.stop.clone(),
            last_run,
            end: extent.end,
            over: false,
            pin,
        })
    }

    /// Output as it comes, from now on (`replay`: from the beginning), until the run that is on, or else the next, is
    /// over (`stream` false: until now).
    pub async fn attach(
        &self,
        session: &Session,
        text: &str,
        stdout: bool,
        stderr: bool,
        replay: bool,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<Output, EngineError>>, EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerAttach, text).await?;
        if container.desired.paused {
            return Err(EngineError::IsPaused(container.id));
        }
        if due(&container.desired, &container.status).is_some() {
            return Err(EngineError::IsRestarting(container.id));
        }
        if replay && container.spec.log.driver == LogDriver::None {
            return Err(EngineError::LogNotKept);
        }
        let event = crate::containers::event(&container, "attach", &[]);
        self.tell(container.vch, bulkhead_store::Record::at(self.now()).event(event)).await?;
        let last_run = stream.then(|| current_or_next_run(&container));
        let cursor = self.cursor(&container, replay, last_run, stream).await?;
        let wanted = move |of: OutputStream| match of {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr,
        };
        Ok(stream::unfold(cursor, move |mut cursor| async move {
            loop {
                match cursor.next().await {
                    Err(error) => return Some((Err(error), cursor)),
                    Ok(None) => return None,
                    Ok(Some(record)) => {
                        if let Body::Output { stream, data } = record.body
                            && wanted(stream.into())
                        {
                            return Some((Ok(Output { stream: stream.into(), data: data.into() }), cursor));
                        }
                    }
                }
            }
        })
        .boxed())
    }
}
