//! Interfaces that come to a running machine and go from it, and memory that comes to it.
//!
//! ```text
//!   plug:    getfd (the tap) ─▶ netdev_add ─▶ device_add, on a port that is empty
//!   unplug:  device_del ─▶ the guest lets go: DEVICE_DELETED ─▶ netdev_del
//!   grow:    query-memory-devices ─▶ object-del (of a try that was cut off) ─▶ object-add ─▶ device_add
//! ```
//!
//! Memory that is there stays: a guest gives none back. So what is plugged is what was asked for, in whole blocks of the
//! guest's kernel, and never memory in reserve, which a guest could use unasked.
//!
//! One change at a time. What a change leaves behind when it fails is taken back.

use crate::plan::{MEMORY_BLOCK_BYTES, MEMORY_SLOTS};
use crate::qmp::{Message, Qmp};
use crate::watch::command;
use bulkhead_model::network::MacAddress;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

const SEND_DEADLINE: Duration = Duration::from_secs(2);

/// What is to be done, and who waits for it.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) what: What,
    pub(crate) done: oneshot::Sender<io::Result<Modules>>,
}

/// Sizes of the memory modules that the machine has by now, in bytes; told where memory was asked for.
pub(crate) type Modules = Vec<u64>;

#[derive(Debug)]
pub(crate) enum What {
    /// Onto this port.
    Plug {
        port: usize,
        mac: MacAddress,
        tap: File,
    },
    Unplug {
        port: usize,
    },
    /// Until all modules together hold so much, or a little more.
    Grow {
        bytes: u64,
    },
}

/// The change that is going on.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    current: Option<Current>,
    /// Numbers of commands that were sent.
    last: u64,
}

#[derive(Debug)]
struct Current {
    change: Change,
    step: Step,
    /// Whose answer is waited for.
    waits_for: u64,
    failure: Option<&'static str>,
    modules: Modules,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    HandOver,
    AddNetdev,
    AddDevice,
    RemoveDevice,
    /// Until the guest has let go.
    AwaitRemoval,
    RemoveNetdev,
    ListModules,
    ClearBackend,
    AddBackend,
    AddModule,
    RemoveBackend,
    Over,
}

impl Changes {
    /// Whether the next one has to wait. One that nobody waits for any more does not count.
    pub(crate) fn is_busy(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.change.done.is_closed())
    }

    pub(crate) async fn begin(&mut self, change: Change, qmp: &mut Option<Qmp>) {
        let step = match change.what {
            What::Plug { .. } => Step::HandOver,
            What::Unplug { .. } => Step::RemoveDevice,
            What::Grow { .. } => Step::ListModules,
        };
        self.current = Some(Current { change, step, waits_for: 0, failure: None, modules: Vec::new() });
        self.send(qmp).await;
    }

    pub(crate) async fn heard(&mut self, message: &Message, qmp: &mut Option<Qmp>) {
        let Some(current) = &mut self.current else { return };
        match message {
            Message::Answer { id, value } if *id == current.waits_for => {
                current.next(value.as_ref());
            }
            Message::Event { name, data }
                if name == "DEVICE_DELETED" && current.step == Step::AwaitRemoval =>
            {
                if data.get("device") != Some(&Value::from(nic_name(current.port()))) {
                    return;
                }
                current.step = Step::RemoveNetdev;
            }
            Message::Greeting | Message::Event { .. } | Message::Answer { .. } => return,
        }
        match self.current.as_ref().map(|current| current.step) {
            Some(Step::AwaitRemoval) | None => {}
            Some(Step::Over) => self.finish(),
            Some(_) => self.send(qmp).await,
        }
    }

    /// The hypervisor does not answer any more.
    pub(crate) fn give_up(&mut self) {
        if let Some(current) = &mut self.current {
            current.failure = Some("the hypervisor does not answer");
        }
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(current) = self.current.take() {
            let outcome = current.failure.map_or(Ok(current.modules), |why| Err(io::Error::other(why)));
            // Nobody waiting is fine: the next look finds out.
            let _ = current.change.done.send(outcome);
        }
    }

    async fn send(&mut self, qmp: &mut Option<Qmp>) {
        let Some(current) = &mut self.current else { return };
        self.last += 1;
        current.waits_for = command::CHANGES + self.last;
        let sent = match qmp {
            Some(qmp) => timeout(SEND_DEADLINE, current.send(qmp)).await.map_err(io::Error::from).flatten(),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if sent.is_err() {
            self.give_up();
        }
    }
}

