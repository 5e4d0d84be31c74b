//! A user who wants a whole life of a container and, whatever went wrong, looks where it stands and carries on.

use crate::world::{World, ask, counted, text, until, whole_log, within};
use bulkhead_engine::{Engine, EngineError, Session};
use bulkhead_machine::Journals as _;
use bulkhead_machine::sim::Sim;
use bulkhead_model::lifecycle::{Exit, Goal, Status};
use bulkhead_model::{Container, ContainerId};
use bulkhead_store::{Store, StoreError};
use futures_util::TryStreamExt as _;

/// Header of a journal record, and what `start` and a line add to it.
const STARTED_BYTES: u64 = 36 + 1;
const LINE_BYTES: u64 = 36 + 7;
const LINES: u64 = 5;

/// What is done with the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Run, stopped, removed.
    Stopped,
    /// Run, and removed while it runs.
    Forced,
    /// Run to its end, run again, removed.
    Twice,
}

#[derive(Clone)]
pub struct User {
    life: Life,
    engine: Engine,
    session: Session,
    store: Store,
    sim: Sim,
    id: ContainerId,
}

impl Life {
    fn script(self) -> String {
        match self {
            Life::Stopped | Life::Forced => format!("count {LINES} ; sleep"),
            Life::Twice => format!("count {LINES} ; exit 7"),
        }
    }

    /// What is told of it in the end. How often a signal was sent depends on what happened in between.
    fn story(self) -> &'static [&'static str] {
        match self {
            Life::Stopped => &["create", "start", "die", "stop", "destroy"],
            Life::Forced => &["create", "start", "die", "destroy"],
            Life::Twice => &["create", "start", "die", "start", "die", "destroy"],
        }
    }
}

impl User {
    /// Makes the container, and nothing else yet.
    pub async fn new(world: &World, life: Life) -> Self {
        let id = world.create_as(None, ask(&life.script())).await.unwrap().id;
        Self {
            life,
            engine: world.engine.clone(),
            session: world.session.clone(),
            store: world.store.clone(),
            sim: world.sim.clone(),
            id,
        }
    }

    /// The same user at the server as it is now.
    pub fn at(&self, world: &World) -> Self {
        Self { engine: world.engine.clone(), ..self.clone() }
    }

    /// Goes on from wherever the container stands, until it is gone. The first error ends it.
    pub async fn carry_on(&self) -> Result<(), EngineError> {
        while let Some(container) = self.settled().await {
            match (&container.status, self.life) {
                (Status::Created, _) => self.start().await?,
                (Status::Exited { exit, .. }, _) if exit.started_at.is_none() => self.start().await?,
                (Status::Running { .. }, Life::Stopped) => {
                    let printed = STARTED_BYTES + LINES * LINE_BYTES;
                    until("the lines", || async { self.sim.extent(&self.id).await.unwrap().end >= printed })
                        .await;
                    assert_eq!(self.sim.running(), std::slice::from_ref(&self.id));
                    within("stop", self.engine.stop(&self.session, self.id.as_str(), None, None)).await?;
                }
                (Status::Running { .. }, Life::Forced) => self.remove().await?,
                (Status::Exited { exit, .. }, Life::Forced) => panic!("ended by itself: {exit:?}"),
                (Status::Exited { exit, .. }, Life::Stopped) => {
                    self.check(exit, 143, 1).await?;
                    self.remove().await?;
                }
                (Status::Exited { run, exit }, Life::Twice) => {
                    // Runs that never began, for a fault, count as well.
                    let runs = self.runs().await?;
                    self.check(exit, 7, runs).await?;
                    assert!(runs <= u64::from(*run));
                    if runs < 2 { self.start().await? } else { self.remove().await? }
                }
                (Status::Starting { .. } | Status::Running { .. }, _) => {
                    panic!("not settled: {:?}", container.status)
                }
            }
        }
        Ok(())
    }

    /// The container once what was asked for has come true; `None` if that is to be gone. Nothing is asked for here.
    async fn settled(&self) -> Option<Container> {
        until("what is desired comes true", || async {
            let container = self.look().await;
            container.is_none_or(|container| self.is_settled(&container))
        })
        .await;
        self.look().await
    }

    async fn look(&self) -> Option<Container> {
        match self.store.container(self.session.vch, &self.id).await {
            Ok(container) => Some(container),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn is_settled(&self, container: &Container) -> bool {
        let wanted = container.desired.run;
        match (&container.desired.goal, &container.status) {
            (Goal::Gone, _) => false,
            (Goal::Rest | Goal::Stop { .. }, Status::Created | Status::Exited { .. }) => true,
            (Goal::Run, Status::Running { run, .. }) => *run == wanted && self.life != Life::Twice,
            (Goal::Run, Status::Exited { run, .. }) => *run == wanted,
            (_, Status::Created | Status::Starting { .. } | Status::Running { .. }) => false,
        }
    }

    async fn start(&self) -> Result<(), EngineError> {
        within("start", self.engine.start_container(&self.session, self.id.as_str())).await.map(drop)
    }

    async fn remove(&self) -> Result<(), EngineError> {
        within("remove", self.engine.remove(&self.session, self.id.as_str(), self.life == Life::Forced, true))
            .await
    }

    async fn log(&self) -> Result<Vec<String>, EngineError> {
        let stream = self.engine.logs(&self.session, self.id.as_str(), whole_log()).await?.lines;
        Ok(within("log", stream.try_concat()).await?.iter().map(text).collect())
    }

    /// Runs whose lines are in the log.
    async fn runs(&self) -> Result<u64, EngineError> {
        Ok(self.log().await?.len() as u64 / LINES)
    }

    async fn check(&self, exit: &Exit, code: i32, runs: u64) -> Result<(), EngineError> {
        assert_eq!((exit.code, exit.error.as_deref(), exit.oom_killed), (code, None, false));
        let expect: Vec<_> = (0..runs).flat_map(|_| counted(LINES)).collect();
        assert_eq!(self.log().await?, expect, "lines were lost or doubled");
        Ok(())
    }

    /// Whether all is told, and nothing is left, once it is gone.
    pub async fn check_the_end(&self, world: &World) {
        let story: Vec<_> =
            world.story(&self.id).await.into_iter().filter(|action| action != "kill").collect();
        assert_eq!(story, self.life.story());
        assert!(world.nothing_left(), "left: {:?}", world.sim.leftovers());
    }
}
