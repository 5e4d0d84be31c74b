//! Processes beside a container's own, that clients ask for.
//!
//! They live as long as this server's memory and their container: as in dockerd, a restart forgets their ids, while
//! what runs goes on in the guest.

use crate::admission::Ask;
use crate::containers::{as_told, event};
use crate::guest::{GuestInput, GuestStream, StreamEvent};
use crate::input::{Input, Size, broken, refused_resize};
use crate::output::Output;
use crate::{Engine, EngineError, Session};
use bulkhead_guest_protocol::message::{Process, Stdio};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::{Action, Container, ContainerId, VchId};
use bulkhead_plugin as plugin;
use bulkhead_policy::{Subject, Usage};
use bulkhead_store::Record;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream::{BoxStream, StreamExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Of one container, running or not started yet.
const EXECS_MAX: usize = 256;
/// Ended ones are told about for this long.
const KEPT: TimeDelta = TimeDelta::minutes(5);
const START_DEADLINE: Duration = Duration::from_secs(60);
const OUTPUT_WAITING: usize = 4;
/// For a process that is just being started.
const RESIZE_PATIENCE: Duration = Duration::from_secs(10);
/// What a process ends with whose machine ended under it.
pub(crate) const CODE_KILLED: i32 = 137;

/// A process to run beside a container's own. What is not said is as for the container's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecAsk {
    pub cmd: Vec<String>,
    /// Added to the container's.
    pub env: Vec<String>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub privileged: bool,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// As the client wrote them; none: the client's default.
    pub detach_keys: Option<String>,
}

/// How an exec is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecFacts {
    pub id: String,
    pub container: ContainerId,
    pub ask: ExecAsk,
    /// User that it runs as, as it was asked for.
    pub user: String,
    pub running: bool,
    /// Once it is over, or could not be started.
    pub exit_code: Option<i32>,
    /// In the guest, as its agent counts.
    pub pid: u32,
}

/// A process that runs, for the client that started it.
pub struct ExecSession {
    /// Ends with the process.
    pub output: BoxStream<'static, Output>,
    /// `None`: it was asked for without.
    pub input: Option<Input>,
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession").field("input", &self.input).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
enum State {
    Made,
    Starting,
    Running { pid: u32, input: GuestInput },
    Over { code: i32, at: DateTime<Utc> },
}

#[derive(Debug)]
struct Exec {
    id: String,
    vch: VchId,
    container: ContainerId,
    ask: ExecAsk,
    user: String,
    state: watch::Sender<State>,
}

/// All of this server.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<HashMap<String, Arc<Exec>>>);

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ids of a container's execs that are not over, oldest first by nothing in particular.
    pub(crate) fn of(&self, container: &ContainerId) -> Vec<String> {
        let all = self.lock();
        let live = all.values().filter(|exec| exec.container == *container && !exec.is_over());
        live.map(|exec| exec.id.clone()).collect()
    }

    fn add(&self, exec: Exec, now: DateTime<Utc>) -> Result<(), EngineError> {
        let mut all = self.lock();
        all.retain(|_, exec| match &*exec.state.borrow() {
            State::Over { at, .. } => now - *at < KEPT,
            State::Made | State::Starting | State::Running { .. } => true,
        });
        let of_container = all.values().filter(|other| other.container == exec.container).count();
        if of_container >= EXECS_MAX {
            return Err(EngineError::Conflict(format!(
                "container {} has {EXECS_MAX} execs already, wait until some are over",
                exec.container.short()
            )));
        }
        all.insert(exec.id.clone(), Arc::new(exec));
        Ok(())
    }

    /// What was made for a container that is gone.
    pub(crate) fn forget(&self, container: &ContainerId) {
        self.lock().retain(|_, exec| exec.container != *container);
    }
}

impl Exec {
    fn is_over(&self) -> bool {
        matches!(*self.state.borrow(), State::Over { .. })
    }

