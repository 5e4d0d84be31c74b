//! System calls that std does not have. All `unsafe` of the agent is here.

mod net;

pub use net::{Interfaces, Interfaces6};

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c_path(path: &Path) -> Result<CString> {
    c_string(path.as_os_str())
}

fn c_string(text: impl AsRef<OsStr>) -> Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| Error::from_raw_os_error(libc::EINVAL))
}

fn check(result: impl Into<i64>) -> Result<i64> {
    match result.into() {
        -1 => Err(Error::last_os_error()),
        value => Ok(value),
    }
}

fn owned(result: impl Into<i64>) -> Result<OwnedFd> {
    let fd = RawFd::try_from(check(result)?).map_err(|_| Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel just gave us this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn mount(source: &str, target: &Path, kind: &str, flags: libc::c_ulong, options: &str) -> Result<()> {
    let (source, target, kind, options) =
        (c_string(source)?, c_path(target)?, c_string(kind)?, c_string(options)?);
    // SAFETY: four strings that end in zero and live until the call returns.
    check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
    })?;
    Ok(())
}

pub fn unmount(target: &Path, flags: libc::c_int) -> Result<()> {
    let target = c_path(target)?;
    // SAFETY: a string that ends in zero.
    check(unsafe { libc::umount2(target.as_ptr(), flags) })?;
    Ok(())
}

/// Makes the current folder the root, and the old root a mount on top of it.
pub fn pivot_root_here() -> Result<()> {
    // SAFETY: two strings that end in zero.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    Ok(())
}

/// A mount of `path` that is nowhere yet; see [`attach`].
pub fn detached_bind(path: &Path) -> Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.unsigned_abs();
    // SAFETY: a string that ends in zero, and numbers.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

pub fn attach(tree: &OwnedFd, target: &Path) -> Result<()> {
    const FROM_EMPTY_PATH: libc::c_uint = 4;
    const TO_SYMLINKS: libc::c_uint = 0x10;
    let target = c_path(target)?;
    // SAFETY: an open descriptor, strings that end in zero, and numbers.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            FROM_EMPTY_PATH | TO_SYMLINKS,
        )
    })?;
    Ok(())
}

pub fn make_node(path: &Path, mode: libc::mode_t, major: u32, minor: u32) -> Result<()> {
    let path = c_path(path)?;
    // SAFETY: a string that ends in zero.
    check(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) })?;
    Ok(())
}

pub fn load_module(file: &File, parameters: &str) -> Result<()> {
    let parameters = c_string(parameters)?;
    // SAFETY: an open descriptor and a string that ends in zero.
    check(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) })?;
    Ok(())
}

/// Puts `fd` in place of descriptor `number` of this process.
pub fn replace_fd(fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    // SAFETY: numbers only. Standard descriptors are replaced, which std allows for, or any in a child about to execute.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    Ok(())
}

/// The same under a number that nothing small is in the way of.
pub fn raise_fd(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    const LEAST: libc::c_int = 64;
    // SAFETY: numbers only; returns a new descriptor or -1.
    owned(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, LEAST) })
}

/// A descriptor that this program was started with; to be asked for once.
pub fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: who starts the program hands it over, and nobody else in this process has it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

pub fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: pointer and length of the same string.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) })?;
    Ok(())
}

pub fn set_hostname(name: &str) -> Result<()> {
    // SAFETY: pointer and length of the same string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })?;
    Ok(())
}

/// Nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub fn set_clock(unix_ns: u64) -> Result<()> {
    let out_of_range = |_| Error::from_raw_os_error(libc::EINVAL);
    let time = libc::timespec {
        tv_sec: i64::try_from(unix_ns / 1_000_000_000).map_err(out_of_range)?,
        tv_nsec: i64::try_from(unix_ns % 1_000_000_000).map_err(out_of_range)?,
    };
    // SAFETY: a valid structure.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) })?;
    Ok(())
}

/// Feeds the kernel's random generator, counted in full, and makes it use that at once. random(4)
pub fn add_entropy(random: &File, bytes: [u8; 32]) -> Result<()> {
    #[repr(C)]
    struct PoolInfo {
        bits: libc::c_int,
        bytes: libc::c_int,
        data: [u8; 32],
    }
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    let info = PoolInfo { bits: 256, bytes: 32, data: bytes };
    // SAFETY: the structure that this request reads; the second request takes none.
    unsafe {
        check(libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info))?;
        check(libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG))?;
    }
    Ok(())
}

