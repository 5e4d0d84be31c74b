//! A container's files: out as archives, in from archives, and what it changed. All of it happens in its guest; a
//! container that does not run gets its machine without its process for it, one that is paused with its processes frozen.

use crate::containers::event;
use crate::driver::Bench;
use crate::guest::{GuestStream, StreamEvent, printable};
use crate::input::broken;
use crate::{Engine, EngineError, Session};
use bulkhead_guest_protocol::files::{Change, FileTask, PathStat, decode_item};
use bulkhead_guest_protocol::journal::Stream;
use bulkhead_image::archive::{self, CommitOptions};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::{Action, Container, ContainerId, Digest, Reference};
use bulkhead_store::{Record, StoreError};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

pub use bulkhead_guest_protocol::files::{ChangeKind, Failed as FileFault};

const BEGIN_DEADLINE: Duration = Duration::from_secs(30);
/// For a machine to boot, and what is before it in its driver's hands.
const BENCH_DEADLINE: Duration = Duration::from_secs(240);
/// For a container that is starting to run, or not to.
const SETTLE_DEADLINE: Duration = Duration::from_secs(240);
/// A container may change its state while it is looked at; each try loses only to that.
const TRIES: u32 = 8;
const WHY_BYTES_MAX: usize = 4096;
const READ_BYTES: usize = 64 << 10;
/// More changes than anybody reads.
const CHANGES_MAX: usize = 1 << 20;
/// Of an archive that was refused, this much is taken all the same, so that its sender hears why.
const REST_BYTES_MAX: usize = 64 << 20;
const REST_DEADLINE: Duration = Duration::from_secs(10);

/// What a guest says, as it comes; an error is its last.
pub type Pieces = BoxStream<'static, Result<Bytes, EngineError>>;

/// How an archive is to be unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveIn {
    /// The folder.
    pub path: String,
    /// A folder and something else never replace each other.
    pub keep_kinds: bool,
    /// All belongs to the container's user; else to whom the archive says.
    pub own: bool,
}

/// A path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    pub kind: ChangeKind,
    pub path: String,
}

/// How a container becomes an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitAsk {
    pub reference: Option<Reference>,
    pub comment: String,
    pub author: String,
    /// Its processes stand still meanwhile.
    pub pause: bool,
    /// Dockerfile instructions that set something in the config.
    pub changes: Vec<String>,
}

/// A task in a guest, and what keeps that guest there.
struct Task {
    id: ContainerId,
    stream: GuestStream,
    why: String,
    _bench: Option<Bench>,
}