    fn check_made(&self) -> Result<(), EngineError> {
        let what = match &*self.state.borrow() {
            State::Made => return Ok(()),
            State::Starting | State::Running { .. } => "is already running",
            State::Over { .. } => "has already run",
        };
        Err(EngineError::Conflict(format!("exec {} {what}", self.id)))
    }

    /// It runs once, whoever asks first.
    fn take(&self) -> Result<(), EngineError> {
        let taken = self.state.send_if_modified(|state| {
            let free = matches!(state, State::Made);
            if free {
                *state = State::Starting;
            }
            free
        });
        if taken { Ok(()) } else { self.check_made() }
    }

    fn facts(&self) -> ExecFacts {
        let (running, exit_code, pid) = match &*self.state.borrow() {
            State::Made | State::Starting => (false, None, 0),
            State::Running { pid, .. } => (true, None, *pid),
            State::Over { code, .. } => (false, Some(*code), 0),
        };
        ExecFacts {
            id: self.id.clone(),
            container: self.container.clone(),
            ask: self.ask.clone(),
            user: self.user.clone(),
            running,
            exit_code,
            pid,
        }
    }
}

impl Engine {
    /// Makes one; it does not run yet. Gives its id.
    pub async fn exec_create(
        &self,
        session: &Session,
        text: &str,
        ask: ExecAsk,
    ) -> Result<String, EngineError> {
        let (container, admitted) = self.admit_new_exec(session, text, &ask).await?;
        check_runs(&container)?;
        if ask.cmd.first().is_none_or(String::is_empty) {
            return Err(EngineError::Invalid {
                what: "exec",
                value: String::new(),
                why: "no exec command specified".into(),
            });
        }
        let id = hex::encode(crate::admission::random::<32>()?);
        let user = ask.user.clone().filter(|user| !user.is_empty());
        let exec = Exec {
            id: id.clone(),
            vch: container.vch,
            container: container.id.clone(),
            user: user.unwrap_or_else(|| container.spec.user.clone()),
            state: watch::Sender::new(State::Made),
            ask,
        };
        let action = exec_action("exec_create", &exec.ask.cmd);
        let event = event(&container, &action, &[("execID", &id)]);
        self.0.execs.add(exec, self.now())?;
        self.tell(container.vch, Record::at(self.now()).audit(admitted.audit).event(event)).await?;
        Ok(id)
    }

    /// What was made, if it may be started now.
    pub async fn exec_check(&self, session: &Session, id: &str) -> Result<ExecFacts, EngineError> {
        let exec = self.exec(session, id)?;
        let (_, container, _) = self.admit_exec(session, exec.container.as_str(), &exec.ask).await?;
        check_runs(&container)?;
        exec.check_made()?;
        Ok(exec.facts())
    }

    /// Runs it. Its output is kept for nobody else; a client that leaves leaves the process running.
    pub async fn exec_start(
        &self,
        session: &Session,
        id: &str,
        size: Option<Size>,
    ) -> Result<ExecSession, EngineError> {
        let exec = self.exec(session, id)?;
        let (_, container, _) = self.admit_exec(session, exec.container.as_str(), &exec.ask).await?;
        check_runs(&container)?;
        exec.take()?;
        match self.exec_begin(&container, &exec, size).await {
            Ok(session) => Ok(session),
            Err(error) => {
                let code = match &error {
                    EngineError::StartFailed { code, .. } => *code,
                    _ => CODE_KILLED,
                };
                exec.state.send_replace(State::Over { code, at: self.now() });
                Err(error)
            }
        }
    }

