//! Giving up rights, in the order in which it is possible.

use super::Job;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;

/// Beyond what the files may have: blocks, directories and the recipe.
const DISK_SLACK_BYTES: u64 = 8 << 30;

/// The weight of a process at this value is a tenth of the usual one (sched(7)).
const NICE: libc::c_int = 10;

/// Runs once, before the first byte of the archive is read.
pub(super) fn enter(job: &Job) -> Result<(), String> {
    close_other_descriptors()?;
    step_back();
    // The kernel ends a child that hangs, should the parent be gone.
    nix::unistd::alarm::set(job.deadline_seconds);
    if Uid::effective().is_root() {
        // Nothing to talk to, even if the filter below had a hole. Not everywhere allowed, and not the wall itself.
        let empty = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
        let _ = unshare(empty);
        let (uid, gid) = (Uid::from_raw(job.uid), Gid::from_raw(job.gid));
        setgroups(&[]).map_err(|errno| format!("setgroups: {errno}"))?;
        setresgid(gid, gid, gid).map_err(|errno| format!("setresgid {gid}: {errno}"))?;
        setresuid(uid, uid, uid).map_err(|errno| format!("setresuid {uid}: {errno}"))?;
    }
    nix::sys::prctl::set_dumpable(false).map_err(|errno| format!("prctl dumpable: {errno}"))?;
    nix::sys::prctl::set_no_new_privs().map_err(|errno| format!("prctl no_new_privs: {errno}"))?;
    limit(job)?;
    let filter = filter().map_err(|error| format!("seccomp filter: {error}"))?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|error| format!("seccomp: {error}"))
}

/// Machines that run, and the server, come first. It works all the same where this is not allowed.
fn step_back() {
    // SAFETY: takes three numbers.
    #[expect(unsafe_code, reason = "no safe wrapper of setpriority at hand")]
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

fn close_other_descriptors() -> Result<(), String> {
    let first = super::DISK_FD.cast_unsigned() + 1;
    // SAFETY: closes descriptors above the ones in use; nothing in this process holds any of those yet.
    #[expect(unsafe_code, reason = "no safe wrapper of close_range at hand")]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(format!("close_range: {}", std::io::Error::last_os_error())) }
}

fn limit(job: &Job) -> Result<(), String> {
    let limits = &job.limits;
    for (resource, value) in [
        (Resource::RLIMIT_AS, limits.memory_bytes),
        (Resource::RLIMIT_CPU, limits.cpu_seconds),
        (Resource::RLIMIT_FSIZE, limits.uncompressed_bytes.saturating_add(DISK_SLACK_BYTES)),
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
