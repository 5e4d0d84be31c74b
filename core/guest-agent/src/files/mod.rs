//! Work on a container's files (see [`bulkhead_guest_protocol::files`]).
//!
//! Each task is a child of the agent that stays the agent's program, in a root where everything that a hostile tree may
//! lead it to belongs to the container:
//!
//! ```text
//!   Stat, Read, Write   the container's mounts, where its process runs; else its root and volumes as they are on disk
//!   Export              its root as it is on its disks
//!   Changes, Layer      /upper, /lower and /root, and nothing else
//! ```
//!
//! It may use so much memory and no more, and goes first should memory run out.

mod archive;
mod folder;
pub mod path;
mod unpack;
mod upper;

use crate::disks::{self, ROOT};
use crate::failure::{Failure, reason};
use crate::process::Spawned;
use crate::stdio::{self, Theirs};
use crate::{cgroup, rootfs, sys};
use bulkhead_guest_protocol::files::{Failed, FileTask};
use bulkhead_guest_protocol::message::Stdio;
use bulkhead_guest_protocol::volumes::VolumeMount;
use std::fs::{self, File};
use std::io::{self, BufWriter, Stdin, Stdout, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// More than a tar header, a path and the list of folders whose times are set last ever take.
const MEMORY_BYTES_MAX: libc::rlim_t = 256 << 20;
const OPEN_FILES_MAX: libc::rlim_t = 8192;
const BUFFER_BYTES: usize = 64 << 10;
/// Root of the tasks that look at the disks.
const STAGE: &str = "/stage";

/// Why a task failed.
#[derive(Debug)]
pub struct Wrong {
    pub why: Failed,
    pub message: String,
}

impl Wrong {
    pub fn new(why: Failed, message: impl Into<String>) -> Self {
        Self { why, message: message.into() }
    }
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self::new(Failed::Other, failure.message)
    }
}

/// Says what was being done, and to which path.
pub trait At<T> {
    fn at(self, doing: &str, path: &Path) -> Result<T, Wrong>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &str, path: &Path) -> Result<T, Wrong> {
        self.map_err(|error| {
            Wrong::new(kind_of(&error), format!("{doing} {}: {}", path.display(), reason(&error)))
        })
    }
}

fn kind_of(error: &io::Error) -> Failed {
    match error.raw_os_error() {
        Some(libc::EROFS) => Failed::ReadOnly,
        _ => Failed::Other,
    }
}

/// Output that cannot be said any more: nobody listens.
fn said(result: io::Result<()>) -> Result<(), Wrong> {
    result.map_err(|error| Wrong::new(Failed::Other, format!("write the answer: {}", reason(&error))))
}

/// What a task finds.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The container's process, if one runs.
    pub first: Option<libc::pid_t>,
    pub layer_count: u32,
    pub volumes: &'a [VolumeMount],
}

/// Begins a task.
pub fn spawn(task: &FileTask, scene: Scene<'_>) -> Result<Spawned, Failure> {
    let (ours, theirs) = stdio::make(Stdio { stdin: task.reads_input(), terminal: None })?;
    let pid = match sys::clone(0) {
        Ok(Some(pid)) => pid,
        Ok(None) => sys::exit_now(child(task, scene, &theirs)),
        Err(error) => return Err(Failure::internal(format!("make a process: {}", reason(&error)))),
    };
    Ok(Spawned { pid, stdio: ours })
}

/// Gives the exit code.
fn child(task: &FileTask, scene: Scene<'_>, theirs: &Theirs) -> i32 {
    let done = settle(theirs)
        .map_err(|error| Wrong::new(Failed::Other, format!("prepare: {}", reason(&error))))
        .and_then(|()| enter(task, scene))
        .and_then(|()| work(task));
    match done {
        Ok(()) => 0,
        Err(wrong) => {
            let _ = io::stderr().write_all(wrong.message.as_bytes());
            wrong.why.code()
        }
    }
}

/// What is open here belongs to others, who would wait for its end.
fn settle(theirs: &Theirs) -> io::Result<()> {
    if let Theirs::Pipes { stdin, stdout, stderr } = theirs {
        let null = File::open("/dev/null")?;
        let input = stdin.as_ref().map_or(null.as_fd(), AsFd::as_fd);
        for (end, number) in [(input, 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)] {
            sys::replace_fd(end, number)?;
        }
    }
    sys::close_from(3)?;
    sys::umask(0);
    fs::write("/proc/self/oom_score_adj", "1000")?;
    // One for each folder on the way down.
    sys::set_limit(libc::RLIMIT_NOFILE, OPEN_FILES_MAX, OPEN_FILES_MAX)?;
    sys::set_limit(libc::RLIMIT_AS, MEMORY_BYTES_MAX, MEMORY_BYTES_MAX)
}

fn enter(task: &FileTask, scene: Scene<'_>) -> Result<(), Wrong> {
    match (task, scene.first) {
        (FileTask::Stat { .. } | FileTask::Read { .. } | FileTask::Write { .. }, Some(pid)) => {
            let path = format!("/proc/{pid}/ns/mnt");
            File::open(&path)
                .and_then(|namespace| sys::enter_namespace(&namespace, libc::CLONE_NEWNS))
                .at("enter", Path::new(&path))
        }
        (FileTask::Changes { .. } | FileTask::Layer { .. }, _) => {
            if let (FileTask::Layer { freeze: true, .. }, Some(_)) = (task, scene.first) {
                cgroup::await_frozen();
            }
            disks::stage(Path::new(STAGE), scene.layer_count)?;
            change_root(STAGE)
        }
        (FileTask::Export, _) => change_root(ROOT),
        (FileTask::Stat { .. } | FileTask::Read { .. } | FileTask::Write { .. }, None) => {
            Ok(rootfs::enter_files(scene.volumes)?)
        }
    }
}

fn change_root(root: &str) -> Result<(), Wrong> {
    std::os::unix::fs::chroot(root).and_then(|()| std::env::set_current_dir("/")).at("enter", Path::new(root))
}

fn work(task: &FileTask) -> Result<(), Wrong> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, stdout());
    match task {
        FileTask::Stat { path } => path::say(&path::locate(path)?, &mut out)?,
        FileTask::Read { path } => {
            let located = path::locate(path)?;
            path::say(&located, &mut out)?;
            folder::archive(&located.target, located.name().as_bytes(), &mut out)?;
        }
        FileTask::Write { path, keep_kinds, owner, read_only } => {
            unpack::unpack(path, *keep_kinds, owner.as_deref(), *read_only, stdin())?;
        }
        FileTask::Export => folder::archive(Path::new("/"), b"", &mut out)?,
        FileTask::Changes { mounts } => upper::changes(mounts, &mut out)?,
        FileTask::Layer { mounts, .. } => upper::layer(mounts, &mut out)?,
    }
    said(out.flush())
}

fn stdin() -> Stdin {
    io::stdin()
}

fn stdout() -> Stdout {
    io::stdout()
}
