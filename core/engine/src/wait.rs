//! Waiting for a container's end.

use crate::driver::{Seen, run_of};
use crate::{Engine, EngineError, Session};
use bulkhead_model::Action;
use bulkhead_model::lifecycle::{Exit, Status, awaits_run};
use tokio::sync::watch;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// That it does not run: at once if it does not.
    NotRunning,
    /// The end of the run that is on, or else of the next.
    NextExit,
    /// That it is no more.
    Removed,
}

/// A wait that has begun: nothing that happens from now on is missed.
#[derive(Debug)]
pub struct Waiting {
    seen: watch::Receiver<Seen>,
    until: Until,
}

#[derive(Debug)]
enum Until {
    Already(Exit),
    Run(u32),
    Gone,
}

impl Engine {
    pub async fn wait(&self, session: &Session, text: &str, what: WaitFor) -> Result<Waiting, EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerWait, text).await?;
        let seen = self.drive(&container).seen();
        let run = run_of(&container.status);
        let pending = awaits_run(&container.desired, &container.status);
        let until = match (what, &container.status) {
            (WaitFor::Removed, _) => Until::Gone,
            (WaitFor::NotRunning, Status::Exited { exit, .. }) if !pending => Until::Already(exit.clone()),
            (WaitFor::NotRunning, Status::Created) if !pending => {
                Until::Already(nothing(&container.created_at))
            }
            (_, Status::Starting { run } | Status::Running { run, .. }) => Until::Run(*run),
            (_, Status::Created | Status::Exited { .. }) => Until::Run(run + 1),
        };
        Ok(Waiting { seen, until })
    }
}

fn nothing(at: &chrono::DateTime<chrono::Utc>) -> Exit {
    Exit { code: 0, error: None, oom_killed: false, started_at: None, finished_at: *at }
}

impl Waiting {
    /// How it ended.
    pub async fn done(mut self) -> Result<Exit, EngineError> {
        let run = match self.until {
            Until::Already(exit) => return Ok(exit),
            Until::Run(run) => Some(run),
            Until::Gone => None,
        };
        let seen = self
            .seen
            .wait_for(|seen| {
                let over = |run: u32| seen.last_exit.as_ref().is_some_and(|(of, _)| *of >= run);
                seen.gone || run.is_some_and(over)
            })
            .await
            .map_err(|_| EngineError::Stopping)?;
        let created = || seen.container.as_ref().map(|container| nothing(&container.created_at));
        seen.last_exit.as_ref().map(|(_, exit)| exit.clone()).or_else(created).ok_or(EngineError::Stopping)
    }
}
