//! The container's process, and those beside it. The first is born in namespaces of its own and completes its root from
//! inside; the others join it there. Each becomes its user and then the program that was asked for.
//!
//! A socket that closes on exec carries the reason if it does not get there.

use crate::cgroup::Groups;
use crate::failure::{Doing, Failure};
use crate::lookup::{self, Candidate};
use crate::report::{self, Report};
use crate::stdio::{self, Ours, Theirs};
use crate::{caps, init, rootfs, seccomp, sys, user};
use bulkhead_guest_protocol::message::{Interior, Limit, Process, Stdio};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const NOFILE: u8 = 7;
const NPROC: u8 = 6;
/// Linux' usual ceiling, and what Docker gives.
const OPEN_FILES_MAX: libc::rlim_t = 1 << 20;
/// Of the image's passwd and group files, which are not to be trusted.
const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;

/// A process that runs, and the agent's side of its input and output.
#[derive(Debug)]
pub struct Spawned {
    pub pid: libc::pid_t,
    pub stdio: Ours,
}

/// Where a process is born.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In new namespaces, with a root to be completed.
    First(&'a Interior),
    /// In the namespaces of this one.
    Beside(libc::pid_t),
}

/// What a process-to-be brings along.
struct Plan<'a> {
    process: &'a Process,
    place: Place<'a>,
    groups: &'a Groups,
    theirs: Theirs,
    report: Report,
}

/// Returns when the program runs, or says why it does not.
pub fn spawn(process: &Process, stdio: Stdio, place: Place<'_>, groups: &Groups) -> Result<Spawned, Failure> {
    let (ours, theirs) = stdio::make(stdio)?;
    let (listener, report) = report::pair()?;
    let flags = match place {
        Place::First(_) => libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC,
        Place::Beside(_) => 0,
    };
    let plan = Plan { process, place, groups, theirs, report };
    let Some(pid) = sys::clone(flags).doing("make a process")? else {
        drop(listener);
        plan.report.failure(&plan.become_process());
        sys::exit_now(1);
    };
    drop(plan);
    let mut born = listener.hear()?;
    let stdio = ours.complete(&mut born, stdio.stdin)?;
    Ok(Spawned { pid: born.pid.unwrap_or(pid), stdio })
}

impl Plan<'_> {
    /// In the child: does not return if all goes well.
    fn become_process(&self) -> Failure {
        match self.prepare() {
            Ok((program, env)) => {
                let error = sys::exec(Path::new(&program), &self.process.args, &env);
                lookup::refused(&program, &error)
            }
            Err(failure) => failure,
        }
    }

    /// The order matters: what needs the agent's view, what needs root, and what the container's user may see.
    fn prepare(&self) -> Result<(std::path::PathBuf, Vec<String>), Failure> {
        let process = self.process;
        sys::umask(0);
        fs::write("/proc/self/oom_score_adj", process.oom_score_adj.to_string())
            .doing("be a process like others")?;
        for mut entrance in &self.groups.entrances {
            entrance.write_all(b"0").doing("enter the container's group")?;
        }
        let mut parent = None;
        match self.place {
            Place::First(interior) => {
                parent = interior.init.then(init::open).transpose()?;
                rootfs::enter(interior)?;
            }
            Place::Beside(first) => self.join(first)?,
        }
        sys::new_session().doing("make a session")?;
        stdio::place(&self.theirs, &self.report, matches!(self.place, Place::First(_)))?;
        set_limits(&process.limits)?;
        sys::umask(0o022);
        let groups = accounts("/etc/group")?;
        let mut identity = user::resolve(&process.user, &accounts("/etc/passwd")?, &groups)?;
        user::add_groups(&mut identity, &process.groups, &groups)?;
        rootfs::enter_working_dir(&process.working_dir, matches!(self.place, Place::First(_)))?;
        if let Place::First(interior) = self.place {
            rootfs::seal(interior)?;
        }
        restrict(process)?;
        stdio::give_to(identity.uid);
        sys::set_user(identity.uid, identity.gid, &identity.groups).doing("become the user")?;
        let mut env = process.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", identity.home));
        }
        let name = process.args.first().ok_or_else(|| Failure::internal("no command specified"))?;
        let program = lookup::find(name, &env, look)?;
        if let Some(parent) = parent {
            init::become_parent(&parent, &process.args)?;
        }
        sys::default_signals().doing("reset the signals")?;
        Ok((program, env))
    }

    /// Into the namespaces of the first process. A process changes its own process namespace only for its children: this
    /// one makes a brother, tells its number as the agent sees it, and ends. clone(2), CLONE_PARENT
    fn join(&self, first: libc::pid_t) -> Result<(), Failure> {
        let open = |name: &str| File::open(format!("/proc/{first}/ns/{name}")).doing("find the container");
        let kinds = [
            (open("ipc")?, libc::CLONE_NEWIPC),
            (open("cgroup")?, libc::CLONE_NEWCGROUP),
            (open("pid")?, libc::CLONE_NEWPID),
            (open("mnt")?, libc::CLONE_NEWNS),
        ];
        for (namespace, kind) in &kinds {
            sys::enter_namespace(namespace, *kind).doing("enter the container")?;
        }
        if let Some(pid) = sys::clone(libc::CLONE_PARENT).doing("make a process")? {
            self.report.pid(pid)?;
            sys::exit_now(0);
        }
        Ok(())
    }
}

/// Docker's limits, and those that were asked for.
fn set_limits(limits: &[Limit]) -> Result<(), Failure> {
    let limit = |resource: u8, value| Limit { resource, soft: value, hard: value };
    let ours = [limit(NOFILE, OPEN_FILES_MAX), limit(NPROC, libc::RLIM_INFINITY)];
    for Limit { resource, soft, hard } in ours.iter().chain(limits) {
        sys::set_limit((*resource).into(), *soft, *hard)
            .doing(format!("set limit {resource} to {soft}:{hard}"))?;
    }
    Ok(())
}

/// The filter is put in place while that needs no further right, and lets through all that still follows.
fn restrict(process: &Process) -> Result<(), Failure> {
    caps::restrict(process.capabilities)?;
    if process.no_new_privileges {
        sys::forbid_new_privileges().doing("forbid new privileges")?;
    }
    if process.filtered {
        seccomp::restrict(process.capabilities)?;
    }
    Ok(())
}

/// Missing files are empty. A pipe in their place must not stop us, nor a file without end.
pub fn accounts(path: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .and_then(|file| file.take(ACCOUNTS_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).doing(format!("read {path}")),
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn look(path: &Path) -> Candidate {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Candidate::Denied(error),
        Err(error) => Candidate::Missing(error),
        Ok(found) if found.is_dir() => Candidate::Folder,
        Ok(_) => match sys::may_execute(path) {
            Ok(()) => Candidate::Program,
            Err(error) => Candidate::Denied(error),
        },
    }
}
