//! How QEMU is started: forked, confined by system calls, and released only when it was written down.
//!
//! ```text
//!   server ──fork──▶ session leader ──fork──▶ QEMU-to-be: closes what is not its own, confines itself, says its pid
//!     │                  └ exits                │
//!     │◀──── pid ───────────────────────────────┤ waits
//!     │ writes machine.json, sets limits        │
//!     │───── go ───────────────────────────────▶│ execve
//! ```
//!
//! The detour through a session leader makes it nobody's child: it outlives the server. If the server dies before
//! `go`, the pipe closes and the process exits: a machine without a record cannot be.
//!
//! **Invariant:** between fork and execve the child of a process with many threads may call only what is
//! async-signal-safe (signal-safety(7)). It takes no lock and allocates nothing; all memory it reads was prepared before.

use crate::memfd;
use crate::root::RootPlan;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

/// How long confinement, and later execve, may take.
const STEP_DEADLINE: Duration = Duration::from_secs(20);

/// A process to be: everything is prepared.
#[derive(Debug)]
pub(crate) struct Spawn {
    pub(crate) argv: Vec<CString>,
    /// Stay open in it, at the same numbers.
    pub(crate) descriptors: Vec<RawFd>,
    /// Its standard output and error.
    pub(crate) log: RawFd,
    /// Its standard input.
    pub(crate) null: RawFd,
    pub(crate) root: RootPlan,
    /// Of user and group.
    pub(crate) uid: u32,
    /// A further group: the one that may open `/dev/kvm`.
    pub(crate) extra_group: Option<u32>,
    /// Bytes; bounds every file that it may write.
    pub(crate) file_bytes_max: u64,
}

/// Forked, confined, and waiting for `go`.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) pid: u32,
    go: OwnedFd,
    report: OwnedFd,
}

impl Spawn {
    pub(crate) fn fork(&self) -> io::Result<Waiting> {
        let (go_read, go) = pipe()?;
        let (report, report_write) = pipe()?;
        let prepared = Prepared::new(self, go_read.as_raw_fd(), report_write.as_raw_fd());
        // SAFETY: the child calls only `lead`, which keeps to the rules of this module and never returns.
        let leader = unsafe { libc::fork() };
        match leader {
            -1 => return Err(io::Error::last_os_error()),
            // SAFETY: this is the forked child.
            0 => unsafe { lead(&prepared) },
            _ => {}
        }
        drop((go_read, report_write));
        let mut status = 0;
        // SAFETY: waits for the child that was just forked.
        if unsafe { libc::waitpid(leader, &raw mut status, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
        match read_report(&report)? {
            Report::Pid(pid) => Ok(Waiting { pid, go, report }),
            Report::Failed(error) => Err(error),
            Report::Closed => Err(io::Error::other("the forked process ended at once")),
        }
    }
}

impl Waiting {
    /// Lets it become QEMU. Dropped without this, it exits.
    pub(crate) fn go(self) -> io::Result<()> {
        if nix::unistd::write(&self.go, &[1])? != 1 {
            return Err(io::Error::other("the forked process does not listen"));
        }
        match read_report(&self.report)? {
            // The pipe closes when the program is executed.
            Report::Closed => Ok(()),
            Report::Failed(error) => Err(error),
            Report::Pid(_) => Err(io::Error::other("the forked process said its pid twice")),
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

/// One record on the report pipe: a step and a number, which is the pid for [`Step::Confined`], else an errno.
enum Report {
    Pid(u32),
    Failed(io::Error),
    Closed,
}

fn read_report(pipe: &OwnedFd) -> io::Result<Report> {
    let deadline = Instant::now() + STEP_DEADLINE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
        let mut poll = [nix::poll::PollFd::new(pipe.as_fd(), nix::poll::PollFlags::POLLIN)];
        match nix::poll::poll(&mut poll, timeout) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the forked process does not answer"));
            }
            Ok(_) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // Written in one piece that is far shorter than PIPE_BUF, so read in one piece.
    let mut record = [0_u8; 8];
    if nix::unistd::read(pipe, &mut record)? != record.len() {
        return Ok(Report::Closed);
    }
    let [a, b, c, d, e, f, g, h] = record;
    let (step, number) = (i32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h]));
    Ok(match Step::ALL.iter().find(|known| **known as i32 == step) {
        Some(Step::Confined) => Report::Pid(number.unsigned_abs()),
        step => {
            let error = io::Error::from_raw_os_error(number);
            let step = step.map_or("an unknown step", |step| step.name());
            Report::Failed(io::Error::new(error.kind(), format!("{step}: {error}")))
        }
    })
}

/// What the child was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Step {
    Session = 1,
    Descriptors,
    Limits,
    Namespaces,
    Root,
    Folders,
    Binds,
    Pivot,
    Confined,
    Go,
    Privileges,
    Execute,
}

impl Step {
    const ALL: [Step; 12] = [
        Step::Session,
        Step::Descriptors,
        Step::Limits,
        Step::Namespaces,
        Step::Root,
        Step::Folders,
        Step::Binds,
        Step::Pivot,
        Step::Confined,
        Step::Go,
        Step::Privileges,
        Step::Execute,
    ];

