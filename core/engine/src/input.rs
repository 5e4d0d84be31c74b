//! Input of processes: what a client types, and the size of its terminal.

use crate::driver::{Handle, Met};
use crate::guest::{GuestError, GuestInput};
use crate::output::current_or_next_run;
use crate::{Engine, EngineError, Session};
use bulkhead_guest_protocol::message::TerminalSize;
use bulkhead_model::lifecycle::Status;
use bulkhead_model::{Action, Container, ContainerId};
use bulkhead_store::Record;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// For a process that is on its way to be sized.
const RESIZE_PATIENCE: Duration = Duration::from_secs(10);

/// Of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

impl From<Size> for TerminalSize {
    fn from(size: Size) -> Self {
        Self { rows: size.rows, columns: size.columns }
    }
}

/// The way to a process's standard input. Dropped, it ends nothing.
#[derive(Debug)]
pub struct Input(Way);

#[derive(Debug)]
enum Way {
    /// The container's own process, once it runs; over new connections to its agent, too.
    Main {
        handle: Arc<Handle>,
        id: ContainerId,
        run: u32,
        stop: CancellationToken,
        now: Option<GuestInput>,
    },
    Beside(GuestInput),
}

impl Input {
    pub(crate) fn beside(input: GuestInput) -> Self {
        Self(Way::Beside(input))
    }

    pub(crate) fn main(engine: &Engine, container: &Container) -> Self {
        Self(Way::Main {
            handle: engine.drive(container),
            id: container.id.clone(),
            run: current_or_next_run(container),
            stop: engine.0.stop.clone(),
            now: None,
        })
    }

    /// Returns when the process, or the window to it, has taken all: whoever waits for this reads no faster than the
    /// process.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`]: the process is over.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), EngineError> {
        let mut left = data;
        loop {
            let input = self.ready().await?;
            let mut sent = 0;
            match input.write(left, &mut sent).await {
                Ok(()) => return Ok(()),
                Err(error) => self.lost(&error)?,
            }
            left = left.get(sent..).unwrap_or_default();
        }
    }

    /// No more will come; a terminal does not mind.
    pub async fn end(&mut self) -> Result<(), EngineError> {
        loop {
            let input = self.ready().await?;
            match input.end().await {
                Ok(()) => return Ok(()),
                Err(error) => self.lost(&error)?,
            }
        }
    }

    async fn ready(&mut self) -> Result<GuestInput, EngineError> {
        match &mut self.0 {
            Way::Beside(input) => Ok(input.clone()),
            Way::Main { now: Some(input), .. } => Ok(input.clone()),
            Way::Main { handle, id, run, stop, now } => {
                let input = agent_of(handle, id, *run, stop).await?.main_input();
                Ok(now.insert(input).clone())
            }
        }
    }

    /// A connection to the agent that broke is made again by the driver; that of a stream is the stream's end.
    fn lost(&mut self, error: &GuestError) -> Result<(), EngineError> {
        match &mut self.0 {
            Way::Main { now, .. } if matches!(error, GuestError::Closed) => {
                *now = None;
                Ok(())
            }
            Way::Main { id, .. } => Err(broken(id, error)),
            Way::Beside(_) => Err(EngineError::InputClosed),
        }
    }
}

pub(crate) fn broken(id: &ContainerId, error: &GuestError) -> EngineError {
    bulkhead_machine::MachineError::Channel { id: id.clone(), why: error.to_string() }.into()
}

/// The agent of a run whose process runs; waits for it, until the run is over.
pub(crate) async fn agent_of(
    handle: &Handle,
    id: &ContainerId,
    run: u32,
    stop: &CancellationToken,
) -> Result<crate::guest::Agent, EngineError> {
    let (mut agents, mut seen) = (handle.agent.clone(), handle.seen());
    loop {
        match &*agents.borrow_and_update() {
            Met::Agent(of, agent) if *of == run && !agent.is_closed() => return Ok(agent.clone()),
            Met::Stranger(why) => return Err(EngineError::Conflict(why.clone())),
            Met::Agent(..) | Met::Nobody => {}
        }
        let over = {
            let seen = seen.borrow_and_update();
            seen.gone || seen.last_exit.as_ref().is_some_and(|(of, _)| *of >= run)
        };
        if over {
            return Err(EngineError::NotRunning(id.clone()));
        }
        let changed = tokio::select! {
            changed = agents.changed() => changed.is_ok(),
            changed = seen.changed() => changed.is_ok(),
            () = stop.cancelled() => false,
        };
        if !changed {
            return Err(EngineError::Stopping);
        }
    }
}

impl Engine {
    /// The agent of a container whose process runs now.
    pub(crate) async fn agent(&self, container: &Container) -> Result<crate::guest::Agent, EngineError> {
        let Status::Running { run, .. } = container.status else {
            return Err(EngineError::NotRunning(container.id.clone()));
        };
        let handle = self.drive(container);
        let agent = agent_of(&handle, &container.id, run, &self.0.stop);
        tokio::time::timeout(RESIZE_PATIENCE, agent)
            .await
            .map_err(|_| EngineError::TimedOut(RESIZE_PATIENCE.as_secs()))?
    }

    /// Input of the container's own process for a client that attaches. `None`: it has none.
    pub async fn input(&self, session: &Session, text: &str) -> Result<Option<Input>, EngineError> {
        let (_, container, admitted) = self.admit_container(session, Action::ContainerAttach, text).await?;
        if !container.spec.stdio.open_stdin {
            return Ok(None);
        }
        let record = Record::at(self.now()).audit(admitted.audit);
        self.store().tell(container.vch, &record).await?;
        Ok(Some(Input::main(self, &container)))
    }

    /// Writes down that a client left a container's terminal by its keys.
    pub async fn detached(&self, session: &Session, text: &str) -> Result<(), EngineError> {
        let container = self.find(session.vch, text).await?;
        let event = crate::containers::event(&container, "detach", &[]);
        self.tell(container.vch, Record::at(self.now()).event(event)).await
    }

    /// The size of a container's terminal.
    pub async fn resize(&self, session: &Session, text: &str, size: Size) -> Result<(), EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerAttach, text).await?;
        let agent = self.agent(&container).await?;
        agent.main_input().resize(size.into()).await.map_err(|error| refused_resize(&container.id, error))?;
        let (rows, columns) = (size.rows.to_string(), size.columns.to_string());
        let special = [("height", rows.as_str()), ("width", columns.as_str())];
        let record = Record::at(self.now()).event(crate::containers::event(&container, "resize", &special));
        self.tell(container.vch, record).await
    }
}

pub(crate) fn refused_resize(id: &ContainerId, error: GuestError) -> EngineError {
    match error {
        GuestError::Refused(why) => EngineError::Conflict(format!("cannot resize the terminal: {why}")),
        other => broken(id, &other),
    }
}
