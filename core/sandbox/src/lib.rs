//! A child process that works on what strangers wrote gives up its rights first, in the order in which it is possible.
//!
//! What is left: the descriptors that it was started with, memory within limits, and the system calls that reading,
//! writing and computing need.

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the child may still have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Descriptors above this one are closed.
    pub last_descriptor: i32,
    /// Whom it becomes, where it is root.
    pub uid: u32,
    pub gid: u32,
    /// Of address space.
    pub memory_bytes: u64,
    /// Of processor time.
    pub cpu_seconds: u64,
    /// Of any file that it writes.
    pub file_bytes: u64,
    /// The kernel ends it then, whoever still waits for it.
    pub deadline_seconds: u32,
}

/// The weight of a process at this value is a tenth of the usual one (sched(7)).
const NICE: libc::c_int = 10;

/// Runs once, in a process of one thread, before the first byte of a stranger's is read. What cannot be given up is an
/// error in words.
pub fn enter(bounds: &Bounds) -> Result<(), String> {
    close_other_descriptors(bounds.last_descriptor)?;
    step_back();
    // The kernel ends a child that hangs, should the parent be gone.
    nix::unistd::alarm::set(bounds.deadline_seconds);
    if Uid::effective().is_root() {
        // Nothing to talk to, even if the filter below had a hole. Not everywhere allowed, and not the wall itself.
        let empty = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
        let _ = unshare(empty);
        let (uid, gid) = (Uid::from_raw(bounds.uid), Gid::from_raw(bounds.gid));
        setgroups(&[]).map_err(|errno| format!("setgroups: {errno}"))?;
        setresgid(gid, gid, gid).map_err(|errno| format!("setresgid {gid}: {errno}"))?;
        setresuid(uid, uid, uid).map_err(|errno| format!("setresuid {uid}: {errno}"))?;
    }
    nix::sys::prctl::set_dumpable(false).map_err(|errno| format!("prctl dumpable: {errno}"))?;
    nix::sys::prctl::set_no_new_privs().map_err(|errno| format!("prctl no_new_privs: {errno}"))?;
    limit(bounds)?;
    let filter = filter().map_err(|error| format!("seccomp filter: {error}"))?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|error| format!("seccomp: {error}"))
}

/// Machines that run, and the server, come first. It works all the same where this is not allowed.
fn step_back() {
    // SAFETY: takes three numbers.
    #[expect(unsafe_code, reason = "no safe wrapper of setpriority at hand")]
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

fn close_other_descriptors(last: i32) -> Result<(), String> {
    let first = last.cast_unsigned() + 1;
    // SAFETY: closes descriptors above the ones in use; nothing in this process holds any of those yet.
    #[expect(unsafe_code, reason = "no safe wrapper of close_range at hand")]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(format!("close_range: {}", std::io::Error::last_os_error())) }
}

fn limit(bounds: &Bounds) -> Result<(), String> {
    for (resource, value) in [
        (Resource::RLIMIT_AS, bounds.memory_bytes),
        (Resource::RLIMIT_CPU, bounds.cpu_seconds),
        (Resource::RLIMIT_FSIZE, bounds.file_bytes),
        (Resource::RLIMIT_NOFILE, 8),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, value, value).map_err(|errno| format!("setrlimit {resource:?}: {errno}"))?;
    }
    Ok(())
}

/// Reading, writing and memory; whatever else is asked for is refused with EPERM. Nothing can be opened, connected or started.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let allowed = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_lseek,
        libc::SYS_ftruncate,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_close,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_tgkill,
        libc::SYS_sched_yield,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
        allowed.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()
}