/// A child in new namespaces, or `None` in the child itself. The agent has one thread, so the child may do anything.
pub fn clone(namespaces: libc::c_int) -> Result<Option<libc::pid_t>> {
    let flags = namespaces | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and a stack this is fork; there are no other threads whose locks could be held.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok((pid != 0).then(|| libc::pid_t::try_from(pid).unwrap_or(libc::pid_t::MAX)))
}

pub fn unshare(namespaces: libc::c_int) -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::unshare(namespaces) })?;
    Ok(())
}

/// The next child that ended, and its status as of wait(2).
pub fn reap() -> Option<(libc::pid_t, libc::c_int)> {
    let mut status = 0;
    // SAFETY: a valid place for the status.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Waits for the end of this child; its status as of wait(2).
pub fn wait_for(child: libc::pid_t) -> Result<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: a valid place for the status.
        match check(unsafe { libc::waitpid(child, &raw mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub fn kill(pid: libc::pid_t, signal: libc::c_int) -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Waits until one of `fds` is ready or `timeout_ms` is over (-1: no limit). An interruption counts as over.
pub fn poll(fds: &mut [libc::pollfd], timeout_ms: libc::c_int) {
    // SAFETY: pointer and length of the same slice.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
}

/// Two connected sockets for short messages, both closed on exec.
pub fn message_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    let [one, other] = fds;
    Ok((owned(one)?, owned(other)?))
}

/// Room for one descriptor beside a message, aligned as `cmsghdr` is.
type Control = [u64; 4];

fn message(bytes: &mut [u8], part: &mut libc::iovec, control: &mut Control, with_fd: bool) -> libc::msghdr {
    *part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    if with_fd {
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: arithmetic only.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as libc::c_uint) } as _;
    }
    header
}

/// Sends a message, and perhaps a descriptor. unix(7)
pub fn send_message(socket: &OwnedFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut bytes = bytes.to_vec();
    // SAFETY: all zeros is a valid `iovec`.
    let (mut part, mut control) = (unsafe { std::mem::zeroed() }, Control::default());
    let header = message(&mut bytes, &mut part, &mut control, fd.is_some());
    // SAFETY: the control buffer has room for one descriptor, and all pointers live until the call returns.
    unsafe {
        if let Some(fd) = fd {
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as libc::c_uint) as _;
            libc::CMSG_DATA(first).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        }
        check(
            i64::try_from(libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL))
                .unwrap_or(-1),
        )?;
    }
    Ok(())
}

/// The next message, empty when all other ends are closed, and the descriptor that came with it.
pub fn receive_message(socket: &OwnedFd, bytes_max: usize) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; bytes_max];
    // SAFETY: all zeros is a valid `iovec`.
    let (mut part, mut control) = (unsafe { std::mem::zeroed() }, Control::default());
    let mut header = message(&mut bytes, &mut part, &mut control, true);
    // SAFETY: all pointers live until the call returns; the kernel says how much it wrote, and gives descriptors that
    // nobody else has.
    let (length, fd) = unsafe {
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC);
        let length = check(i64::try_from(length).unwrap_or(-1))?;
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        let rights = !first.is_null() && (*first).cmsg_type == libc::SCM_RIGHTS;
        let fd = if rights { Some(libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned()) } else { None };
        (length, fd.map(owned).transpose()?)
    };
    bytes.truncate(usize::try_from(length).unwrap_or(0));
    Ok((bytes, fd))
}

/// Moves this process, or its children for a process namespace, into a namespace. setns(2)
pub fn enter_namespace(namespace: &File, kind: libc::c_int) -> Result<()> {
    // SAFETY: an open descriptor and plain numbers.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) })?;
    Ok(())
}

/// The other side of a terminal that was opened from `ptmx`, and its number. ioctl_tty(2)
pub fn terminal_peer(master: &File) -> Result<(OwnedFd, libc::c_uint)> {
    let (unlock, mut number): (libc::c_int, libc::c_uint) = (0, 0);
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: valid places for what the requests read and write.
    unsafe {
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock))?;
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number))?;
        Ok((owned(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags))?, number))
    }
}

/// Makes the terminal the one of this session.
pub fn control_terminal(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: an open descriptor and plain numbers.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    Ok(())
}

pub fn set_terminal_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure that this request reads.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// (read end, write end), both closed on exec.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [read, write] = fds;
    Ok((owned(read)?, owned(write)?))
}

