//! A driver's eyes on the journal: how the process began and ended, and how much of the log is kept.

use super::{Driver, run_of};
use crate::EngineError;
use crate::guest::printable;
use bulkhead_guest_protocol::journal::{Body, Reader, Record};
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_model::lifecycle::{Exit, GuestFact, Status};
use bulkhead_model::{Container, ContainerSpec};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const READ_BYTES: usize = 256 << 10;
/// Reads at a time, before the driver looks at the rest of the world again.
const READS_MAX: usize = 64;
/// A run's end is the last thing in the journal: a driver that starts anew looks at this much of its end.
const TAIL_BYTES: u64 = 1 << 20;
/// An attached reader that takes nothing for this long no longer holds the log.
const PIN_PATIENCE: Duration = Duration::from_secs(30);

/// Attached readers, and how far each has come: the log is not released under them, so they lose nothing; the guest's
/// process waits instead, as it would at a pipe.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<PinTable>);

#[derive(Debug, Default)]
struct PinTable {
    next: u64,
    pins: HashMap<u64, (u64, Instant)>,
}

impl Pins {
    pub(crate) fn add(&self, offset: u64) -> u64 {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.next += 1;
        let key = table.next;
        table.pins.insert(key, (offset, Instant::now()));
        key
    }

    pub(crate) fn advance(&self, key: u64, offset: u64) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pin) = table.pins.get_mut(&key) {
            *pin = (offset, Instant::now());
        }
    }

    pub(crate) fn remove(&self, key: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pins.remove(&key);
    }

    fn lowest(&self) -> Option<u64> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table
            .pins
            .values()
            .filter(|(_, moved)| moved.elapsed() < PIN_PATIENCE)
            .map(|(offset, _)| *offset)
            .min()
    }
}

/// Reads the journal onwards.
#[derive(Debug, Default)]
pub(super) struct Follower {
    reader: Option<Reader>,
    /// First offset still kept.
    start: u64,
    /// When the process of which run started.
    started: Option<(u32, DateTime<Utc>)>,
    /// How far the guest may write, as it was told.
    pub(super) limit: u64,
}

impl Follower {
    pub(super) fn end(&self) -> u64 {
        self.reader.as_ref().map_or(0, Reader::end)
    }

    /// Whether the guest may soon have to stop writing, or was not told yet how far it may.
    fn is_crowded(&self) -> bool {
        let room = self.limit.saturating_sub(self.end());
        self.limit == 0 || room < self.limit.saturating_sub(self.start) / 4
    }
}

pub(crate) fn time_of(unix_ns: u64) -> DateTime<Utc> {
    // A hostile clock must not panic: what does not fit becomes 1970.
    i64::try_from(unix_ns).map(DateTime::from_timestamp_nanos).unwrap_or_default()
}

impl Driver {
    pub(super) async fn read_journal(&mut self, container: &Container) -> Result<(), EngineError> {
        let journals = self.engine.back_end().journals.clone();
        if self.journal.reader.is_none() {
            let extent = journals.extent(&self.id).await?;
            self.journal.start = extent.start;
            let from = extent.end.saturating_sub(TAIL_BYTES).max(extent.start);
            self.journal.reader = Some(Reader::new(from));
        }
        for _ in 0..READS_MAX {
            let Some(reader) = self.journal.reader.as_mut() else { break };
            let chunk = journals.read(&self.id, reader.end(), READ_BYTES).await?;
            if chunk.data.is_empty() {
                break;
            }
            reader.push(chunk.offset, &chunk.data);
            let mut told = Vec::new();
            while let Some((_, record)) = reader.next_record() {
                if !matches!(record.body, Body::Output { .. }) {
                    told.push(record);
                }
            }
            for record in told {
                self.take(record, container);
            }
            self.keep_log_small(container).await?;
        }
        // A reader that was waited for may have moved on, and an agent may just have been greeted.
        let writes = matches!(self.guest, GuestFact::Process { .. });
        if writes && self.link.is_some() && self.journal.is_crowded() {
            self.keep_log_small(container).await?;
        }
        Ok(())
    }

