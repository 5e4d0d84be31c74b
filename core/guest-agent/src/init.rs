//! `docker run --init`: a first process that reaps orphans and passes signals on, with the container's own as its child.
//!
//! It is the agent's program, run anew: a mere fork would keep the agent's memory, and the machine's token in it, within
//! reach of the container's user.

use crate::failure::{Doing, Failure, reason};
use crate::sys;
use std::fs::File;

/// As Docker calls its own.
const NAME: &str = "/sbin/docker-init";
/// Tells the child's number across the exec.
const CHILD: &str = "INIT_CHILD";

/// The program to become, opened while the agent's files can be seen.
pub fn open() -> Result<File, Failure> {
    File::open("/proc/self/exe").doing("open the agent's program")
}

/// Makes a child that goes on as the container's process, and becomes its parent for good: returns in the child, or with
/// what went wrong.
pub fn become_parent(program: &File, args: &[String]) -> Result<(), Failure> {
    // From here on, so that the end of a quick child is not missed.
    sys::block_signals().doing("hold signals back")?;
    let Some(child) = sys::clone(0).doing("make a process")? else {
        return sys::lead_foreground().doing("lead the terminal");
    };
    let words: Vec<String> =
        [NAME, "--"].map(str::to_owned).into_iter().chain(args.iter().cloned()).collect();
    let error = sys::exec_open(program, &words, &[format!("{CHILD}={child}")]);
    Err(Failure::internal(format!("exec {NAME}: {}", reason(&error))))
}

/// Whether this is such a process, and not the agent.
pub fn is_meant() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Ends as the child does.
pub fn run() -> ! {
    let child = std::env::var(CHILD).ok().and_then(|number| number.parse().ok()).unwrap_or(0);
    // Only for those who look at it.
    let _ = sys::set_process_name(c"docker-init");
    loop {
        match sys::next_signal() {
            Ok(libc::SIGCHLD) => {
                while let Some((pid, status)) = sys::reap() {
                    if pid == child {
                        sys::exit_now(code_of(status));
                    }
                }
            }
            // A child that is over by now is reaped next.
            Ok(signal) if child > 0 => drop(sys::kill(child, signal)),
            _ => {}
        }
    }
}

fn code_of(status: libc::c_int) -> libc::c_int {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_as_its_child() {
        assert_eq!(code_of(7 << 8), 7);
        assert_eq!(code_of(libc::SIGTERM), 143);
        assert!(!is_meant());
    }
}