impl Current {
    fn port(&self) -> usize {
        match self.change.what {
            What::Plug { port, .. } | What::Unplug { port } => port,
            What::Grow { .. } => 0,
        }
    }

    fn next(&mut self, answer: Option<&Value>) {
        self.step = match (self.step, answer.is_some()) {
            (Step::HandOver, true) => Step::AddNetdev,
            (Step::AddNetdev, true) => Step::AddDevice,
            (Step::AddDevice, true) | (Step::RemoveNetdev | Step::RemoveBackend | Step::Over, _) => {
                Step::Over
            }
            // It was not there: neither is what it stood on, perhaps.
            (Step::RemoveDevice, false) => Step::RemoveNetdev,
            (Step::RemoveDevice, true) => Step::AwaitRemoval,
            (Step::AddDevice, false) => {
                self.failure = Some("the hypervisor takes no further interface");
                Step::RemoveNetdev
            }
            (Step::HandOver | Step::AddNetdev, false) => {
                self.failure = Some("the hypervisor does not take the tap");
                Step::Over
            }
            (Step::AwaitRemoval, _) => Step::AwaitRemoval,
            (Step::ListModules, _) => self.listed(answer),
            (Step::ClearBackend, _) => Step::AddBackend,
            (Step::AddBackend, true) => Step::AddModule,
            (Step::AddBackend, false) => {
                self.failure = Some("the hypervisor has no more memory");
                Step::Over
            }
            (Step::AddModule, true) => {
                self.modules.push(self.missing());
                Step::Over
            }
            (Step::AddModule, false) => {
                self.failure = Some("the hypervisor takes no further memory module");
                Step::RemoveBackend
            }
        };
    }

    fn listed(&mut self, answer: Option<&Value>) -> Step {
        let size = |module: &Value| module.pointer("/data/size").and_then(Value::as_u64);
        let sizes = answer.and_then(Value::as_array).map(|modules| modules.iter().filter_map(size).collect());
        let Some(sizes) = sizes else {
            self.failure = Some("the hypervisor does not tell what memory it has");
            return Step::Over;
        };
        self.modules = sizes;
        if self.missing() == 0 {
            return Step::Over;
        }
        if self.modules.len() >= MEMORY_SLOTS {
            self.failure = Some("all places for memory modules are taken");
            return Step::Over;
        }
        Step::ClearBackend
    }

    /// Bytes of the module that it takes.
    fn missing(&self) -> u64 {
        match self.change.what {
            What::Grow { bytes } => {
                bytes.saturating_sub(self.modules.iter().sum()).next_multiple_of(MEMORY_BLOCK_BYTES)
            }
            What::Plug { .. } | What::Unplug { .. } => 0,
        }
    }

    async fn send(&self, qmp: &mut Qmp) -> io::Result<()> {
        let port = self.port();
        let (net, nic, tap) = (format!("net{port}"), nic_name(port), format!("tap{port}"));
        let place = self.modules.len() + 1;
        let memory = format!("memory{place}");
        let id = self.waits_for;
        match (self.step, &self.change.what) {
            (Step::HandOver, What::Plug { tap: file, .. }) => {
                qmp.send_with(id, "getfd", json!({ "fdname": tap }), file.as_fd()).await
            }
            (Step::AddNetdev, _) => {
                qmp.send(id, "netdev_add", json!({ "type": "tap", "id": net, "fd": tap })).await
            }
            (Step::AddDevice, What::Plug { mac, .. }) => {
                let device = json!({
                    "driver": "virtio-net-pci", "id": nic, "netdev": net, "mac": mac.to_string(),
                    "bus": format!("rp{port}"), "romfile": "",
                });
                qmp.send(id, "device_add", device).await
            }
            (Step::RemoveDevice, _) => qmp.send(id, "device_del", json!({ "id": nic })).await,
            (Step::RemoveNetdev, _) => qmp.send(id, "netdev_del", json!({ "id": net })).await,
            (Step::ListModules, _) => qmp.send(id, "query-memory-devices", Value::Null).await,
            (Step::ClearBackend | Step::RemoveBackend, _) => {
                qmp.send(id, "object-del", json!({ "id": memory })).await
            }
            (Step::AddBackend, _) => {
                let backend = json!({
                    "qom-type": "memory-backend-memfd", "id": memory, "size": self.missing(), "share": true,
                });
                qmp.send(id, "object-add", backend).await
            }
            (Step::AddModule, _) => {
                let module = json!({ "driver": "pc-dimm", "id": format!("dimm{place}"), "memdev": memory });
                qmp.send(id, "device_add", module).await
            }
            (Step::HandOver | Step::AddDevice | Step::AwaitRemoval | Step::Over, _) => Ok(()),
        }
    }
}

