//! Which process a machine is: found again after a restart of the server, never mistaken for another.
//!
//! A pid alone says nothing, since pids are used again. A process is its pid, the time it started and the boot of the
//! host in which it did; a [`Pidfd`] that was checked against these stays on that process for ever.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks after the host's boot: field 22 of `/proc/PID/stat` (proc(5)).
    pub(crate) start_ticks: u64,
    pub(crate) boot_id: String,
}

impl ProcessId {
    /// The process that has this pid now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let (start_ticks, _) = stat(pid)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, start_ticks, boot_id: boot_id()? })
    }

    /// Whether it still runs. A process that ended and was not collected yet does not.
    pub(crate) fn alive(&self) -> io::Result<bool> {
        if boot_id()? != self.boot_id {
            return Ok(false);
        }
        Ok(
            matches!(stat(self.pid)?, Some((start, state)) if start == self.start_ticks && !matches!(state, b'Z' | b'X')),
        )
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Start time and state letter; `None` if there is no such process.
fn stat(pid: u32) -> io::Result<Option<(u64, u8)>> {
    let text = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // The program's name, in parentheses, may hold anything; what follows its last parenthesis is plain. The state is
    // field 3, so the start time is the twentieth field from there.
    let parse = || {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        Some((fields.nth(18)?.parse().ok()?, state))
    };
    parse().map(Some).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))
}

/// A handle on one process: readable once it has ended (pidfd_open(2)).
#[derive(Debug)]
pub(crate) struct Pidfd(OwnedFd);

impl Pidfd {
    /// `None`: it is no more.
    pub(crate) fn open(process: &ProcessId) -> io::Result<Option<Self>> {
        let pid = libc::pid_t::try_from(process.pid).map_err(io::Error::other)?;
        // SAFETY: takes two numbers, returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = match RawFd::try_from(fd) {
            Ok(fd) if fd >= 0 => fd,
            _ => {
                let error = io::Error::last_os_error();
                return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
            }
        };
        // SAFETY: the descriptor is new and belongs to nobody else.
        let pidfd = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // Only now is it certain that the pid could not have passed to another process in between.
        Ok(process.alive()?.then_some(pidfd))
    }

    /// SIGKILL; fine if it has ended.
    pub(crate) fn kill(&self) -> io::Result<()> {
        // SAFETY: takes a descriptor, numbers and a null pointer that means "no details".
        let done = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match io::Error::last_os_error() {
            _ if done == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }
}

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_found_again_and_no_other_is_taken_for_it() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.alive().unwrap());
        let younger = ProcessId { start_ticks: own.start_ticks + 1, ..own.clone() };
        assert!(!younger.alive().unwrap());
        assert!(Pidfd::open(&younger).unwrap().is_none());
        let other_boot = ProcessId { boot_id: "b".into(), ..own };
        assert!(!other_boot.alive().unwrap());
    }

    #[test]
    fn a_process_that_ended_is_dead_even_before_it_is_collected() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        let pidfd = Pidfd::open(&process).unwrap().unwrap();
        pidfd.kill().unwrap();
        let mut poll = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut poll, 10_000_u16).unwrap();
        assert!(!process.alive().unwrap());
        child.wait().unwrap();
        assert!(!process.alive().unwrap());
        pidfd.kill().unwrap();
    }
}
