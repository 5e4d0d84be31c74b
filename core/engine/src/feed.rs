//! Events as a stream: read from the store by number, woken by whoever wrote some. A reader that falls behind reads
//! on where it was; it never misses an event and never holds a writer up.

use crate::{Engine, EngineError, Session};
use bulkhead_model::{Action, Event, VchId};
use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use tokio::sync::watch;

/// Events that are read from the store at a time.
const BATCH: i64 = 256;

/// Which events: both ends included; without `until` the stream goes on.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventQuery {
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
}

/// Wakes readers of events.
#[derive(Debug)]
pub(crate) struct Feed(watch::Sender<u64>);

impl Feed {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// To be called after a transaction with events was committed.
    pub(crate) fn wake(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}

struct Reader {
    engine: Engine,
    vch: VchId,
    seq: i64,
    until: Option<DateTime<Utc>>,
    ready: VecDeque<Event>,
    woken: watch::Receiver<u64>,
}

impl Engine {
    pub async fn events(
        &self,
        session: &Session,
        query: EventQuery,
    ) -> Result<BoxStream<'static, Result<Event, EngineError>>, EngineError> {
        self.authorize(session, Action::SystemEvents).await?;
        if let (Some(since), Some(until)) = (query.since, query.until)
            && since > until
        {
            let why = "`since` is later than `until`".to_owned();
            return Err(EngineError::Invalid { what: "time range", value: since.to_rfc3339(), why });
        }
        // Subscribed before the backlog is read: what is written meanwhile wakes us, and numbers keep order.
        let woken = self.0.feed.0.subscribe();
        let last = self.store().last_event_seq(session.vch).await?;
        let seq = match query.since {
            None => last,
            Some(since) => {
                let backlog =
                    self.store().events_between(session.vch, since, DateTime::<Utc>::MAX_UTC, 1).await?;
                backlog.first().map_or(last, |first| first.seq - 1)
            }
        };
        let reader = Reader {
            engine: self.clone(),
            vch: session.vch,
            seq,
            until: query.until,
            ready: VecDeque::new(),
            woken,
        };
        Ok(stream::unfold(reader, |mut reader| async move {
            let item = reader.next().await.transpose()?;
            Some((item, reader))
        })
        .boxed())
    }
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Event>, EngineError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.seq = event.seq;
                if self.until.is_some_and(|until| event.at > until) {
                    return Ok(None);
                }
                return Ok(Some(event));
            }
            self.woken.mark_unchanged();
            self.ready = self.engine.store().events(self.vch, self.seq, BATCH).await?.into();
            if !self.ready.is_empty() {
                continue;
            }
            let left = self.until.map(|until| (until - self.engine.now()).to_std().unwrap_or_default());
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let left = left.unwrap_or(std::time::Duration::from_secs(3600));
            tokio::select! {
                _ = self.woken.changed() => {}
                () = tokio::time::sleep(left) => {}
                () = self.engine.0.stop.cancelled() => return Ok(None),
            }
        }
    }
}
