//! The container's own process while it runs: its output into the journal, and its end.

use crate::cgroup;
use crate::failure::report;
use crate::journal::{CHUNK_BYTES_MAX, Journal};
use crate::streams::Input;
use crate::sys;
use bulkhead_guest_protocol::journal::{Exited, Stream};
use bulkhead_guest_protocol::message::Took;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;

/// Full chunks of one pipe before the other has its turn.
const CHUNKS_IN_TURN: usize = 4;

pub struct Running {
    pub run: u32,
    pub layer_count: u32,
    pub pid: libc::pid_t,
    pub started_unix_ns: u64,
    /// To get there.
    pub took: Took,
    pub journal: Journal,
    /// Gone when the process and all its children have closed them.
    pub stdout: Option<File>,
    pub stderr: Option<File>,
    pub input: Input,
    pub is_terminal: bool,
    pub groups: cgroup::Groups,
    /// As of wait(2).
    pub status: Option<libc::c_int>,
    /// Output is not waited for any more.
    pub hurry: bool,
    /// Output was just written.
    pub gathering: bool,
}

impl Running {
    /// What to wait for.
    pub fn interest(&self) -> Vec<libc::pollfd> {
        let reads = !self.gathering && self.journal.room() > 0;
        let pipes = [&self.stdout, &self.stderr].into_iter().flatten().filter(|_| reads);
        let output =
            pipes.map(|pipe| libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        output.chain(self.input.interest()).collect()
    }

    /// Moves output from the pipes into the journal.
    pub fn pump(&mut self) {
        self.gathering = false;
        for (pipe, stream) in [(&mut self.stdout, Stream::Stdout), (&mut self.stderr, Stream::Stderr)] {
            for _ in 0..CHUNKS_IN_TURN {
                match pump_chunk(&mut self.journal, pipe, stream) {
                    Pumped::Nothing => break,
                    Pumped::Some => {
                        self.gathering = true;
                        break;
                    }
                    Pumped::Full => self.gathering = true,
                }
            }
        }
        if self.hurry && self.status.is_some() && self.journal.room() == 0 {
            self.journal.drop_held();
            (self.stdout, self.stderr) = (None, None);
        }
    }

    /// The end of the first process is the end of all in its namespace, so their pipes are closed.
    pub fn is_over(&self) -> bool {
        self.status.is_some() && self.stdout.is_none() && self.stderr.is_none() && self.journal.is_settled()
    }

    /// Writes its end down.
    pub fn finish(&mut self) {
        let status = self.status.unwrap_or_default();
        let mut exited = exit_of(status, cgroup::oom_killed());
        switch_off_reason(status).unwrap_or_default().clone_into(&mut exited.error);
        report(self.journal.exited(sys::unix_ns(), exited));
    }
}

enum Pumped {
    Nothing,
    Some,
    /// There may be more at once.
    Full,
}

/// A pipe that has come to its end is dropped.
fn pump_chunk(journal: &mut Journal, pipe: &mut Option<File>, stream: Stream) -> Pumped {
    let room = journal.room();
    let Some(file) = pipe.as_mut().filter(|_| room > 0) else { return Pumped::Nothing };
    let mut buffer = [0; CHUNK_BYTES_MAX];
    match file.read(buffer.get_mut(..room).unwrap_or_default()) {
        Ok(0) => *pipe = None,
        Ok(length) => {
            report(journal.output(stream, sys::unix_ns(), buffer.get(..length).unwrap_or_default()));
            return if length == room { Pumped::Full } else { Pumped::Some };
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(_) => *pipe = None,
    }
    Pumped::Nothing
}

/// As wait(2) tells it.
pub fn exit_of(status: libc::c_int, oom_killed: bool) -> Exited {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        let code = 128 + signal;
        return Exited { code, signal: u8::try_from(signal).ok(), oom_killed, error: String::new() };
    }
    Exited { code: libc::WEXITSTATUS(status), signal: None, oom_killed, error: String::new() }
}

/// The first process of a namespace ends by one of these two signals only where one in it called reboot(2); others cannot
/// end it by them.
fn switch_off_reason(status: libc::c_int) -> Option<&'static str> {
    if !libc::WIFSIGNALED(status) {
        return None;
    }
    match libc::WTERMSIG(status) {
        libc::SIGHUP => Some("the container was restarted from inside (reboot)"),
        libc::SIGINT => Some("the container was switched off from inside (poweroff or halt)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reboot_is_told_from_a_signal() {
        assert!(switch_off_reason(libc::SIGHUP).unwrap().contains("reboot"));
        assert!(switch_off_reason(libc::SIGINT).unwrap().contains("poweroff"));
        assert_eq!(switch_off_reason(libc::SIGKILL), None);
        assert_eq!(switch_off_reason(1 << 8), None);
    }

    #[test]
    fn a_signal_counts_128_and_its_number() {
        assert_eq!(exit_of(7 << 8, false), Exited { code: 7, ..Exited::default() });
        let killed = exit_of(9, true);
        assert_eq!((killed.code, killed.signal, killed.oom_killed), (137, Some(9), true));
    }
}
