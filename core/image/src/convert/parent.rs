//! The parent's side: starts the child, feeds it, checks what passes by and what it answers.

use super::{Answer, DISK_FD, JOB_VARIABLE, Job, Task};
use crate::compression::Compression;
use crate::error::ImageError;
use crate::layer::Written;
use crate::limits::LayerLimits;
use bulkhead_model::Digest;
use bulkhead_sandbox::Bounds;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

const CHUNK_BYTES: usize = 256 << 10;
/// A child's answer is one line.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// How much of a refused blob is still read to learn whether its digest was wrong.
const DRAIN_BYTES_MAX: u64 = 16 << 20;

/// Children at a time, on hosts with few and with many CPUs; a registry minds more connections than that.
const PARALLEL_MIN: usize = 3;
const PARALLEL_MAX: usize = 8;

/// Beyond what the files may have: blocks, directories and the recipe.
const DISK_SLACK_BYTES: u64 = 8 << 30;

/// How the child is started.
#[derive(Debug, Clone)]
pub struct ConverterConfig {
    /// The program itself, and what makes it call [`super::child_main`].
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// The child's whole environment beside its job.
    pub environment: Vec<(OsString, OsString)>,
    /// Whom the child becomes, where this process is root.
    pub uid: u32,
    pub gid: u32,
    pub limits: LayerLimits,
    /// For one layer, download included.
    pub deadline: Duration,
    /// Children at a time, over all pulls. Those that restore have as many places of their own.
    pub parallel: usize,
}

impl ConverterConfig {
    /// With `nobody`, the default limits, an hour, and as many at a time as there are CPUs, but three at least: while one
    /// computes, others wait for the registry.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            program,
            arguments,
            environment: Vec::new(),
            uid: 65534,
            gid: 65534,
            limits: LayerLimits::default(),
            deadline: Duration::from_secs(3600),
            parallel: cpus.clamp(PARALLEL_MIN, PARALLEL_MAX),
        }
    }
}

/// Starts children, a few at a time. Cheap to clone; all clones share the slots.
#[derive(Debug, Clone)]
pub struct Converter {
    config: Arc<ConverterConfig>,
    slots: Arc<Semaphore>,
    /// A restoring child waits for whoever reads from it; that must not keep others from pulling.
    restore_slots: Arc<Semaphore>,
}

/// What a manifest says of a compressed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    pub digest: Digest,
    pub bytes: u64,
}

/// What a layer must turn out to be. What is `None` is not checked, as it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConvertSpec {
    pub compression: Option<Compression>,
    pub blob: Option<Blob>,
    pub diff_id: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertedLayer {
    pub diff_id: Digest,
    /// Of the uncompressed archive.
    pub archive_bytes: u64,
    /// Of the files in it.
    pub size_bytes: u64,
    pub disk_bytes: u64,
    pub entries: u64,
}

/// A reader as the stream of pieces that [`Converter::convert`] takes.
pub fn chunks(reader: impl AsyncRead + Send) -> impl Stream<Item = Result<Bytes, ImageError>> + Send {
    tokio_util::io::ReaderStream::with_capacity(reader, CHUNK_BYTES)
        .map(|chunk| chunk.map_err(ImageError::io("reading the archive")))
}

impl Converter {
    pub fn new(config: ConverterConfig) -> Self {
        let slots = || Arc::new(Semaphore::new(config.parallel.max(1)));
        let (slots, restore_slots) = (slots(), slots());
        Self { config: Arc::new(config), slots, restore_slots }
    }

    pub fn limits(&self) -> &LayerLimits {
        &self.config.limits
    }

    /// Layers that can be converted at a time.
    pub fn parallel(&self) -> usize {
        self.config.parallel.max(1)
    }