    async fn exec_begin(
        &self,
        container: &Container,
        exec: &Arc<Exec>,
        size: Option<Size>,
    ) -> Result<ExecSession, EngineError> {
        let agent = self.agent(container).await?;
        let action = exec_action("exec_start", &exec.ask.cmd);
        let event = event(container, &action, &[("execID", &exec.id)]);
        self.tell(container.vch, Record::at(self.now()).event(event)).await?;
        let terminal = exec.ask.tty.then(|| size.map(Into::into).unwrap_or_default());
        let stdio = Stdio { stdin: exec.ask.stdin, terminal };
        let begun = agent.exec(process_of(container, &exec.ask), stdio, START_DEADLINE).await;
        let (pid, stream) = match begun.map_err(|error| broken(&container.id, &error))? {
            Ok(begun) => begun,
            Err((code, message)) => return Err(EngineError::StartFailed { code, message }),
        };
        let input = stream.input();
        exec.state.send_replace(State::Running { pid, input: input.clone() });
        let (client, output) = mpsc::channel(OUTPUT_WAITING);
        self.0.tasks.spawn(carry(self.clone(), container.clone(), exec.clone(), stream, client));
        Ok(ExecSession {
            output: ReceiverStream::new(output).boxed(),
            input: exec.ask.stdin.then(|| Input::beside(input)),
        })
    }

    /// Writes down that a client left its terminal by its keys.
    pub async fn exec_detached(&self, session: &Session, id: &str) -> Result<(), EngineError> {
        let exec = self.exec(session, id)?;
        let container = self.find(session.vch, exec.container.as_str()).await?;
        let event = event(&container, "exec_detach", &[("execID", &exec.id)]);
        self.tell(container.vch, Record::at(self.now()).event(event)).await
    }

    pub async fn exec_facts(&self, session: &Session, id: &str) -> Result<ExecFacts, EngineError> {
        let exec = self.exec(session, id)?;
        // What was made for a container is told to whoever may look at it.
        self.admit_container(session, Action::ContainerInspect, exec.container.as_str()).await?;
        Ok(exec.facts())
    }

    /// Ids of a container's execs that are not over.
    pub fn execs_of(&self, container: &ContainerId) -> Vec<String> {
        self.0.execs.of(container)
    }

    /// The size of its terminal; waits for a process that is being started.
    pub async fn exec_resize(&self, session: &Session, id: &str, size: Size) -> Result<(), EngineError> {
        let exec = self.exec(session, id)?;
        self.admit_exec(session, exec.container.as_str(), &exec.ask).await?;
        let mut state = exec.state.subscribe();
        let begun = state.wait_for(|state| matches!(state, State::Running { .. } | State::Over { .. }));
        let input = match tokio::time::timeout(RESIZE_PATIENCE, begun).await {
            Err(_) => return Err(EngineError::TimedOut(RESIZE_PATIENCE.as_secs())),
            Ok(Err(_)) => return Err(EngineError::Stopping),
            Ok(Ok(state)) => match &*state {
                State::Running { input, .. } => input.clone(),
                State::Made | State::Starting | State::Over { .. } => {
                    return Err(EngineError::Conflict(format!("exec {id} is not running")));
                }
            },
        };
        input.resize(size.into()).await.map_err(|error| refused_resize(&exec.container, error))
    }

    fn exec(&self, session: &Session, id: &str) -> Result<Arc<Exec>, EngineError> {
        let found = self.0.execs.lock().get(id).filter(|exec| exec.vch == session.vch).cloned();
        found.ok_or_else(|| EngineError::NoSuchExec(id.chars().take(80).collect()))
    }

    /// Plugins are asked once, when it is made; policies whenever somebody uses it.
    async fn admit_new_exec(
        &self,
        session: &Session,
        text: &str,
        ask: &ExecAsk,
    ) -> Result<(Container, crate::admission::Admitted), EngineError> {
        let vch = self.vch_of(session).await?;
        let container = self.find(session.vch, text).await?;
        let mut as_made = container.clone();
        as_made.spec.privileged |= ask.privileged;
        let image = self.image_of(&container).await?;
        let (facts, told) = as_told(&as_made, image.as_ref());
        let subject = plugin::Subject::ContainerExec {
            container: told,
            command: &ask.cmd,
            user: ask.user.as_deref().unwrap_or_default(),
            privileged: ask.privileged,
            tty: ask.tty,
        };
        let ask = Ask {
            action: Action::ContainerExec,
            caller: &session.caller,
            endpoint: Some(&vch),
            subject: Subject::Container { vch: &vch, container: facts },
            usage_after: Usage::default(),
        };
        let admitted = self.admit_with_plugins(ask, &vch, subject).await?;
        Ok((container, admitted))
    }

