//! What a process-to-be tells the agent, over a socket that closes when it has become its program.

use crate::failure::{Doing, Failure};
use crate::sys;
use std::os::fd::{BorrowedFd, OwnedFd};

const MESSAGE_BYTES_MAX: usize = 4096;

/// The agent's end.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// The end of the process-to-be.
#[derive(Debug)]
pub struct Report(OwnedFd);

/// What it came to.
#[derive(Debug, Default)]
pub struct Born {
    /// Of the process, where it is not the one that was cloned.
    pub pid: Option<libc::pid_t>,
    /// The side of its terminal that is not its own.
    pub terminal: Option<OwnedFd>,
}

pub fn pair() -> Result<(Listener, Report), Failure> {
    let (ours, theirs) = sys::message_pair().doing("make a socket")?;
    Ok((Listener(ours), Report(theirs)))
}

impl Report {
    pub fn pid(&self, pid: libc::pid_t) -> Result<(), Failure> {
        let text = format!("pid {pid}");
        sys::send_message(&self.0, text.as_bytes(), None).doing("tell the process's number")
    }

    pub fn terminal(&self, master: BorrowedFd<'_>) -> Result<(), Failure> {
        sys::send_message(&self.0, b"terminal ", Some(master)).doing("hand the terminal over")
    }

    /// If not even this can be told, the agent sees an end without a reason.
    pub fn failure(&self, failure: &Failure) {
        let mut text = format!("{} {}", failure.code, failure.message).into_bytes();
        text.truncate(MESSAGE_BYTES_MAX);
        let _ = sys::send_message(&self.0, &text, None);
    }
}

impl Listener {
    /// Returns when the program runs, or says why it does not.
    pub fn hear(self) -> Result<Born, Failure> {
        let mut born = Born::default();
        loop {
            let (bytes, fd) =
                sys::receive_message(&self.0, MESSAGE_BYTES_MAX).doing("hear from the process")?;
            let text = String::from_utf8_lossy(&bytes);
            match text.split_once(' ') {
                None => return Ok(born),
                Some(("pid", number)) => born.pid = number.parse().ok(),
                Some(("terminal", _)) => born.terminal = fd,
                Some((code, message)) => {
                    return Err(match code.parse() {
                        Ok(code) => Failure::new(code, message),
                        Err(_) => Failure::internal(text),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn silence_means_that_it_runs() {
        let (listener, report) = pair().unwrap();
        let (pipe, _) = sys::pipe().unwrap();
        report.pid(7).unwrap();
        report.terminal(pipe.as_fd()).unwrap();
        drop(report);
        let born = listener.hear().unwrap();
        assert_eq!(born.pid, Some(7));
        assert!(born.terminal.is_some());
    }

    #[test]
    fn a_failure_comes_with_its_code() {
        let (listener, report) = pair().unwrap();
        report.failure(&Failure::new(126, "permission denied"));
        drop(report);
        assert_eq!(listener.hear().unwrap_err(), Failure::new(126, "permission denied"));
    }
}