/// Blocks these signals and gives them as bytes to read instead. signalfd(2)
pub fn signal_fd(signals: &[libc::c_int]) -> Result<File> {
    let set = signal_set(signals);
    // SAFETY: a valid set.
    unsafe {
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        Ok(owned(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?.into())
    }
}

fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: all zeros is a valid set of the C library, and it is emptied before use.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Signals as a new program expects them: none blocked, and std's ignored SIGPIPE back to its default.
pub fn default_signals() -> Result<()> {
    let none = signal_set(&[]);
    // SAFETY: a valid set; the default action is always valid.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
    }
    Ok(())
}

/// Reads and writes return at once, and SIGIO tells of changes.
pub fn make_async(file: &File) -> Result<()> {
    // SAFETY: an open descriptor and plain numbers.
    unsafe {
        let pid = libc::getpid();
        check(libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, pid))?;
        check(libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC))?;
    }
    Ok(())
}

/// How much a pipe holds while nobody reads.
pub fn set_pipe_size(pipe: &OwnedFd, bytes: libc::c_int) -> Result<()> {
    // SAFETY: an open descriptor and plain numbers.
    check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
    Ok(())
}

pub fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    // SAFETY: an open descriptor and plain numbers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok(())
}

pub fn new_session() -> Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() })?;
    Ok(())
}

pub fn set_limit(resource: libc::__rlimit_resource_t, soft: libc::rlim_t, hard: libc::rlim_t) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: a valid structure.
    check(unsafe { libc::setrlimit(resource, &raw const limit) })?;
    Ok(())
}

/// Takes a capability out of the bounding set for good. `Ok(false)`: the kernel has none of this number.
pub fn drop_bounding(capability: u32) -> Result<bool> {
    // SAFETY: plain numbers.
    match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// From now on no program that is run gives more rights than this process has. PR_SET_NO_NEW_PRIVS(2const)
pub fn forbid_new_privileges() -> Result<()> {
    let (on, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, none, none, none) })?;
    Ok(())
}

/// From now on the program decides about each system call of this process and its children. seccomp(2)
pub fn filter_calls(program: &mut [libc::sock_filter]) -> Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: pointer and length of the same slice, which lives until the call returns; the kernel checks the program.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })?;
    Ok(())
}

/// Becomes another user; going from root, its capabilities are lost.
pub fn set_user(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    // SAFETY: pointer and length of the same slice, and plain numbers.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))?;
    }
    Ok(())
}

/// Whether the effective user may execute the file.
pub fn may_execute(path: &Path) -> Result<()> {
    let path = c_path(path)?;
    // SAFETY: a string that ends in zero.
    check(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) })?;
    Ok(())
}

/// Whether what is there cannot be written because it is mounted so.
pub fn is_read_only(path: &Path) -> Result<bool> {
    let path = c_path(path)?;
    // SAFETY: a string that ends in zero.
    match check(unsafe { libc::access(path.as_ptr(), libc::W_OK) }) {
        Err(error) => Ok(error.raw_os_error() == Some(libc::EROFS)),
        Ok(_) => Ok(false),
    }
}

/// Becomes another program; returns only to say why not.
pub fn exec(program: &Path, args: &[String], env: &[String]) -> Error {
    let list = |items: &[String]| items.iter().map(c_string).collect::<Result<Vec<CString>>>();
    let (program, args, env) = match (c_path(program), list(args), list(env)) {
        (Ok(program), Ok(args), Ok(env)) => (program, args, env),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return error,
    };
    let (arg_pointers, env_pointers) = (pointers(&args), pointers(&env));
    // SAFETY: strings that end in zero, in lists that end in null; all live until the call returns.
    unsafe { libc::execve(program.as_ptr(), arg_pointers.as_ptr(), env_pointers.as_ptr()) };
    Error::last_os_error()
}

/// Becomes the program of this process again, whatever root it is in by now; `program` is open.
pub fn exec_open(program: &File, args: &[String], env: &[String]) -> Error {
    let list = |items: &[String]| items.iter().map(c_string).collect::<Result<Vec<CString>>>();
    let (args, env) = match (list(args), list(env)) {
        (Ok(args), Ok(env)) => (args, env),
        (Err(error), _) | (_, Err(error)) => return error,
    };
    let (args, env) = (pointers(&args), pointers(&env));
    // SAFETY: strings that end in zero, in lists that end in null; all live until the call returns.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last_os_error()
}