    fn take(&mut self, record: Record, container: &Container) {
        if record.run != run_of(&container.status) {
            return;
        }
        let run = record.run;
        let at = time_of(record.unix_ns);
        match record.body {
            Body::Output { .. } => {}
            Body::Started(_) => {
                self.journal.started = Some((run, at));
                self.guest = GuestFact::Process { run, started_at: at };
            }
            Body::Exited(exited) => {
                let recorded = match &container.status {
                    Status::Running { started_at, .. } => Some(*started_at),
                    Status::Created | Status::Starting { .. } | Status::Exited { .. } => None,
                };
                let seen = self.journal.started.filter(|(of, _)| *of == run).map(|(_, at)| at);
                let error = Some(printable(&exited.error)).filter(|text| !text.is_empty());
                let error = error.or_else(|| memory_advice(exited.oom_killed, exited.code, &container.spec));
                let exit = Exit {
                    code: exited.code,
                    error,
                    oom_killed: exited.oom_killed,
                    started_at: recorded.or(seen).or(Some(at)),
                    finished_at: at,
                };
                self.guest = GuestFact::Exited { run, exit };
            }
            Body::StartFailed(failed) => {
                let exit = start_failed(failed.code, &failed.message, at);
                self.guest = GuestFact::Exited { run, exit };
            }
        }
    }

    /// Gives up the oldest part of the log where it has grown too long, and lets the guest write on.
    async fn keep_log_small(&mut self, container: &Container) -> Result<(), EngineError> {
        let keep = self.log_bytes(container).await?;
        let end = self.journal.end();
        if end - self.journal.start.min(end) > keep + keep / 4 {
            let target = (end - keep).min(self.handle.pins.lowest().unwrap_or(u64::MAX));
            if target > self.journal.start {
                self.engine.back_end().journals.release(&self.id, target).await?;
                self.journal.start = target;
            }
        }
        let limit = self.journal.start + 2 * keep;
        // An agent whose process has not begun gets its limit with the start, and refuses one before.
        if limit > self.journal.limit
            && !self.standing
            && matches!(self.guest, GuestFact::Process { .. })
            && let Some(link) = self.link.as_mut()
        {
            match link.call(RequestBody::JournalLimit { offset: limit }, Duration::from_secs(5)).await {
                Ok(_) => self.journal.limit = limit,
                Err(error) => {
                    tracing::debug!(%error, "the agent did not take a new journal limit");
                    self.link = None;
                    // Greeted again, and told the limit then.
                    if let GuestFact::Process { .. } = self.guest {
                        self.guest = GuestFact::Unknown;
                    }
                }
            }
        }
        Ok(())
    }

    /// Log space of this container, as it asked for and as its VCH is set now.
    pub(super) async fn log_bytes(&self, container: &Container) -> Result<u64, EngineError> {
        let allowed = self.engine.store().vch(self.vch).await?.settings.log_bytes.max(1 << 20);
        Ok(container.spec.log.bytes_kept(allowed))
    }

    pub(super) async fn begin_journal(&mut self) -> Result<u64, EngineError> {
        let extent = self.engine.back_end().journals.extent(&self.id).await?;
        self.journal.start = extent.start;
        self.journal.reader = Some(Reader::new(extent.end));
        Ok(extent.end)
    }
}

/// Whoever was ended for want of memory learns what to ask for.
fn memory_advice(oom_killed: bool, code: i32, spec: &ContainerSpec) -> Option<String> {
    let mib = spec.resources.memory_bytes >> 20;
    (oom_killed && code != 0).then(|| {
        let more = 2 * mib;
        format!("out of memory: the container may take {mib} MiB; give it more with -m (--memory), such as -m {more}m")
    })
}

pub(super) fn start_failed(code: i32, message: &str, at: DateTime<Utc>) -> Exit {
    Exit { code, error: Some(printable(message)), oom_killed: false, started_at: None, finished_at: at }
}