impl Task {
    /// The next piece; `None`: it is done.
    async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        loop {
            match self.stream.next().await {
                Some(StreamEvent::Output { of: Stream::Stdout, data }) => return Ok(Some(data)),
                Some(StreamEvent::Output { of: Stream::Stderr, data }) => {
                    if self.why.len() < WHY_BYTES_MAX {
                        self.why.push_str(&String::from_utf8_lossy(&data));
                    }
                }
                Some(StreamEvent::Ended(exited)) if exited.code == 0 => return Ok(None),
                Some(StreamEvent::Ended(exited)) => {
                    let message = match self.why.as_str() {
                        "" => format!("the task in the guest ended with code {}", exited.code),
                        why => printable(why),
                    };
                    return Err(EngineError::Files { why: FileFault::of(exited.code), message });
                }
                None => {
                    return Err(EngineError::Conflict(format!(
                        "container {} changed its state meanwhile, try again",
                        self.id.short()
                    )));
                }
            }
        }
    }

    /// What is told first, and the bytes after it.
    async fn first<T: serde::de::DeserializeOwned>(&mut self) -> Result<(T, Bytes), EngineError> {
        let mut bytes = BytesMut::new();
        loop {
            if let Some((item, length)) =
                decode_item(&bytes).map_err(|error| self.wrong(&error.to_string()))?
            {
                return Ok((item, bytes.split_off(length).freeze()));
            }
            match self.next().await? {
                Some(piece) => bytes.extend_from_slice(&piece),
                None => return Err(self.wrong("an answer ends too early")),
            }
        }
    }

    fn wrong(&self, why: &str) -> EngineError {
        bulkhead_machine::MachineError::Channel { id: self.id.clone(), why: why.into() }.into()
    }

    fn pieces(self, first: Bytes) -> Pieces {
        let first = stream::iter((!first.is_empty()).then_some(Ok(first)));
        let rest =
            stream::try_unfold(
                self,
                |mut task| async move { Ok(task.next().await?.map(|piece| (piece, task))) },
            );
        first.chain(rest).boxed()
    }

    /// Hands the archive over, until it ends or nobody takes it.
    async fn feed(mut self, archive: &mut (impl AsyncRead + Send + Unpin)) -> Result<(), EngineError> {
        let input = self.stream.input();
        let unread = |error: std::io::Error| EngineError::Files {
            why: FileFault::BadArchive,
            message: format!("the archive did not arrive: {error}"),
        };
        let (mut buffer, mut fed) = (vec![0; READ_BYTES], false);
        let feeding = async {
            loop {
                let length = archive.read(&mut buffer).await.map_err(unread)?;
                let sent = match buffer.get(..length) {
                    Some(piece) if length > 0 => input.write(piece, &mut 0).await,
                    _ => return input.end().await.map_err(|error| broken(&self.id, &error)),
                };
                sent.map_err(|error| broken(&self.id, &error))?;
            }
        };
        tokio::pin!(feeding);
        let id = self.id.clone();
        let (stream, why) = (&mut self.stream, &mut self.why);
        loop {
            tokio::select! {
                done = &mut feeding, if !fed => {
                    done?;
                    fed = true;
                }
                event = stream.next() => match event {
                    Some(StreamEvent::Output { data, .. }) => {
                        if why.len() < WHY_BYTES_MAX {
                            why.push_str(&String::from_utf8_lossy(&data));
                        }
                    }
                    Some(StreamEvent::Ended(exited)) if exited.code == 0 => return Ok(()),
                    Some(StreamEvent::Ended(exited)) => {
                        return Err(EngineError::Files { why: FileFault::of(exited.code), message: printable(why) });
                    }
                    None => {
                        return Err(EngineError::Conflict(format!(
                            "container {} changed its state meanwhile, try again",
                            id.short()
                        )));
                    }
                },
            }
        }
    }
}

