//! Input of processes, and the processes beside the container's own with all their streams.
//!
//! A process that does not read, or whose output nobody takes, holds up only itself: input waits here, at most one
//! window of it, and output stays in its pipe while there is no credit.

use crate::process::Spawned;
use crate::{stdio, sys};
use bulkhead_guest_protocol::journal::{Exited, Stream};
use bulkhead_guest_protocol::message::{DATA_BYTES_MAX, Event, INPUT_WINDOW, TerminalSize, output_cost};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A process may leave children that keep its output open; this long after its end they are not listened to any more.
const OUTPUT_AFTER_END_MAX: Duration = Duration::from_secs(2);
/// Reads of one stream, and bytes, before another has its turn.
const READS_IN_TURN: usize = 8;
pub const TURN_BYTES: usize = 256 << 10;
/// With so much in a turn, a stream is no dialogue.
const MUCH_BYTES: usize = 8 << 10;

/// Input of one process.
#[derive(Debug, Default)]
pub struct Input {
    sink: Option<File>,
    waiting: VecDeque<u8>,
    /// Of what waits, this much came from a server that is gone: the next one did not count it.
    foreign: usize,
    /// Close it when all that waits is written; a terminal has no such end.
    ends: bool,
    is_terminal: bool,
}

impl Input {
    pub fn new(sink: Option<File>, is_terminal: bool) -> Self {
        Self { sink, is_terminal, ..Self::default() }
    }

    /// What does not fit the window was not asked for and is dropped.
    pub fn push(&mut self, data: &[u8]) {
        let window = usize::try_from(INPUT_WINDOW).unwrap_or(0);
        let room = (window + self.foreign).saturating_sub(self.waiting.len());
        // A slice is copied as a whole, an iterator byte by byte.
        self.waiting.extend(data.get(..room).unwrap_or(data));
    }

    /// Another server begins with a whole window.
    pub fn begin_window(&mut self) {
        self.foreign = self.waiting.len();
    }

    pub fn end(&mut self) {
        self.ends |= !self.is_terminal;
    }

    pub fn interest(&self) -> Option<libc::pollfd> {
        let sink = self.sink.as_ref().filter(|_| !self.waiting.is_empty())?;
        Some(libc::pollfd { fd: sink.as_raw_fd(), events: libc::POLLOUT, revents: 0 })
    }

    /// Writes what the process takes. Gives how many bytes of this server are out of the way.
    pub fn pump(&mut self) -> u32 {
        let before = self.waiting.len();
        while !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            match self.sink.as_mut().map(|sink| sink.write(front)) {
                Some(Ok(length)) if length > 0 => drop(self.waiting.drain(..length)),
                Some(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => break,
                // Nobody reads it any more.
                Some(_) | None => {
                    self.sink = None;
                    self.waiting.clear();
                }
            }
        }
        if self.ends && self.waiting.is_empty() {
            self.sink = None;
        }
        let taken = before - self.waiting.len();
        let foreign = taken.min(self.foreign);
        self.foreign -= foreign;
        u32::try_from(taken - foreign).unwrap_or(u32::MAX)
    }
}

/// A process beside the container's own.
#[derive(Debug)]
pub struct Beside {
    pub stream: u32,
    pub pid: libc::pid_t,
    /// As of wait(2), and when.
    pub ended: Option<(libc::c_int, Instant)>,
    pub input: Input,
    stdout: Option<File>,
    stderr: Option<File>,
    is_terminal: bool,
    credit: u32,
    /// Nobody listens: output is read and thrown away.
    left: bool,
    /// Done for whoever listens, and for nobody else.
    is_task: bool,
    /// Much came at once: what follows is left together for a moment, since each look at it costs.
    gathering: bool,
}

impl Beside {
    pub fn new(stream: u32, spawned: Spawned, credit: u32) -> Self {
        let Spawned { pid, stdio } = spawned;
        Self {
            stream,
            pid,
            ended: None,
            input: Input::new(stdio.stdin, stdio.is_terminal),
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            is_terminal: stdio.is_terminal,
            credit,
            left: false,
            is_task: false,
            gathering: false,
        }
    }

