//! What goes on in a container: its processes, and what it takes. The facts are the guest's own words: they say
//! something about this container only, and are bounded before anybody makes texts of them.

use crate::containers::event;
use crate::driver::Bench;
use crate::guest::{Agent, GuestError, printable};
use crate::input::broken;
use crate::{Engine, EngineError, Session};
use bulkhead_guest_protocol::message::{ReplyBody, RequestBody};
use bulkhead_guest_protocol::watch::{FIGURES_MAX, PROCESSES_MAX, Processes, Usage};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::{Action, Container};
use bulkhead_store::Record;
use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, timeout};

/// An agent looks through its processes; under emulation that takes its time.
const DEADLINE: Duration = Duration::from_secs(20);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What a container takes at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub at: DateTime<Utc>,
    pub usage: Usage,
}

/// One of a row of samples.
#[derive(Debug, Clone)]
pub struct Stats {
    pub container: Arc<Container>,
    /// `None`: it does not run.
    pub now: Option<Sample>,
    /// The one before, of the same run.
    pub before: Option<Sample>,
}

struct Watcher {
    engine: Engine,
    container: Container,
    last: Option<(u32, Sample)>,
    ticks: tokio::time::Interval,
    over: bool,
}

impl Engine {
    /// The processes of a container that runs.
    pub async fn processes(&self, session: &Session, text: &str) -> Result<Processes, EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerTop, text).await?;
        let (agent, _awake) = self.awake(&container).await?;
        let mut processes = match agent.call(RequestBody::Processes, DEADLINE).await {
            Ok(ReplyBody::Processes(processes)) => *processes,
            other => return Err(unexpected(&container, other)),
        };
        processes.list.truncate(PROCESSES_MAX);
        for process in &mut processes.list {
            // Texts of the guest's: no terminal is to obey them.
            process.name = printable(&process.name);
            let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            process.command = process.command.chars().map(visible).collect();
        }
        let record = Record::at(self.now()).event(event(&container, "top", &[]));
        self.store().tell(container.vch, &record).await?;
        self.0.feed.wake();
        Ok(processes)
    }

    /// The agent of a container that runs or stands still, and what keeps it there.
    pub(crate) async fn awake(&self, container: &Container) -> Result<(Agent, Option<Bench>), EngineError> {
        if !container.desired.paused {
            return Ok((self.agent(container).await?, None));
        }
        let bench = timeout(DEADLINE, self.drive(container).workbench()).await;
        let bench = bench.unwrap_or(Err(EngineError::TimedOut(DEADLINE.as_secs())))?;
        Ok((bench.agent.clone(), Some(bench)))
    }

    /// What a container takes, each second from now on, until it is gone. The first sample comes at once.
    pub async fn stats(
        &self,
        session: &Session,
        text: &str,
    ) -> Result<BoxStream<'static, Result<Stats, EngineError>>, EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerStats, text).await?;
        let mut ticks = tokio::time::interval_at(Instant::now(), SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watcher = Watcher { engine: self.clone(), container, last: None, ticks, over: false };
        Ok(stream::unfold(watcher, |mut watcher| async move {
            let item = watcher.next().await.transpose()?;
            Some((item, watcher))
        })
        .boxed())
    }
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<Stats>, EngineError> {
        if self.over {
            return Ok(None);
        }
        self.ticks.tick().await;
        match self.sample().await {
            Err(EngineError::NoSuchContainer(_)) => Ok(None),
            other => {
                self.over = other.is_err();
                other.map(Some)
            }
        }
    }

    async fn sample(&mut self) -> Result<Stats, EngineError> {
        self.container = self.engine.find(self.container.vch, self.container.id.as_str()).await?;
        let before = self.last.take();
        if let Status::Running { run, .. } = self.container.status {
            let before = before.filter(|(of, _)| *of == run).map(|(_, sample)| sample);
            let usage = match &before {
                // One that stands still takes what it took.
                Some(before) if self.container.desired.paused => Some(before.usage.clone()),
                Some(_) | None => self.usage().await?,
            };
            if let Some(usage) = usage {
                let now = Sample { at: self.engine.now(), usage };
                self.last = Some((run, now.clone()));
                return Ok(Stats { container: Arc::new(self.container.clone()), now: Some(now), before });
            }
        }
        Ok(Stats { container: Arc::new(self.container.clone()), now: None, before: None })
    }

    /// `None`: it ended, or was paused, or another server has it, while it was asked.
    async fn usage(&self) -> Result<Option<Usage>, EngineError> {
        let (agent, _awake) = match self.engine.awake(&self.container).await {
            Ok(awake) => awake,
            Err(EngineError::Stopping) => return Err(EngineError::Stopping),
            Err(_) => return Ok(None),
        };
        match agent.call(RequestBody::Usage, DEADLINE).await {
            Ok(ReplyBody::Usage(mut usage)) => {
                usage.memory.truncate(FIGURES_MAX);
                for (name, _) in &mut usage.memory {
                    *name = printable(name);
                }
                usage.devices.truncate(FIGURES_MAX);
                usage.interfaces.truncate(FIGURES_MAX);
                for interface in &mut usage.interfaces {
                    interface.name = printable(&interface.name);
                }
                Ok(Some(*usage))
            }
            Err(error @ (GuestError::Closed | GuestError::Silent(_) | GuestError::Refused(_))) => {
                tracing::debug!(%error, "no figures of a container");
                Ok(None)
            }
            other => Err(unexpected(&self.container, other)),
        }
    }
}

fn unexpected(container: &Container, reply: Result<ReplyBody, GuestError>) -> EngineError {
    match reply {
        Err(GuestError::Refused(_)) => EngineError::NotRunning(container.id.clone()),
        Err(error) => broken(&container.id, &error),
        Ok(other) => {
            let what = format!("an answer to another question: {}", printable(&format!("{other:?}")));
            broken(&container.id, &GuestError::Protocol(what))
        }
    }
}