impl Engine {
    /// What is at a path.
    pub async fn file_stat(
        &self,
        session: &Session,
        text: &str,
        path: &str,
    ) -> Result<PathStat, EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerArchiveRead, text).await?;
        let mut task = self.task(container, FileTask::Stat { path: path.to_owned() }).await?;
        let (stat, _) = task.first().await.map_err(|error| named(error, path, text))?;
        Ok(stat)
    }

    /// What is at a path, and all of it as a tar archive.
    pub async fn file_read(
        &self,
        session: &Session,
        text: &str,
        path: &str,
    ) -> Result<(PathStat, Pieces), EngineError> {
        let (_, container, admitted) =
            self.admit_container(session, Action::ContainerArchiveRead, text).await?;
        let record =
            Record::at(self.now()).audit(admitted.audit).event(event(&container, "archive-path", &[]));
        let vch = container.vch;
        let mut task = self.task(container, FileTask::Read { path: path.to_owned() }).await?;
        let (stat, rest) = task.first().await.map_err(|error| named(error, path, text))?;
        self.tell(vch, record).await?;
        Ok((stat, task.pieces(rest)))
    }

    /// Unpacks an archive into a folder.
    pub async fn file_write(
        &self,
        session: &Session,
        text: &str,
        asked: ArchiveIn,
        mut archive: impl AsyncRead + Send + Unpin,
    ) -> Result<(), EngineError> {
        let (_, container, admitted) =
            self.admit_container(session, Action::ContainerArchiveWrite, text).await?;
        let record =
            Record::at(self.now()).audit(admitted.audit).event(event(&container, "extract-to-dir", &[]));
        let (vch, spec) = (container.vch, &container.spec);
        let write = FileTask::Write {
            path: asked.path.clone(),
            keep_kinds: asked.keep_kinds,
            owner: (asked.own && !spec.user.is_empty()).then(|| spec.user.clone()),
            read_only: spec.process.read_only,
        };
        let done = match self.task(container, write).await {
            Ok(task) => task.feed(&mut archive).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            let rest = async {
                tokio::io::copy(&mut archive.take(REST_BYTES_MAX as u64), &mut tokio::io::sink()).await
            };
            // Its sender may have left.
            let _ = tokio::time::timeout(REST_DEADLINE, rest).await;
            return Err(named(error, &asked.path, text));
        }
        self.tell(vch, record).await
    }

    /// The whole root as a tar archive.
    pub async fn export(&self, session: &Session, text: &str) -> Result<Pieces, EngineError> {
        let (_, container, admitted) = self.admit_container(session, Action::ContainerExport, text).await?;
        let record = Record::at(self.now()).audit(admitted.audit).event(event(&container, "export", &[]));
        let vch = container.vch;
        let task = self.task(container, FileTask::Export).await?;
        self.tell(vch, record).await?;
        Ok(task.pieces(Bytes::new()))
    }

    /// What differs from the image, parents first.
    pub async fn file_changes(&self, session: &Session, text: &str) -> Result<Vec<FileChange>, EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerDiff, text).await?;
        let mounts = mounts(&container);
        let mut task = self.task(container, FileTask::Changes { mounts }).await?;
        let (mut changes, mut bytes) = (Vec::new(), BytesMut::new());
        while let Some(piece) = task.next().await? {
            bytes.extend_from_slice(&piece);
            let item =
                |bytes: &[u8]| decode_item::<Change>(bytes).map_err(|error| task.wrong(&error.to_string()));
            while let Some((change, length)) = item(&bytes)? {
                let path = String::from_utf8_lossy(&change.path).into_owned();
                changes.push(FileChange { kind: change.kind, path });
                drop(bytes.split_to(length));
            }
            if changes.len() > CHANGES_MAX {
                return Err(task.wrong(&format!("more than {CHANGES_MAX} paths differ from the image")));
            }
        }
        Ok(changes)
    }

    /// Makes an image of what a container is now. It has no origin, as its files come from inside.
    pub async fn commit(&self, session: &Session, text: &str, ask: CommitAsk) -> Result<Digest, EngineError> {
        let (vch, container, admitted) = self.admit_container(session, Action::ContainerCommit, text).await?;
        let base = self.store().image(vch.id, &container.image).await?;
        let options = CommitOptions {
            container: container.id.to_string(),
            base: base.id,
            base_config_json: base.config_json,
            base_layers: base.layers,
            config: config_of(&container),
            created: self.now(),
            created_by: container.spec.cmd.join(" "),
            comment: ask.comment.clone(),
            author: ask.author,
            changes: ask.changes,
            work_dir: self.0.settings.work_dir.clone(),
        };
        options.check()?;
        let layer = FileTask::Layer { mounts: mounts(&container), freeze: ask.pause };
        let pieces = self.task(container.clone(), layer).await?.pieces(Bytes::new());
        let reader = StreamReader::new(pieces.map(|piece| piece.map_err(std::io::Error::other)));
        let layers = self.layers_of(vch.id);
        let image = archive::commit(reader, &options, &layers, &self.0.converter).await?;
        let reference = ask.reference.map(Reference::or_latest);
        let (id, shown) =
            (image.id.to_string(), reference.as_ref().map(Reference::familiar).unwrap_or_default());
        let special = [("comment", ask.comment.as_str()), ("imageID", &id), ("imageRef", &shown)];
        let record =
            Record::at(self.now()).audit(admitted.audit).event(event(&container, "commit", &special));
        self.keep(vch.id, &image, reference.as_ref(), "create", record).await?;
        Ok(image.id)
    }

    /// Begins a task where the container's files are now.
    async fn task(&self, mut container: Container, task: FileTask) -> Result<Task, EngineError> {
        let mut last = None;
        for _ in 0..TRIES {
            let handle = self.drive(&container);
            let (agent, bench) = match container.status {
                Status::Running { .. } if !container.desired.paused => (self.agent(&container).await, None),
                Status::Starting { .. } => {
                    let mut seen = handle.seen();
                    let settled = seen.wait_for(|seen| {
                        let status = seen.container.as_ref().map(|container| &container.status);
                        seen.gone || !matches!(status, Some(Status::Starting { .. }))
                    });
                    let settled = tokio::time::timeout(SETTLE_DEADLINE, settled).await;
                    settled
                        .map_err(|_| EngineError::TimedOut(SETTLE_DEADLINE.as_secs()))?
                        .map_err(|_| EngineError::Stopping)?;
                    container = self.find(container.vch, container.id.as_str()).await?;
                    continue;
                }
                Status::Running { .. } | Status::Created | Status::Exited { .. } => {
                    let bench = tokio::time::timeout(BENCH_DEADLINE, handle.workbench()).await;
                    match bench.unwrap_or(Err(EngineError::TimedOut(BENCH_DEADLINE.as_secs()))) {
                        Ok(bench) => (Ok(bench.agent.clone()), Some(bench)),
                        Err(error) => (Err(error), None),
                    }
                }
            };
            let error = match agent {
                Ok(agent) => match agent.files(task.clone(), BEGIN_DEADLINE).await {
                    Ok(stream) => {
                        let id = container.id;
                        return Ok(Task { id, stream, why: String::new(), _bench: bench });
                    }
                    Err(error) => broken(&container.id, &error),
                },
                Err(error @ (EngineError::Conflict(_) | EngineError::NotRunning(_))) => error,
                Err(EngineError::Store(StoreError::NotFound { .. })) => {
                    return Err(EngineError::NoSuchContainer(container.id.to_string()));
                }
                Err(error) => return Err(error),
            };
            // It may just have begun or ended; if not, the next answer is the same.
            let before = container.status.clone();
            container = self.find(container.vch, container.id.as_str()).await?;
            let same = container.status == before;
            if same && !matches!(error, EngineError::Conflict(_)) {
                return Err(error);
            }
            last = Some(error);
        }
        Err(last.unwrap_or(EngineError::Stopping))
    }
}

