//! QEMU's control socket: JSON lines (QEMU Machine Protocol specification).
//!
//! **Invariant:** a QEMU that its guest took over is a hostile peer; a line is bounded and anything unexpected ends the
//! connection, nothing else.

use crate::record::MachineFolder;
use crate::watch::connect;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// The longest line is the console's 64 KiB as JSON, every byte escaped.
const LINE_BYTES_MAX: usize = 1 << 19;
/// Of those that nobody has asked for yet.
const EVENTS_KEPT: usize = 64;

#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    Greeting,
    Event {
        name: String,
        data: Value,
    },
    /// The answer to the command of this id; an error is `None`.
    Answer {
        id: u64,
        value: Option<Value>,
    },
}

impl Qmp {
    /// Commands are accepted after the greeting was answered with `qmp_capabilities`.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, id: u64, command: &str, arguments: Value) -> io::Result<()> {
        let mut line = json!({ "execute": command, "id": id });
        if let (Some(line), false) = (line.as_object_mut(), arguments.is_null()) {
            line.insert("arguments".into(), arguments);
        }
        self.stream.write_all(format!("{line}\n").as_bytes()).await
    }

    /// As [`Qmp::send`], with a descriptor for QEMU beside it.
    pub(crate) async fn send_with(
        &mut self,
        id: u64,
        command: &str,
        arguments: Value,
        fd: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let line = format!("{}\n", json!({ "execute": command, "id": id, "arguments": arguments }));
        let fds = [fd.as_raw_fd()];
        let sent = loop {
            self.stream.writable().await?;
            let passed = [ControlMessage::ScmRights(&fds)];
            let send = || {
                let pieces = [io::IoSlice::new(line.as_bytes())];
                let socket = self.stream.as_raw_fd();
                Ok(sendmsg::<()>(
                    socket,
                    &pieces,
                    &passed,
                    MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
                    None,
                )?)
            };
            match self.stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => break other?,
            }
        };
        // The descriptor went with the first byte.
        self.stream.write_all(line.as_bytes().get(sent..).unwrap_or_default()).await
    }

    /// The next message. May be dropped at any time: nothing is lost.
    pub(crate) async fn receive(&mut self) -> io::Result<Message> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return parse(&line);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the hypervisor sent an endless line",
                ));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A conversation in which one command follows another. QEMU speaks with one client at a time, so whoever holds this
/// keeps others waiting.
#[derive(Debug)]
pub(crate) struct Talk {
    qmp: Qmp,
    last: u64,
    /// Told while an answer was waited for.
    events: VecDeque<(String, Value)>,
}

impl Talk {
    /// With the QEMU of a machine.
    pub(crate) async fn begin(folder: &MachineFolder) -> io::Result<Self> {
        let mut qmp = Qmp::new(connect(folder, "qmp.sock").await?);
        while qmp.receive().await? != Message::Greeting {}
        let mut talk = Self { qmp, last: 0, events: VecDeque::new() };
        talk.call("qmp_capabilities", Value::Null).await?;
        Ok(talk)
    }

    pub(crate) async fn call(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        self.last += 1;
        self.qmp.send(self.last, command, arguments).await?;
        self.answer(command).await
    }

    /// As [`Talk::call`], with a descriptor for QEMU.
    pub(crate) async fn call_with(
        &mut self,
        command: &str,
        arguments: Value,
        fd: BorrowedFd<'_>,
    ) -> io::Result<Value> {
        self.last += 1;
        self.qmp.send_with(self.last, command, arguments, fd).await?;
        self.answer(command).await
    }

    async fn answer(&mut self, command: &str) -> io::Result<Value> {
        loop {
            match self.qmp.receive().await? {
                Message::Answer { id, value } if id == self.last => {
                    let refused = || io::Error::other(format!("the hypervisor refuses `{command}`"));
                    return value.ok_or_else(refused);
                }
                Message::Event { name, data } => {
                    self.events.push_back((name, data));
                    self.events.truncate(EVENTS_KEPT);
                }
                Message::Greeting | Message::Answer { .. } => {}
            }
        }
    }

    /// Waits for an event of that name, which may have been told already.
    pub(crate) async fn event(&mut self, wanted: &str) -> io::Result<Value> {
        while let Some((name, data)) = self.events.pop_front() {
            if name == wanted {
                return Ok(data);
            }
        }
        loop {
            match self.qmp.receive().await? {
                Message::Event { name, data } if name == wanted => return Ok(data),
                Message::Greeting | Message::Event { .. } | Message::Answer { .. } => {}
            }
        }
    }
}

fn parse(line: &[u8]) -> io::Result<Message> {
    let mut message: Value = serde_json::from_slice(line)?;
    if message.get("QMP").is_some() {
        return Ok(Message::Greeting);
    }
    if let Some(name) = message.get("event").and_then(Value::as_str) {
        let name = name.to_owned();
        let data = message.get_mut("data").map(Value::take).unwrap_or_default();
        return Ok(Message::Event { name, data });
    }
    match message.get("id").and_then(Value::as_u64) {
        Some(id) => Ok(Message::Answer { id, value: message.get_mut("return").map(Value::take) }),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the hypervisor sent something unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        assert_eq!(parse(br#"{"QMP": {"version": {}}}"#).unwrap(), Message::Greeting);
        assert_eq!(
            parse(br#"{"event": "SHUTDOWN", "data": {"guest": true}, "timestamp": {}}"#).unwrap(),
            Message::Event { name: "SHUTDOWN".into(), data: json!({"guest": true}) }
        );
        assert_eq!(
            parse(br#"{"return": {}, "id": 3}"#).unwrap(),
            Message::Answer { id: 3, value: Some(json!({})) }
        );
        assert_eq!(
            parse(br#"{"error": {"class": "GenericError"}, "id": 4}"#).unwrap(),
            Message::Answer { id: 4, value: None }
        );
        for strange in ["{}", "[]", "7", "{\"id\":\"x\"}", "not json"] {
            assert!(parse(strange.as_bytes()).is_err(), "{strange}");
        }
    }

    #[tokio::test]
    async fn an_endless_line_ends_the_connection() {
        let (own, mut peer) = UnixStream::pair().unwrap();
        let mut qmp = Qmp::new(own);
        let flood = async {
            let junk = [b'x'; 64 * 1024];
            while peer.write_all(&junk).await.is_ok() {}
        };
        let receive = async {
            let error = qmp.receive().await.unwrap_err();
            drop(qmp);
            error
        };
        let ((), error) = tokio::join!(flood, receive);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
