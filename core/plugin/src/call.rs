//! One call of a plugin: a fresh instance, its limits, and how it ended.

use crate::engine::TICK;
use crate::placement::Candidates;
use bulkhead_model::plugin::Failure;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::{ResourceLimiter, Store, Trap};

/// Lines of the log that a call may write; later ones are dropped.
const LINES_MAX: usize = 100;
const LINE_BYTES_MAX: usize = 1 << 10;
/// A line costs the plugin as much fuel, and one for each byte: without that, a loop of host calls would cost next to
/// nothing.
const LINE_FUEL: u64 = 1000;

/// What one call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For all of it, in time that passes.
    pub deadline: Duration,
    /// Instructions, roughly.
    pub fuel: u64,
    pub memory_bytes: usize,
    /// What it answers, and what it gives to the engine at a time.
    pub copied_bytes: usize,
}

impl Default for Limits {
    /// 30 ms, and fuel for some 20 ms on a machine of 2024; 32 MiB; 4 MiB.
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(30),
            fuel: 50_000_000,
            memory_bytes: 32 << 20,
            copied_bytes: 4 << 20,
        }
    }
}

/// A line that a plugin wrote to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub level: tracing::Level,
    pub text: String,
}

/// What came of a call.
#[derive(Debug)]
pub struct Called<T> {
    pub result: Result<T, CallError>,
    /// The same call takes the same, wherever and whenever.
    pub fuel: u64,
    pub took: Duration,
    pub lines: Vec<LogLine>,
    /// Of candidates, what it asked for, by name.
    pub columns: Vec<String>,
}

impl<T> Called<T> {
    /// It ended by a mistake of the engine's.
    pub(crate) fn broken(why: String) -> Self {
        let result = Err(CallError::new(Failure::Host, why));
        Self { result, fuel: 0, took: Duration::ZERO, lines: Vec::new(), columns: Vec::new() }
    }

    /// The same call, its answer looked at further.
    pub(crate) fn and_then<U>(self, check: impl FnOnce(T) -> Result<U, CallError>) -> Called<U> {
        let Self { result, fuel, took, lines, columns } = self;
        Called { result: result.and_then(check), fuel, took, lines, columns }
    }
}

/// A call without a usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CallError {
    pub why: Failure,
    pub text: String,
}

impl CallError {
    pub(crate) fn new(why: Failure, text: impl Into<String>) -> Self {
        Self { why, text: clip(&text.into(), 500) }
    }

    pub(crate) fn answer(text: impl Into<String>) -> Self {
        Self::new(Failure::Answer, text)
    }
}

/// What the engine knows of a plugin while it runs.
pub(crate) struct Guest {
    memory_bytes_max: usize,
    wanted_bytes: Option<usize>,
    lines: Vec<LogLine>,
    /// Where it is asked about placement.
    candidates: Option<Arc<dyn Candidates>>,
    /// What it asked for of those.
    columns: BTreeSet<String>,
}

/// A host function takes fuel as the plugin's own instructions do.
pub(crate) fn charge(store: &mut wasmtime::StoreContextMut<'_, Guest>, fuel: u64) -> wasmtime::Result<()> {
    let left = store.get_fuel()?.checked_sub(fuel).ok_or(Trap::OutOfFuel)?;
    store.set_fuel(left)
}

impl Guest {
    pub(crate) fn candidates(&self) -> Option<&Arc<dyn Candidates>> {
        self.candidates.as_ref()
    }

    /// Notes that it asks for a column; `false`: of `most`, it has asked for all.
    pub(crate) fn reads(&mut self, column: &str, most: usize) -> bool {
        let name = clip(column, column.len());
        self.columns.contains(&name) || (self.columns.len() < most && self.columns.insert(name))
    }

    pub(crate) fn write(
        store: &mut wasmtime::StoreContextMut<'_, Guest>,
        level: tracing::Level,
        text: &str,
    ) -> wasmtime::Result<()> {
        let cost = LINE_FUEL.saturating_add(text.len() as u64);
        charge(store, cost)?;
        let lines = &mut store.data_mut().lines;
        if lines.len() < LINES_MAX {
            lines.push(LogLine { level, text: clip(text, LINE_BYTES_MAX) });
        }
        Ok(())
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it may have {0} MiB of memory")]
pub(crate) struct NoMemory(usize);

/// There was no place for an instance, or it could not be made.
#[derive(Debug, thiserror::Error)]
#[error("it could not be started: {0}")]
pub(crate) struct NotStarted(pub(crate) String);

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, _now: usize, wanted: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        if wanted <= self.memory_bytes_max {
            return Ok(true);
        }
        self.wanted_bytes = Some(wanted);
        // Allocators abort when they are told no, which would look like any other mistake.
        Err(NoMemory(self.memory_bytes_max >> 20).into())
    }

    fn table_growing(&mut self, _now: usize, wanted: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        Ok(wanted <= 20_000)
    }
}

/// Runs `work` in a store of its own.
pub(crate) fn call<T>(
    engine: &wasmtime::Engine,
    limits: &Limits,
    candidates: Option<Arc<dyn Candidates>>,
    work: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
) -> Called<T> {
    let started = Instant::now();
    let guest = Guest {
        memory_bytes_max: limits.memory_bytes,
        wanted_bytes: None,
        lines: Vec::new(),
        candidates,
        columns: BTreeSet::new(),
    };
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| guest);
    store.set_hostcall_fuel(limits.copied_bytes);
    let ticks = limits.deadline.as_millis().div_ceil(TICK.as_millis().max(1));
    store.set_epoch_deadline(u64::try_from(ticks).unwrap_or(u64::MAX));
    let fuelled = store.set_fuel(limits.fuel);
    let result = fuelled.and_then(|()| work(&mut store)).map_err(|error| failure(&error, &store, limits));
    let fuel = limits.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
    let guest = store.data_mut();
    let (lines, columns) = (std::mem::take(&mut guest.lines), std::mem::take(&mut guest.columns));
    Called { result, fuel, took: started.elapsed(), lines, columns: columns.into_iter().collect() }
}

fn failure(error: &wasmtime::Error, store: &Store<Guest>, limits: &Limits) -> CallError {
    if store.data().wanted_bytes.is_some() || error.is::<NoMemory>() {
        let text = format!("it wanted more than {} MiB of memory", limits.memory_bytes >> 20);
        return CallError::new(Failure::Memory, text);
    }
    if error.is::<NotStarted>() {
        return CallError::new(Failure::Host, format!("{error:#}"));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            CallError::new(Failure::Fuel, format!("it used up its {} units of fuel", limits.fuel))
        }
        Some(Trap::Interrupt) => CallError::new(
            Failure::Deadline,
            format!("it took longer than {} ms", limits.deadline.as_millis()),
        ),
        Some(trap) => CallError::new(Failure::Trap, trap.to_string()),
        // The one other way in which a call ends: what it answered does not fit, or is no value of its type.
        None => {
            let text = error.root_cause().to_string();
            let why = if text.contains("too much data") { Failure::Size } else { Failure::Answer };
            CallError::new(why, text)
        }
    }
}

/// At most `max` bytes of it, whole characters, nothing that moves a terminal's cursor.
pub fn clip(text: &str, max: usize) -> String {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while clean.len() > max {
        clean.pop();
    }
    clean
}