    /// Turns a compressed archive into a disk in `output`, an empty file. The file is worth nothing unless this succeeds.
    /// `passed` is told the bytes that have gone through. Dropping the future kills the child.
    pub async fn convert(
        &self,
        spec: &ConvertSpec,
        input: impl Stream<Item = Result<Bytes, ImageError>> + Send,
        output: File,
        passed: impl FnMut(u64) + Send,
    ) -> Result<ConvertedLayer, ImageError> {
        let task = Task::Convert { compression: spec.compression };
        let answer = self.within("converting a layer", async {
            let _slot = self.slots.acquire().await;
            let mut child = self.start(task, output, Stdio::piped())?;
            self.feed(&mut child, spec.blob.as_ref(), input, passed).await
        });
        match answer.await? {
            Answer::Converted(written) => check(written, spec),
            other => Err(unexpected(&other)),
        }
    }

    /// Decompresses a stream into an empty file; its length. A bare archive passes unchanged.
    pub async fn inflate(
        &self,
        input: impl Stream<Item = Result<Bytes, ImageError>> + Send,
        output: File,
    ) -> Result<u64, ImageError> {
        let answer = self.within("reading an archive", async {
            let _slot = self.slots.acquire().await;
            let mut child = self.start(Task::Inflate, output, Stdio::piped())?;
            self.feed(&mut child, None, input, |_| {}).await
        });
        match answer.await? {
            Answer::Inflated(bytes) => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes the archive that a layer disk was made of; its digest, which the caller knows what it must be.
    pub async fn restore(
        &self,
        disk: File,
        mut out: impl AsyncWrite + Unpin + Send,
    ) -> Result<Digest, ImageError> {
        self.within("restoring a layer", async {
            let _slot = self.restore_slots.acquire().await;
            let (reading, writing) = std::io::pipe().map_err(ImageError::io("making a pipe"))?;
            let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(reading.into())
                .map_err(ImageError::io("making a pipe"))?;
            let mut child =
                self.start(Task::Restore, disk, Stdio::from(std::os::fd::OwnedFd::from(writing)))?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let got = pipe.read(&mut buffer).await.map_err(ImageError::io("reading a layer back"))?;
                let part = buffer.get(..got).unwrap_or_default();
                if part.is_empty() {
                    break;
                }
                hash.update(part);
                out.write_all(part).await.map_err(ImageError::io("writing an archive"))?;
            }
            match answer(&mut child).await? {
                Answer::Restored => Ok(Digest::sha256(hash.finalize().into())),
                other => Err(unexpected(&other)),
            }
        })
        .await
    }

    async fn within<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, ImageError>>,
    ) -> Result<T, ImageError> {
        let deadline = self.config.deadline;
        tokio::time::timeout(deadline, work)
            .await
            .unwrap_or_else(|_| Err(ImageError::Deadline { what: what.into(), seconds: deadline.as_secs() }))
    }