fn pointers(items: &[CString]) -> Vec<*const libc::c_char> {
    items.iter().map(|item| item.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Holds every signal back until it is asked for.
pub fn block_signals() -> Result<()> {
    let all = every_signal();
    // SAFETY: a valid set.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) })?;
    Ok(())
}

/// Waits for the next signal that is held back.
pub fn next_signal() -> Result<libc::c_int> {
    let all = every_signal();
    // SAFETY: a valid set; no details are asked for.
    let signal = check(unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) })?;
    Ok(libc::c_int::try_from(signal).unwrap_or_default())
}

fn every_signal() -> libc::sigset_t {
    // SAFETY: all zeros is a valid set of the C library, and it is filled before use.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}

/// A process group of its own, in the foreground where there is a terminal.
pub fn lead_foreground() -> Result<()> {
    // SAFETY: plain numbers. Signals are held back, so that taking the terminal from behind does not stop us.
    unsafe {
        check(libc::setpgid(0, 0))?;
        if libc::isatty(0) == 1 {
            check(libc::tcsetpgrp(0, libc::getpgrp()))?;
        }
    }
    Ok(())
}

/// The name that `ps` shows.
pub fn set_process_name(name: &CStr) -> Result<()> {
    // SAFETY: a string that ends in zero.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) })?;
    Ok(())
}

/// Closes every descriptor from this number on.
pub fn close_from(number: libc::c_uint) -> Result<()> {
    // SAFETY: whoever has one of them is not called any more in this process.
    check(unsafe { libc::syscall(libc::SYS_close_range, number, libc::c_uint::MAX, 0) })?;
    Ok(())
}

/// An extended attribute of what is at the path, not of where it leads; `None`: it has none of this name.
pub fn attribute(path: &Path, name: &CStr) -> Result<Option<Vec<u8>>> {
    let path = c_path(path)?;
    let mut value = vec![0; 1024];
    // SAFETY: strings that end in zero; pointer and length of the same buffer.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match check(i64::try_from(length).unwrap_or(-1)) {
        Ok(length) => {
            value.truncate(usize::try_from(length).unwrap_or(0));
            Ok(Some(value))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn set_attribute(path: &Path, name: &CStr, value: &[u8]) -> Result<()> {
    let path = c_path(path)?;
    // SAFETY: strings that end in zero; pointer and length of the same slice.
    check(unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })?;
    Ok(())
}

/// When it was last changed, in seconds since 1970; of a link itself.
pub fn set_mtime(path: &Path, seconds: i64) -> Result<()> {
    let path = c_path(path)?;
    let time = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = [time, time];
    // SAFETY: a string that ends in zero, and two times.
    check(unsafe {
        libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    })?;
    Ok(())
}

/// Writes all of a file system to its disk.
pub fn sync_file_system(on: &File) -> Result<()> {
    // SAFETY: an open descriptor.
    check(unsafe { libc::syncfs(on.as_raw_fd()) })?;
    Ok(())
}

/// Lets a mounted ext4 take so many bytes of its disk. Fine if it does. ext4(5), EXT4_IOC_RESIZE_FS
pub fn grow_ext4(on: &File, bytes: u64) -> Result<()> {
    // _IOW('f', 16, __u64)
    const RESIZE: libc::Ioctl = 0x4008_6610;
    // SAFETY: numbers only, for which zeros are good.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a place for the answer.
    check(unsafe { libc::fstatfs(on.as_raw_fd(), &mut found) })?;
    let block = u64::try_from(found.f_bsize).ok().filter(|block| *block > 0);
    let blocks: u64 = bytes / block.ok_or_else(|| Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: an open descriptor, and a number that lives until the call returns.
    check(unsafe { libc::ioctl(on.as_raw_fd(), RESIZE, &blocks) })?;
    Ok(())
}

/// Ends this process at once.
pub fn exit_now(code: libc::c_int) -> ! {
    // SAFETY: no memory is involved.
    unsafe { libc::_exit(code) }
}

pub fn umask(mask: libc::mode_t) {
    // SAFETY: plain numbers; cannot fail.
    unsafe { libc::umask(mask) };
}

/// Writes everything to the disks and switches the machine off.
pub fn power_off() -> ! {
    // SAFETY: no memory is involved.
    unsafe {
        libc::sync();
        libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF);
    }
    exit_now(1)
}