/// What the container has otherwise than its image's config may say.
fn config_of(container: &Container) -> Map<String, Value> {
    let spec = &container.spec;
    let mut config = Map::from_iter(
        [
            ("Entrypoint", json!(spec.entrypoint)),
            ("Cmd", json!(spec.cmd)),
            ("Env", json!(spec.env)),
            ("Labels", json!(spec.labels)),
            ("User", json!(spec.user)),
            ("WorkingDir", json!(spec.working_dir)),
            ("Shell", if container.ask.shell.is_empty() { Value::Null } else { json!(container.ask.shell) }),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if let Some(signal) = &container.ask.stop_signal {
        config.insert("StopSignal".into(), json!(signal));
    }
    config
}

/// What is mounted in it beside what every container has.
fn mounts(container: &Container) -> Vec<String> {
    let tmpfs = container.spec.process.tmpfs.iter().map(|tmpfs| &tmpfs.target);
    tmpfs.chain(container.spec.mounts.iter().map(|mount| &mount.target)).cloned().collect()
}

/// A path that is not there is told in the words of whoever asked.
fn named(error: EngineError, path: &str, container: &str) -> EngineError {
    match error {
        EngineError::Files { why: FileFault::NotFound, .. } => {
            EngineError::NoSuchFile { path: path.to_owned(), container: container.to_owned() }
        }
        error => error,
    }
}