    /// Work of the agent's own.
    pub fn task(stream: u32, spawned: Spawned, credit: u32) -> Self {
        Self { is_task: true, ..Self::new(stream, spawned, credit) }
    }

    pub fn add_credit(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes);
    }

    /// Its input ends with whoever wrote it.
    /// Its children, if it has any, go on.
    pub fn kill(&self) -> std::io::Result<()> {
        if self.ended.is_some() { Ok(()) } else { sys::kill(self.pid, libc::SIGKILL) }
    }

    pub fn leave(&mut self) {
        self.left = true;
        self.input.end();
        if self.is_task && self.ended.is_none() {
            // One that has just ended does not mind.
            let _ = crate::sys::kill(self.pid, libc::SIGKILL);
        }
    }

    pub fn resize(&self, size: TerminalSize) -> std::io::Result<()> {
        match self.stdout.as_ref().filter(|_| self.is_terminal) {
            Some(terminal) => stdio::resize(terminal, size),
            None => Err(std::io::Error::from_raw_os_error(libc::ENOTTY)),
        }
    }

    /// Whether output may be taken now.
    fn listens(&self) -> bool {
        self.left || self.credit >= output_cost(1)
    }

    pub fn is_gathering(&self) -> bool {
        self.gathering && self.listens()
    }

    pub fn interest(&self) -> Vec<libc::pollfd> {
        let waits = self.listens() && !self.gathering;
        let pipes = [&self.stdout, &self.stderr].into_iter().flatten().filter(|_| waits);
        let output =
            pipes.map(|pipe| libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        output.chain(self.input.interest()).collect()
    }

    /// Reads what there is and may be told. What is read goes through `buffer`, which is as long as a turn may be.
    pub fn pump(&mut self, buffer: &mut [u8], mut tell: impl FnMut(Event)) {
        let stream = self.stream;
        let mut came = 0;
        for (pipe, of) in [(&mut self.stdout, Stream::Stdout), (&mut self.stderr, Stream::Stderr)] {
            for _ in 0..READS_IN_TURN {
                let room = if self.left { buffer.len() } else { room(self.credit).min(buffer.len()) };
                let Some(file) = pipe.as_mut().filter(|_| room > 0) else { break };
                match file.read(buffer.get_mut(..room).unwrap_or_default()) {
                    Ok(0) => *pipe = None,
                    Ok(length) if !self.left => {
                        came += length;
                        for piece in buffer.get(..length).unwrap_or_default().chunks(DATA_BYTES_MAX) {
                            self.credit = self.credit.saturating_sub(output_cost(piece.len()));
                            tell(Event::Output { stream, of, data: piece.to_vec() });
                        }
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // A terminal that no process has open any more.
                    Err(_) => *pipe = None,
                }
                if came >= TURN_BYTES {
                    break;
                }
            }
        }
        self.gathering = came >= MUCH_BYTES && self.ended.is_none();
        let bytes = self.input.pump();
        if bytes > 0 && !self.left {
            tell(Event::InputTaken { stream, bytes });
        }
        if self.ended.is_some_and(|(_, at)| at.elapsed() > OUTPUT_AFTER_END_MAX) && self.listens() {
            (self.stdout, self.stderr) = (None, None);
        }
    }

    /// How it ended, once all is told.
    pub fn outcome(&self) -> Option<Exited> {
        let (status, _) = self.ended?;
        (self.stdout.is_none() && self.stderr.is_none()).then(|| crate::running::exit_of(status, false))
    }

    pub fn is_ending(&self) -> bool {
        self.ended.is_some()
    }
}

/// How much a credit pays for, in whatever pieces it comes.
fn room(credit: u32) -> usize {
    if credit < output_cost(1) {
        return 0;
    }
    match usize::try_from(credit).unwrap_or(usize::MAX) {
        credit @ ..=DATA_BYTES_MAX => credit,
        // A short piece at the end costs more than its bytes, but never more than a whole one.
        credit => credit - credit % DATA_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (File, File) {
        let (read, write) = sys::pipe().unwrap();
        sys::set_nonblocking(&read).unwrap();
        sys::set_nonblocking(&write).unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn input_waits_for_its_process_and_then_ends() {
        let (mut read, write) = pipe();
        let mut input = Input::new(Some(write), false);
        let mut sent = 0;
        let mut taken = 0;
        while input.interest().is_none() {
            input.push(&[7; 1000]);
            sent += 1000;
            taken += input.pump();
        }
        input.end();
        assert_eq!(input.pump(), 0);
        let mut all = Vec::new();
        while read.read_to_end(&mut all).is_err() {
            taken += input.pump();
        }
        assert_eq!((all.len(), taken), (sent, u32::try_from(sent).unwrap()));
    }

    #[test]
    fn input_that_nobody_reads_is_out_of_the_way() {
        let (read, write) = pipe();
        drop(read);
        let mut input = Input::new(Some(write), false);
        input.push(b"abc");
        assert_eq!(input.pump(), 3);
        input.push(&[0; 1 << 20]);
        assert_eq!(input.pump(), INPUT_WINDOW);
    }

    #[test]
    fn output_stops_where_the_credit_ends() {
        let ((read, mut write), (none, _)) = (pipe(), pipe());
        let stdio = stdio::Ours { stdin: None, stdout: Some(read), stderr: Some(none), is_terminal: false };
        let mut beside = Beside::new(3, Spawned { pid: 1, stdio }, 1000);
        write.write_all(&[1; 1500]).unwrap();
        drop(write);
        let (mut got, mut buffer) = (0, vec![0; TURN_BYTES]);
        let mut count = |event| {
            if let Event::Output { data, stream: 3, of: Stream::Stdout } = event {
                got += data.len();
            }
        };
        beside.pump(&mut buffer, &mut count);
        beside.pump(&mut buffer, &mut count);
        beside.ended = Some((0, Instant::now()));
        assert_eq!(beside.outcome(), None);
        beside.add_credit(256);
        beside.pump(&mut buffer, &mut count);
        // The end, too, is seen only with credit left.
        beside.add_credit(600);
        beside.pump(&mut buffer, &mut count);
        assert_eq!(got, 1500);
        assert_eq!(beside.outcome(), Some(Exited::default()));
    }

    #[test]
    fn what_is_read_costs_no_more_than_there_is() {
        let most = u32::try_from(DATA_BYTES_MAX).unwrap();
        for credit in [0, 1, 255, 256, 300, most - 1, most, most + 1, 2 * most - 1, 3 * most + 300] {
            for length in [room(credit), room(credit).saturating_sub(1), room(credit) / 2 + 1] {
                let length = length.min(room(credit));
                let cost =
                    vec![0; length].chunks(DATA_BYTES_MAX).map(|piece| output_cost(piece.len())).sum::<u32>();
                assert!(cost <= credit, "{length} bytes of {credit} cost {cost}");
            }
        }
        assert_eq!((room(255), room(256)), (0, 256));
    }

    #[test]
    fn much_at_once_is_gathered_until_the_end() {
        let ((read, mut write), (none, _)) = (pipe(), pipe());
        let stdio = stdio::Ours { stdin: None, stdout: Some(read), stderr: Some(none), is_terminal: false };
        let mut beside = Beside::new(3, Spawned { pid: 1, stdio }, 1 << 20);
        let mut buffer = vec![0; TURN_BYTES];
        write.write_all(b"a word").unwrap();
        beside.pump(&mut buffer, |_| {});
        assert!(!beside.is_gathering() && beside.interest().len() == 1);
        write.write_all(&[1; MUCH_BYTES]).unwrap();
        beside.pump(&mut buffer, |_| {});
        assert!(beside.is_gathering() && beside.interest().is_empty());
        write.write_all(&[1; MUCH_BYTES]).unwrap();
        beside.ended = Some((0, Instant::now()));
        beside.pump(&mut buffer, |_| {});
        assert!(!beside.is_gathering(), "its end is waited for");
    }
}