    fn name(self) -> &'static str {
        match self {
            Step::Session => "starting a session",
            Step::Descriptors => "handing in files",
            Step::Limits => "setting resource limits",
            Step::Namespaces => "making namespaces",
            Step::Root => "mounting the hypervisor's root",
            Step::Folders => "filling the hypervisor's root",
            Step::Binds => "showing files to the hypervisor",
            Step::Pivot => "entering the hypervisor's root",
            Step::Confined => "reporting",
            Step::Go => "waiting for the record",
            Step::Privileges => "giving up privileges",
            Step::Execute => "executing the hypervisor",
        }
    }
}

/// All that the child reads, in memory that was allocated before the fork.
struct Prepared<'a> {
    spawn: &'a Spawn,
    go: RawFd,
    report: RawFd,
    argv: Vec<*const libc::c_char>,
    environment: [*const libc::c_char; 1],
    /// Ranges of descriptors that are not its own.
    foreign: Vec<(u32, u32)>,
    groups: Vec<libc::gid_t>,
}

impl<'a> Prepared<'a> {
    fn new(spawn: &'a Spawn, go: RawFd, report: RawFd) -> Self {
        let mut argv: Vec<_> = spawn.argv.iter().map(|argument| argument.as_ptr()).collect();
        argv.push(ptr::null());
        let own = spawn.descriptors.iter().copied().chain([go, report, spawn.log, spawn.null]).collect();
        Self {
            spawn,
            go,
            report,
            argv,
            environment: [ptr::null()],
            foreign: gaps(own),
            groups: spawn.extra_group.into_iter().collect(),
        }
    }
}

/// The ranges from 3 on that hold none of `own`.
fn gaps(own: Vec<RawFd>) -> Vec<(u32, u32)> {
    let mut own: Vec<u32> = own.into_iter().filter_map(|fd| u32::try_from(fd).ok()).collect();
    own.sort_unstable();
    let mut from = 3;
    let mut gaps = Vec::new();
    for fd in own {
        if fd > from {
            gaps.push((from, fd - 1));
        }
        from = from.max(fd + 1);
    }
    gaps.push((from, u32::MAX));
    gaps
}

type Done = Result<(), (Step, i32)>;

fn check(step: Step, returned: impl Into<i64>) -> Done {
    if returned.into() == -1 { Err((step, errno())) } else { Ok(()) }
}

fn errno() -> i32 {
    // SAFETY: the location belongs to this thread.
    unsafe { *libc::__errno_location() }
}

fn say(report: RawFd, step: Step, number: i32) {
    let mut record = [0_u8; 8];
    let bytes = (step as i32).to_le_bytes().into_iter().chain(number.to_le_bytes());
    record.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    // SAFETY: writes from a buffer of that length. Nothing can be done about a failure here.
    unsafe { libc::write(report, record.as_ptr().cast(), record.len()) };
}

/// The session leader: forks again and exits.
///
/// # Safety
/// Only in a freshly forked child.
unsafe fn lead(prepared: &Prepared<'_>) -> ! {
    // SAFETY: plain system calls; `become_qemu` runs in the freshly forked grandchild.
    unsafe {
        if libc::setsid() == -1 {
            say(prepared.report, Step::Session, errno());
            libc::_exit(1);
        }
        match libc::fork() {
            -1 => say(prepared.report, Step::Session, errno()),
            0 => {
                if let Err((step, errno)) = become_qemu(prepared) {
                    say(prepared.report, step, errno);
                }
            }
            _ => {}
        }
        libc::_exit(1)
    }
}

/// Returns only with an error.
///
/// # Safety
/// Only in a freshly forked child.
unsafe fn become_qemu(prepared: &Prepared<'_>) -> Done {
    let spawn = prepared.spawn;
    // SAFETY: plain system calls on numbers and on memory that `prepared` keeps.
    unsafe {
        own_descriptors(prepared)?;
        libc::umask(0o022);
        limit(libc::RLIMIT_CORE as i32, 0)?;
        limit(libc::RLIMIT_FSIZE as i32, spawn.file_bytes_max)?;
        limit(libc::RLIMIT_NOFILE as i32, 1024)?;
        let namespaces = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNS;
        check(Step::Namespaces, libc::unshare(namespaces))?;
        build_root(&spawn.root)?;
        say(prepared.report, Step::Confined, libc::getpid());
        let mut byte = 0_u8;
        if libc::read(prepared.go, (&raw mut byte).cast(), 1) != 1 {
            // The server is gone, and with it whoever could know of this machine.
            libc::_exit(1);
        }
        drop_privileges(prepared)?;
        libc::execve(
            prepared.argv.first().copied().unwrap_or(ptr::null()),
            prepared.argv.as_ptr(),
            prepared.environment.as_ptr(),
        );
        Err((Step::Execute, errno()))
    }
}