fn nic_name(port: usize) -> String {
    format!("nic{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::UnixStream;

    /// Plays QEMU: says yes, but for `fails`, has a module of 128 MiB, and tells what it was asked.
    async fn play(what: What, fails: &str) -> (Vec<String>, io::Result<Modules>) {
        let (own, peer) = UnixStream::pair().unwrap();
        let mut qmp = Some(Qmp::new(own));
        let (done, outcome) = oneshot::channel();
        let mut changes = Changes::default();
        changes.begin(Change { what, done }, &mut qmp).await;
        let (reader, mut writer) = peer.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut asked = Vec::new();
        while changes.current.is_some() {
            let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
            let command = line["execute"].as_str().unwrap().to_owned();
            let answer = match command == fails {
                true => json!({"error": {"class": "GenericError"}, "id": line["id"]}),
                false if command == "query-memory-devices" => {
                    json!({"return": [{"type": "dimm", "data": {"size": MEMORY_BLOCK_BYTES}}], "id": line["id"]})
                }
                false => json!({"return": {}, "id": line["id"]}),
            };
            let mut said = format!("{answer}\n");
            if command == "device_del" && command != fails {
                said += &format!("{}\n", json!({"event": "DEVICE_DELETED", "data": {"device": "nic3"}}));
            }
            asked.push(command);
            let messages = said.lines().count();
            writer.write_all(said.as_bytes()).await.unwrap();
            for _ in 0..messages {
                let message = qmp.as_mut().unwrap().receive().await.unwrap();
                changes.heard(&message, &mut qmp).await;
            }
        }
        (asked, outcome.await.unwrap())
    }

    fn plug() -> What {
        What::Plug { port: 3, mac: MacAddress([2, 0, 0, 0, 0, 1]), tap: File::open("/dev/null").unwrap() }
    }

    #[tokio::test]
    async fn an_interface_comes_and_goes() {
        let (asked, outcome) = play(plug(), "").await;
        assert_eq!(asked, ["getfd", "netdev_add", "device_add"]);
        outcome.unwrap();
        let (asked, outcome) = play(What::Unplug { port: 3 }, "").await;
        assert_eq!(asked, ["device_del", "netdev_del"]);
        outcome.unwrap();
    }

    #[tokio::test]
    async fn what_fails_is_taken_back_and_told() {
        let (asked, outcome) = play(plug(), "device_add").await;
        assert_eq!(asked, ["getfd", "netdev_add", "device_add", "netdev_del"]);
        assert!(outcome.is_err());
        let (asked, outcome) = play(plug(), "getfd").await;
        assert_eq!(asked, ["getfd"]);
        assert!(outcome.is_err());
        // An interface that is gone is what was wanted.
        let (asked, outcome) = play(What::Unplug { port: 3 }, "device_del").await;
        assert_eq!(asked, ["device_del", "netdev_del"]);
        outcome.unwrap();
    }

    #[tokio::test]
    async fn memory_comes_in_whole_blocks_and_once() {
        const MIB: u64 = 1 << 20;
        let (asked, outcome) = play(What::Grow { bytes: 300 * MIB }, "object-del").await;
        assert_eq!(asked, ["query-memory-devices", "object-del", "object-add", "device_add"]);
        assert_eq!(outcome.unwrap(), [128 * MIB, 256 * MIB]);
        // It has as much.
        let (asked, outcome) = play(What::Grow { bytes: 128 * MIB }, "").await;
        assert_eq!(asked, ["query-memory-devices"]);
        assert_eq!(outcome.unwrap(), [128 * MIB]);
        let (asked, outcome) = play(What::Grow { bytes: 300 * MIB }, "device_add").await;
        assert_eq!(asked[2..], ["object-add", "device_add", "object-del"]);
        assert!(outcome.is_err());
        let (asked, outcome) = play(What::Grow { bytes: 300 * MIB }, "object-add").await;
        assert_eq!(asked.len(), 3);
        assert!(outcome.is_err());
    }
}
