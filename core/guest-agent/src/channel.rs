//! The channel port: requests in, replies out, and a server that comes and goes.
//!
//! The port does not say that it was opened anew. When nobody is there, a read gives nothing and poll says so; then
//! half frames are worth nothing, nor are replies that nobody took.
//!
//! What a server writes and the word that it is there come to the kernel by different ways, and the word may be late. So
//! bytes that are followed by nobody may be those of a server whose coming is not known yet: the replies to them wait.

use bulkhead_guest_protocol::frame::{self, Decoder, Encoder};
use bulkhead_guest_protocol::message::{Event, NO_REPLY, Reply, ReplyBody, Request};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::sys;

/// The kernel gives a page at most at a time.
const READ_BYTES: usize = 4096;
/// Reads in one turn; the rest waits until other work had its own.
const READS_IN_TURN: usize = 16;
/// Replies that the server has not taken; they are small, and a server waits for them.
const UNSENT_BYTES_MAX: usize = 1 << 20;
/// With this much unsent, streams wait.
const CROWDED_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub struct Channel {
    port: File,
    decoder: Decoder,
    encoder: Encoder,
    unsent: Vec<u8>,
    state: State,
    /// Bytes came, and the kernel has not said since then that somebody is there.
    heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connected,
    /// Somebody has spoken, and may be there.
    Announced,
    Alone,
}

impl Channel {
    pub fn new(port: File) -> Self {
        Self {
            port,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            unsent: Vec::new(),
            state: State::Connected,
            heard: false,
        }
    }

    /// What to wait for; nothing while nobody is there, because poll would return at once.
    pub fn interest(&self) -> Option<libc::pollfd> {
        let writing = if self.unsent.is_empty() { 0 } else { libc::POLLOUT };
        self.is_connected().then_some(libc::pollfd {
            fd: self.port.as_raw_fd(),
            events: libc::POLLIN | writing,
            revents: 0,
        })
    }

    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whoever spoke is gone.
    pub fn is_alone(&self) -> bool {
        self.state == State::Alone
    }

    /// After a signal from the port: is somebody there again?
    pub fn look(&mut self) {
        if !self.is_connected() {
            let mut fds = [libc::pollfd { fd: self.port.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            sys::poll(&mut fds, 0);
            if fds.iter().all(|fd| fd.revents & libc::POLLHUP == 0) {
                self.state = State::Connected;
            }
        }
    }

    /// Takes what has arrived. That nobody is there any more counts only once that is dealt with.
    pub fn receive(&mut self) {
        let mut buffer = [0; READ_BYTES];
        for turn in 0..READS_IN_TURN {
            match self.port.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    self.heard = true;
                    self.decoder.push(buffer.get(..length).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.heard = false;
                    return;
                }
                Ok(_) | Err(_) if turn > 0 => return,
                Ok(_) | Err(_) => return self.hang_up(),
            }
        }
    }

    /// The next whole request. What cannot be understood is told on the console: there is no id to answer to.
    pub fn next_request(&mut self) -> Option<Request> {
        while let Some(payload) = self.decoder.next_frame() {
            match frame::decode(&payload) {
                Ok(request) => return Some(request),
                Err(error) => eprintln!("bulkhead agent: {error}"),
            }
        }
        None
    }

    /// A greeting begins a new conversation: what was not sent belongs to nobody.
    pub fn forget_unsent(&mut self) {
        self.unsent.clear();
    }

    pub fn reply(&mut self, id: u32, body: ReplyBody) {
        self.put(id, body);
        self.send();
    }

    pub fn event(&mut self, event: Event) {
        self.reply(NO_REPLY, ReplyBody::Event(event));
    }

    /// Sent with the next reply or event, or with [`Self::send`]: one write for many costs less.
    pub fn put_event(&mut self, event: Event) {
        self.put(NO_REPLY, ReplyBody::Event(event));
    }

    fn put(&mut self, id: u32, body: ReplyBody) {
        let before = self.unsent.len();
        match self.encoder.append(&Reply { id, body }, &mut self.unsent) {
            Ok(()) if self.unsent.len() <= UNSENT_BYTES_MAX => {}
            Ok(()) => {
                self.unsent.truncate(before);
                eprintln!("bulkhead agent: a reply is dropped, the server does not read");
            }
            Err(error) => eprintln!("bulkhead agent: {error}"),
        }
    }

    pub fn is_crowded(&self) -> bool {
        self.unsent.len() >= CROWDED_BYTES
    }

    /// Writes as much as the port takes.
    pub fn send(&mut self) {
        let mut sent = 0;
        while let Some(rest) = self.unsent.get(sent..).filter(|rest| self.is_connected() && !rest.is_empty())
        {
            match self.port.write(rest) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.unsent.drain(..sent);
    }

    /// Gives replies a last chance before the machine goes off.
    pub fn flush(&mut self, wait_max: Duration) {
        let start = Instant::now();
        while self.is_connected() && !self.unsent.is_empty() && start.elapsed() < wait_max {
            let mut fds = [libc::pollfd { fd: self.port.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
            sys::poll(&mut fds, 10);
            if fds.iter().any(|fd| fd.revents & libc::POLLHUP != 0) {
                return;
            }
            self.send();
        }
    }

    fn hang_up(&mut self) {
        self.decoder.reset();
        if std::mem::take(&mut self.heard) {
            self.state = State::Announced;
        } else {
            self.state = State::Alone;
            self.forget_unsent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_guest_protocol::message::RequestBody;
    use std::fs;

    fn signal(id: u32) -> Vec<u8> {
        frame::encode(&Request { id, body: RequestBody::Signal { number: 15 } }).unwrap()
    }

    #[test]
    fn what_was_said_before_leaving_is_heard() {
        let (read, write) = sys::pipe().unwrap();
        sys::set_nonblocking(&read).unwrap();
        let (mut channel, mut server) = (Channel::new(read.into()), File::from(write));
        let frames: Vec<u8> = (1..=500).flat_map(signal).collect();
        server.write_all(&frames).unwrap();
        drop(server);
        let mut ids = Vec::new();
        while channel.is_connected() {
            channel.receive();
            ids.extend(std::iter::from_fn(|| channel.next_request()).map(|request| request.id));
        }
        assert_eq!(ids, (1..=500).collect::<Vec<_>>());
    }

    /// A pipe without a writer stands for a port of which the kernel does not know yet that it was opened.
    #[test]
    fn a_server_is_answered_that_speaks_before_it_is_known_to_be_there() {
        let (read, write) = sys::pipe().unwrap();
        sys::set_nonblocking(&read).unwrap();
        let mut server = File::from(write);
        let port = format!("/proc/self/fd/{}", read.as_raw_fd());
        let mut channel = Channel::new(read.into());
        server.write_all(&signal(1)).unwrap();
        drop(server);
        channel.receive();
        assert_eq!(channel.next_request().unwrap().id, 1);
        // This end of the pipe takes none.
        channel.reply(1, ReplyBody::Done);
        channel.receive();
        assert!(!channel.is_connected() && !channel.is_alone() && !channel.unsent.is_empty());
        let server = fs::OpenOptions::new().write(true).open(port).unwrap();
        channel.look();
        channel.receive();
        assert!(channel.is_connected() && !channel.unsent.is_empty());
        // Known to be there, and gone: then nothing waits for whoever comes next.
        drop(server);
        channel.receive();
        assert!(channel.is_alone() && channel.unsent.is_empty());
    }
}