/// Closes everything else; what QEMU inherits stays open over execve.
///
/// # Safety
/// Only in a freshly forked child.
unsafe fn own_descriptors(prepared: &Prepared<'_>) -> Done {
    let spawn = prepared.spawn;
    // SAFETY: descriptors are numbers; the ones closed belong to the copy of the server that this child is.
    unsafe {
        for (from, to) in &prepared.foreign {
            check(Step::Descriptors, libc::syscall(libc::SYS_close_range, *from, *to, 0))?;
        }
        check(Step::Descriptors, libc::dup2(spawn.null, 0))?;
        check(Step::Descriptors, libc::dup2(spawn.log, 1))?;
        check(Step::Descriptors, libc::dup2(spawn.log, 2))?;
        for fd in &spawn.descriptors {
            check(Step::Descriptors, libc::fcntl(*fd, libc::F_SETFD, 0))?;
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(Step::Descriptors, libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))
    }
}

/// # Safety
/// Only in a freshly forked child.
unsafe fn limit(resource: i32, value: u64) -> Done {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: reads one structure.
    check(Step::Limits, unsafe { libc::setrlimit(resource as libc::__rlimit_resource_t, &raw const limit) })
}

/// # Safety
/// Only in a freshly forked child, in a mount namespace of its own.
unsafe fn build_root(root: &RootPlan) -> Done {
    const SHUT: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;
    let (nothing, here, slash) = (ptr::null(), c".".as_ptr(), c"/".as_ptr());
    // SAFETY: system calls on C strings that outlive them.
    unsafe {
        // Nothing that is mounted here may reach the host.
        check(
            Step::Root,
            libc::mount(nothing, slash, nothing, libc::MS_REC | libc::MS_PRIVATE, ptr::null()),
        )?;
        let options = c"size=64k,nr_inodes=64,mode=0755".as_ptr();
        check(
            Step::Root,
            libc::mount(c"root".as_ptr(), root.at.as_ptr(), c"tmpfs".as_ptr(), SHUT, options.cast()),
        )?;
        check(Step::Root, libc::chdir(root.at.as_ptr()))?;
        for folder in &root.folders {
            check(Step::Folders, libc::mkdir(folder.as_ptr(), 0o755))?;
        }
        for (target, link) in &root.symlinks {
            check(Step::Folders, libc::symlink(target.as_ptr(), link.as_ptr()))?;
        }
        for bind in &root.binds {
            let (source, target) = (bind.source.as_ptr(), bind.target.as_ptr());
            if bind.file {
                let fd = libc::open(target, libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o444);
                check(Step::Binds, fd)?;
                libc::close(fd);
            }
            check(Step::Binds, libc::mount(source, target, nothing, libc::MS_BIND, ptr::null()))?;
            let shut = if bind.device { libc::MS_NOSUID | libc::MS_NOEXEC } else { SHUT | libc::MS_RDONLY };
            let flags = libc::MS_BIND | libc::MS_REMOUNT | shut;
            check(Step::Binds, libc::mount(nothing, target, nothing, flags, ptr::null()))?;
        }
        // The old root is stacked under the new one and taken away (pivot_root(2), "pivot_root(".", ".")").
        check(Step::Pivot, libc::syscall(libc::SYS_pivot_root, here, here))?;
        check(Step::Pivot, libc::umount2(here, libc::MNT_DETACH))?;
        check(Step::Pivot, libc::chdir(slash))?;
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | SHUT;
        check(Step::Pivot, libc::mount(nothing, slash, nothing, flags, ptr::null()))
    }
}

/// The header and data of capset(2), version 3.
#[repr(C)]
struct Capabilities {
    version: u32,
    pid: i32,
}

/// # Safety
/// Only in a freshly forked child: the raw calls change this thread alone, which there is the whole process.
unsafe fn drop_privileges(prepared: &Prepared<'_>) -> Done {
    let uid = prepared.spawn.uid;
    // SAFETY: system calls on numbers and on memory of the sizes that they expect.
    unsafe {
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == -1 {
                // Past the last one that this kernel knows.
                break;
            }
        }
        let groups = &prepared.groups;
        check(Step::Privileges, libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(Step::Privileges, libc::syscall(libc::SYS_setresgid, uid, uid, uid))?;
        check(Step::Privileges, libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        let header = Capabilities { version: 0x2008_0522, pid: 0 };
        let none = [0_u32; 6];
        check(Step::Privileges, libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()))?;
        check(Step::Privileges, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}

/// A bounded place for what QEMU says: it cannot grow, and a write beyond its end fails.
pub(crate) fn log_file(bytes: u64) -> io::Result<File> {
    let file = memfd::create(c"hypervisor-log", bytes)?;
    memfd::seal(&file, libc::F_SEAL_GROW | libc::F_SEAL_SHRINK)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn only_own_descriptors_are_kept() {
        assert_eq!(gaps(vec![5, 9, 3, 9]), [(4, 4), (6, 8), (10, u32::MAX)]);
        assert_eq!(gaps(vec![]), [(3, u32::MAX)]);
        assert_eq!(gaps(vec![1, 4]), [(3, 3), (5, u32::MAX)]);
    }

    #[test]
    fn the_log_never_grows() {
        let mut log = log_file(8).unwrap();
        assert_eq!(log.write(b"12345678").unwrap(), 8);
        assert!(log.write(b"9").is_err());
    }
}
