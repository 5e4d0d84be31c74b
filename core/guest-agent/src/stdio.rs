//! Where a process reads and writes: pipes of the agent, or a terminal of the container.

use crate::failure::{Doing, Failure};
use crate::report::{Born, Report};
use crate::sys;
use bulkhead_guest_protocol::message::{Stdio, TerminalSize};
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// So that a process goes on writing while output is gathered.
const PIPE_BYTES: libc::c_int = 256 * 1024;

/// The process's side, made before it is born.
#[derive(Debug)]
pub enum Theirs {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(TerminalSize),
}

/// The agent's side; nothing here blocks.
#[derive(Debug, Default)]
pub struct Ours {
    pub stdin: Option<File>,
    pub stdout: Option<File>,
    pub stderr: Option<File>,
    /// Input and output are a terminal's.
    pub is_terminal: bool,
}

pub fn make(stdio: Stdio) -> Result<(Ours, Theirs), Failure> {
    if let Some(size) = stdio.terminal {
        return Ok((Ours { is_terminal: true, ..Ours::default() }, Theirs::Terminal(size)));
    }
    let (stdout, stdout_end) = sys::pipe().doing("make a pipe")?;
    let (stderr, stderr_end) = sys::pipe().doing("make a pipe")?;
    let (stdin_end, stdin) = match stdio.stdin {
        true => sys::pipe().doing("make a pipe").map(|(read, write)| (Some(read), Some(write)))?,
        false => (None, None),
    };
    for end in [&stdout, &stderr].into_iter().chain(&stdin) {
        sys::set_nonblocking(end).doing("prepare a pipe")?;
    }
    for end in [&stdout, &stderr] {
        sys::set_pipe_size(end, PIPE_BYTES).doing("prepare a pipe")?;
    }
    let ours = Ours {
        stdin: stdin.map(File::from),
        stdout: Some(stdout.into()),
        stderr: Some(stderr.into()),
        is_terminal: false,
    };
    Ok((ours, Theirs::Pipes { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end }))
}

impl Ours {
    /// Takes the terminal that the process made, if it made one.
    pub fn complete(mut self, born: &mut Born, wants_input: bool) -> Result<Self, Failure> {
        if let Some(master) = born.terminal.take() {
            sys::set_nonblocking(&master).doing("prepare the terminal")?;
            if wants_input {
                self.stdin = Some(master.try_clone().doing("prepare the terminal")?.into());
            }
            self.stdout = Some(master.into());
        }
        Ok(self)
    }
}

/// In the process itself, in its own root: its three descriptors become what they should be.
pub fn place(theirs: &Theirs, report: &Report, is_first: bool) -> Result<(), Failure> {
    match theirs {
        Theirs::Pipes { stdin, stdout, stderr } => {
            let null = File::open("/dev/null").doing("open /dev/null")?;
            let input = stdin.as_ref().map_or(null.as_fd(), AsFd::as_fd);
            for (end, number) in [(input, 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)] {
                sys::replace_fd(end, number).doing("place the output")?;
            }
            Ok(())
        }
        Theirs::Terminal(size) => open_terminal(*size, report, is_first),
    }
}

fn open_terminal(size: TerminalSize, report: &Report, is_first: bool) -> Result<(), Failure> {
    let master =
        fs::OpenOptions::new().read(true).write(true).open("/dev/pts/ptmx").doing("open a terminal")?;
    let (terminal, number) = sys::terminal_peer(&master).doing("open a terminal")?;
    if size != TerminalSize::default() {
        sys::set_terminal_size(terminal.as_fd(), size.rows, size.columns).doing("size the terminal")?;
    }
    sys::control_terminal(terminal.as_fd()).doing("take the terminal")?;
    if is_first {
        let console = Path::new("/dev/console");
        File::create(console)
            .and_then(|_| sys::mount(&format!("/dev/pts/{number}"), console, "", libc::MS_BIND, ""))
            .doing("make /dev/console")?;
    }
    report.terminal(master.as_fd())?;
    for number in 0..3 {
        sys::replace_fd(terminal.as_fd(), number).doing("place the terminal")?;
    }
    Ok(())
}

/// A program may open its own terminal or pipes again by name, so they belong to its user.
pub fn give_to(uid: u32) {
    for fd in [0, 1, 2].map(|number: i32| format!("/proc/self/fd/{number}")) {
        // `/dev/null` may be read-only, and is everybody's.
        let is_null = fs::read_link(&fd).is_ok_and(|path| path == Path::new("/dev/null"));
        if !is_null {
            let _ = std::os::unix::fs::chown(&fd, Some(uid), None);
        }
    }
}

pub fn resize(terminal: &File, size: TerminalSize) -> std::io::Result<()> {
    sys::set_terminal_size(terminal.as_fd(), size.rows, size.columns)
}