    async fn admit_exec(
        &self,
        session: &Session,
        text: &str,
        ask: &ExecAsk,
    ) -> Result<(bulkhead_model::Vch, Container, crate::admission::Admitted), EngineError> {
        // A process with all privileges is judged as a container with them is.
        self.admit_container_as(session, Action::ContainerExec, text, |spec| {
            spec.privileged |= ask.privileged;
        })
        .await
    }

    /// Writes down what changes nothing, and wakes who listens.
    pub(crate) async fn tell(&self, vch: VchId, record: Record) -> Result<(), EngineError> {
        self.store().tell(vch, &record).await?;
        self.0.feed.wake();
        Ok(())
    }
}

/// Of an event: with the command, and a space behind it where it has no arguments, as dockerd writes it.
pub(crate) fn exec_action(name: &str, cmd: &[String]) -> String {
    let (program, args) = cmd.split_first().map_or(("", &[][..]), |(program, args)| (program.as_str(), args));
    format!("{name}: {program} {}", args.join(" "))
}

fn check_runs(container: &Container) -> Result<(), EngineError> {
    match container.status {
        _ if container.desired.paused => Err(EngineError::IsPaused(container.id.clone())),
        Status::Running { .. } => Ok(()),
        Status::Created | Status::Starting { .. } | Status::Exited { .. } => {
            Err(EngineError::NotRunning(container.id.clone()))
        }
    }
}

/// As the container's own, but for what was asked otherwise.
pub(crate) fn process_of(container: &Container, ask: &ExecAsk) -> Process {
    let mut spec = container.spec.clone();
    spec.privileged |= ask.privileged;
    spec.entrypoint = Vec::new();
    spec.cmd.clone_from(&ask.cmd);
    spec.stdio.tty = ask.tty;
    if let Some(user) = ask.user.clone().filter(|user| !user.is_empty()) {
        spec.user = user;
    }
    if let Some(folder) = ask.working_dir.clone().filter(|folder| !folder.is_empty()) {
        spec.working_dir = folder;
    }
    for entry in &ask.env {
        let name = entry.split('=').next().unwrap_or_default();
        spec.env.retain(|old| old.split('=').next() != Some(name));
        spec.env.push(entry.clone());
    }
    crate::driver::process(&spec)
}

/// Output to the client, while there is one, and the process's end to whoever asks.
async fn carry(
    engine: Engine,
    container: Container,
    exec: Arc<Exec>,
    mut stream: GuestStream,
    client: mpsc::Sender<Output>,
) {
    let mut client = Some(client);
    let stop = engine.0.stop.clone();
    let code = loop {
        let gone = async {
            match &client {
                Some(client) => client.closed().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            event = stream.next() => event,
            () = gone => {
                client = None;
                stream.leave().await;
                continue;
            }
            () = stop.cancelled() => return,
        };
        match event {
            Some(StreamEvent::Output { of, data }) => {
                let Some(listener) = &client else { continue };
                let sent = tokio::select! {
                    sent = listener.send(Output { stream: of.into(), data }) => sent.is_ok(),
                    () = stop.cancelled() => return,
                };
                if !sent {
                    client = None;
                    stream.leave().await;
                }
            }
            Some(StreamEvent::Ended(exited)) => break exited.code,
            // The machine is gone, or this server's connection to it.
            None => break CODE_KILLED,
        }
    };
    exec.state.send_replace(State::Over { code, at: engine.now() });
    // Its end is known before its output ends: a client asks for the code at once.
    let text = code.to_string();
    let special = [("execID", exec.id.as_str()), ("exitCode", text.as_str())];
    let record = Record::at(engine.now()).event(event(&container, "exec_die", &special));
    if let Err(error) = engine.tell(container.vch, record).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the end of an exec was not recorded");
    }
    drop(client);
}