    fn start(&self, task: Task, disk: File, archive: Stdio) -> Result<Child, ImageError> {
        let config = &self.config;
        let job = Job {
            task,
            limits: config.limits.clone(),
            bounds: Bounds {
                last_descriptor: DISK_FD,
                uid: config.uid,
                gid: config.gid,
                memory_bytes: config.limits.memory_bytes,
                cpu_seconds: config.limits.cpu_seconds,
                file_bytes: config.limits.uncompressed_bytes.saturating_add(DISK_SLACK_BYTES),
                deadline_seconds: u32::try_from(config.deadline.as_secs().max(1)).unwrap_or(u32::MAX),
            },
        };
        let job =
            serde_json::to_string(&job).map_err(|error| ImageError::invalid("a job", error.to_string()))?;
        let mut command = Command::new(&config.program);
        command
            .args(&config.arguments)
            .env_clear()
            .envs(config.environment.iter().cloned())
            .env(JOB_VARIABLE, job)
            .current_dir("/")
            .stdin(archive)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let fd = disk.as_raw_fd();
        // SAFETY: only `dup2` and `fcntl` are called between fork and exec, both async-signal-safe; `disk` lives until
        // after the start.
        #[expect(unsafe_code, reason = "handing in a descriptor under a fixed number has no safe API")]
        unsafe {
            command.pre_exec(move || {
                // `dup2` onto itself would leave close-on-exec set.
                let result =
                    if fd == DISK_FD { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, DISK_FD) };
                if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let child =
            command.spawn().map_err(ImageError::io(format!("starting `{}`", config.program.display())));
        drop(disk);
        child
    }

    /// Sends the stream through, then waits for the answer. A wrong digest is told before whatever else went wrong.
    async fn feed(
        &self,
        child: &mut Child,
        blob: Option<&Blob>,
        input: impl Stream<Item = Result<Bytes, ImageError>> + Send,
        mut passed: impl FnMut(u64) + Send,
    ) -> Result<Answer, ImageError> {
        let mut input = std::pin::pin!(input);
        let mut pipe = child.stdin.take();
        let mut hash = Sha256::new();
        let mut total = 0;
        let mut after_refusal = 0;
        let mut complete = true;
        while let Some(chunk) = input.next().await {
            let chunk = chunk?;
            total += chunk.len() as u64;
            if let Some(blob) = blob
                && total > blob.bytes
            {
                return Err(ImageError::Size { what: "a layer".into(), expected: blob.bytes, found: total });
            }
            if blob.is_some() {
                hash.update(&chunk);
            }
            if let Some(open) = &mut pipe {
                // The child has seen enough: its answer says why.
                if open.write_all(&chunk).await.is_err() {
                    pipe = None;
                }
            }
            if pipe.is_none() {
                after_refusal += chunk.len() as u64;
                if blob.is_none() || after_refusal > DRAIN_BYTES_MAX {
                    complete = false;
                    break;
                }
            }
            passed(total);
        }
        if let Some(blob) = blob
            && complete
        {
            if total != blob.bytes {
                return Err(ImageError::Size { what: "a layer".into(), expected: blob.bytes, found: total });
            }
            let found = Digest::sha256(hash.finalize().into());
            if found != blob.digest {
                return Err(ImageError::Digest {
                    what: "a layer".into(),
                    expected: blob.digest.clone(),
                    found,
                });
            }
        }
        drop(pipe);
        answer(child).await
    }
}

/// Reads the child's answer and its end.
async fn answer(child: &mut Child) -> Result<Answer, ImageError> {
    let mut told = String::new();
    let mut complaint = String::new();
    if let Some(stdout) = child.stdout.take() {
        // Text that is no UTF-8 is no answer.
        let _ = stdout.take(ANSWER_BYTES_MAX).read_to_string(&mut told).await;
    }
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(ANSWER_BYTES_MAX).read_to_string(&mut complaint).await;
    }
    let status = child.wait().await.map_err(ImageError::io("waiting for a layer's conversion"))?;
    let answer = told.lines().rev().find_map(|line| serde_json::from_str::<Answer>(line).ok());
    match answer {
        Some(Answer::Failed(error)) => Err(error.into()),
        Some(answer) => Ok(answer),
        None => Err(ended_without_answer(status, &complaint)),
    }
}

fn ended_without_answer(status: ExitStatus, complaint: &str) -> ImageError {
    let limit = |limit: &str| ImageError::Limit { what: "a layer's conversion".into(), limit: limit.into() };
    match status.signal() {
        Some(libc::SIGXCPU) => limit("processor time"),
        Some(libc::SIGALRM) => limit("time"),
        Some(libc::SIGXFSZ) => limit("disk size"),
        Some(libc::SIGABRT) if complaint.contains("memory allocation") => limit("memory"),
        _ => {
            let complaint: String = complaint.trim().chars().take(500).collect();
            let why = format!("its process ended with {status} and without an answer: {complaint}");
            ImageError::Io { doing: "converting a layer".into(), source: std::io::Error::other(why) }
        }
    }
}

fn unexpected(answer: &Answer) -> ImageError {
    let why = format!("unexpected answer {answer:?}");
    ImageError::Io { doing: "converting a layer".into(), source: std::io::Error::other(why) }
}

fn check(written: Written, spec: &ConvertSpec) -> Result<ConvertedLayer, ImageError> {
    let found = Digest::sha256(written.sha256);
    if let Some(expected) = &spec.diff_id
        && *expected != found
    {
        let what = "a layer's uncompressed archive".into();
        return Err(ImageError::Digest { what, expected: expected.clone(), found });
    }
    Ok(ConvertedLayer {
        diff_id: found,
        archive_bytes: written.archive_bytes,
        size_bytes: written.size_bytes,
        disk_bytes: written.disk_bytes,
        entries: written.entries,
    })
}
