//! The container's process: born in namespaces of its own, it completes its root from inside, becomes its user and then
//! the program that was asked for.
//!
//! A pipe that closes on exec carries the reason if it does not get there.

use crate::cgroup::Entrances;
use crate::failure::{Doing, Failure};
use crate::lookup::{self, Candidate};
use crate::{caps, rootfs, sys, user};
use bulkhead_guest_protocol::message::Process;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Linux' usual ceiling, and what Docker gives.
const OPEN_FILES_MAX: libc::rlim_t = 1 << 20;
/// Of the image's passwd and group files, which are not to be trusted.
const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;
/// So that a process goes on writing while output is gathered.
const PIPE_BYTES: libc::c_int = 256 * 1024;
const REPORT_BYTES_MAX: u64 = 4096;

/// A process that runs, and the ends of its output to read from; they do not block.
#[derive(Debug)]
pub struct Spawned {
    pub pid: libc::pid_t,
    pub stdout: File,
    pub stderr: File,
}

/// Returns when the program runs, or says why it does not.
pub fn spawn(process: &Process, entrances: &Entrances) -> Result<Spawned, Failure> {
    let (stdout, stdout_end) = sys::pipe().doing("make a pipe")?;
    let (stderr, stderr_end) = sys::pipe().doing("make a pipe")?;
    let (report, report_end) = sys::pipe().doing("make a pipe")?;
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
    let Some(pid) = sys::clone(namespaces).doing("make a process")? else {
        let failure = become_process(process, entrances, &stdout_end, &stderr_end);
        let text = format!("{} {}", failure.code, failure.message);
        // If not even this can be written, the agent sees an end without a reason.
        let _ = File::from(report_end).write_all(text.as_bytes());
        sys::exit_now(1);
    };
    drop((stdout_end, stderr_end, report_end));
    let mut text = String::new();
    File::from(report).take(REPORT_BYTES_MAX).read_to_string(&mut text).doing("hear from the process")?;
    if let Some((code, message)) = text.split_once(' ') {
        return Err(match code.parse() {
            Ok(code) => Failure::new(code, message),
            Err(_) => Failure::internal(text),
        });
    }
    for end in [&stdout, &stderr] {
        sys::set_nonblocking(end)
            .and_then(|()| sys::set_pipe_size(end, PIPE_BYTES))
            .doing("prepare a pipe")?;
    }
    Ok(Spawned { pid, stdout: stdout.into(), stderr: stderr.into() })
}

/// In the child: does not return if all goes well.
fn become_process(process: &Process, entrances: &Entrances, stdout: &OwnedFd, stderr: &OwnedFd) -> Failure {
    match prepare(process, entrances, stdout, stderr) {
        Ok((program, env)) => {
            let error = sys::exec(Path::new(&program), &process.args, &env);
            lookup::refused(&program, &error)
        }
        Err(failure) => failure,
    }
}

/// The order matters: what needs the agent's view, what needs root, and what the container's user may see.
fn prepare(
    process: &Process,
    entrances: &Entrances,
    stdout: &OwnedFd,
    stderr: &OwnedFd,
) -> Result<(std::path::PathBuf, Vec<String>), Failure> {
    sys::new_session().doing("make a session")?;
    sys::umask(0);
    fs::write("/proc/self/oom_score_adj", "0").doing("be a process like others")?;
    for mut entrance in &entrances.files {
        entrance.write_all(b"0").doing("enter the container's group")?;
    }
    rootfs::enter(process.privileged)?;
    let null = File::open("/dev/null").doing("open /dev/null")?;
    for (end, number) in [(null.as_fd(), 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)] {
        sys::replace_fd(end, number).doing("place the output")?;
    }
    sys::set_limit(libc::RLIMIT_NOFILE, OPEN_FILES_MAX).doing("set the limit of open files")?;
    sys::set_limit(libc::RLIMIT_NPROC, libc::RLIM_INFINITY).doing("set the limit of processes")?;
    sys::umask(0o022);
    let identity = user::resolve(&process.user, &accounts("/etc/passwd")?, &accounts("/etc/group")?)?;
    rootfs::enter_working_dir(&process.working_dir)?;
    if !process.privileged {
        caps::restrict()?;
    }
    sys::set_user(identity.uid, identity.gid, &identity.groups).doing("become the user")?;
    let mut env = process.env.clone();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    let name = process.args.first().ok_or_else(|| Failure::internal("no command specified"))?;
    let program = lookup::find(name, &env, look)?;
    sys::default_signals().doing("reset the signals")?;
    Ok((program, env))
}

/// Missing files are empty. A pipe in their place must not stop us, nor a file without end.
fn accounts(path: &str) -> Result<String, Failure> {
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
