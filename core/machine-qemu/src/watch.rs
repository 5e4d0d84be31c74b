//! One task for each running machine: it waits for the process's end, listens to QEMU, and ends the machine when told.
//!
//! Why a machine ended is said by QEMU in an event just before it exits. If no server listened, the process is simply
//! gone; a panicked guest, however, stands still until somebody has read its console.

use crate::cgroups::{Share, Size};
use crate::drives;
use crate::hotplug::{Change, Changes};
use crate::process::Pidfd;
use crate::qmp::{Message, Qmp};
use crate::record::{MachineFolder, Record, UNKNOWN_END};
use crate::shared::Shared;
use crate::templates;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch as watched};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How long QEMU may take to exit by itself when it is told to.
const QUIT_DEADLINE: Duration = Duration::from_millis(800);
/// For what QEMU wrote before it exited.
const DRAIN_DEADLINE: Duration = Duration::from_millis(200);
/// How long a machine may use its vCPUs in full, whatever its quota: the time of a slow boot.
const BOOT_TIME: Duration = Duration::from_secs(30);
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Ids of the commands that are sent.
pub(crate) mod command {
    pub(super) const CAPABILITIES: u64 = 1;
    pub(super) const STATUS: u64 = 2;
    pub(super) const CONSOLE: u64 = 3;
    pub(super) const QUIT: u64 = 4;
    pub(super) const FREEZE: u64 = 5;
    pub(super) const GROW: u64 = 6;
    pub(super) const PREPARE_LOAD: u64 = 7;
    pub(super) const LOAD: u64 = 8;
    /// From here on: changes of what is plugged in, each with numbers of its own.
    pub(crate) const CHANGES: u64 = 1000;
}

/// What a clone has to do before it is a machine.
pub(crate) struct Load {
    /// In the hypervisor.
    pub(crate) descriptor: RawFd,
    pub(crate) at: watched::Sender<Loading>,
}

/// How far a clone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loading {
    /// QEMU opens what it was given.
    Begun,
    /// It was told to load the state.
    Told,
    /// It has the state, and may not run: QEMU takes its disks last, and somebody else has one of them.
    Barred,
    Done,
}

pub(crate) struct Watch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) record: Record,
    pub(crate) pidfd: AsyncFd<Pidfd>,
    /// QEMU's standard output and error, where they can be had.
    pub(crate) log: Option<File>,
    /// Reasons to end the machine; the first one counts.
    pub(crate) kill: mpsc::Receiver<String>,
    /// Whether its vCPUs are to stand still.
    pub(crate) freeze: mpsc::Receiver<bool>,
    /// Which volume's disk has become how large.
    pub(crate) grow: mpsc::Receiver<(usize, u64)>,
    /// Whether they do; `None`: not known yet.
    pub(crate) frozen: watched::Sender<Option<bool>>,
    /// What the machine is to have; of CPU time, once it has booted.
    pub(crate) size: watched::Receiver<Size>,
    /// What is to be plugged in or out.
    pub(crate) changes: mpsc::Receiver<Change>,
    pub(crate) load: Option<Load>,
    /// A clone went on after it was loaded.
    pub(crate) resumed: bool,
}

/// `Failed to get shared "write" lock`
fn is_lock_refused(words: &str) -> bool {
    words.lines().any(|line| line.contains("Failed to get") && line.contains("lock"))
}

impl Watch {
    /// Until the machine has ended, and that is written down (`true`), or the server stops (`false`).
    pub(crate) async fn run(mut self, stop: CancellationToken) -> bool {
        let mut qmp = self.connect().await.ok();
        self.guess(&qmp);
        let mut ending = Ending { reason: None, kill_at: None };
        let boot_over = Instant::now() + self.boot_time_left();
        let mut tight = false;
        let mut changes = Changes::default();
        loop {
            let kill_at = ending.kill_at.unwrap_or_else(|| Instant::now() + FAR_AWAY);
            tokio::select! {
                () = stop.cancelled() => return false,
                ended = self.pidfd.readable() => match ended {
                    Ok(_) => break,
                    Err(error) => {
                        tracing::error!(container.id = %self.record.spec.id, %error, "a machine is not watched any more");
                        return false;
                    }
                },
                message = receive(&mut qmp) => match message {
                    Ok(message) => {
                        self.heard(&message, &mut qmp).await;
                        changes.heard(&message, &mut qmp).await;
                        let greets = message == Message::Greeting;
                        ending.heard(message, &mut qmp).await;
                        if greets {
                            self.begin_load(&mut qmp).await;
                        }
                    }
                    Err(_) => {
                        qmp = None;
                        changes.give_up();
                        self.guess(&qmp);
                    }
                },
                Some(freeze) = self.freeze.recv() => {
                    let command = if freeze { "stop" } else { "cont" };
                    send(&mut qmp, command::FREEZE, command, Value::Null).await;
                    send(&mut qmp, command::STATUS, "query-status", Value::Null).await;
                }
                Some((volume, size)) = self.grow.recv() => {
                    let arguments = json!({ "node-name": drives::volume_node(volume), "size": size });
                    send(&mut qmp, command::GROW, "block_resize", arguments).await;
                }
                Some(change) = self.changes.recv(), if !changes.is_busy() => changes.begin(change, &mut qmp).await,
                Some(reason) = self.kill.recv(), if ending.kill_at.is_none() => {
                    ending.quit(reason, &mut qmp).await;
                }
                () = sleep_until(kill_at), if ending.kill_at.is_some() => {
                    self.kill();
                    ending.kill_at = Some(Instant::now() + QUIT_DEADLINE);
                }
                () = sleep_until(boot_over), if !tight => {
                    tight = true;
                    self.limit(tight);
                }
                Ok(()) = self.size.changed() => self.limit(tight),
            }
        }
        // The end may have been seen before its reason was read. With the process gone the connection has an end, too.
        if qmp.is_some() {
            while let Ok(Ok(message)) = timeout(DRAIN_DEADLINE, receive(&mut qmp)).await {
                ending.heard(message, &mut None).await;
            }
        }
        self.write_end(ending.reason).await;
        true
    }

    /// Whether its vCPUs stand still is what QEMU says of itself: a machine that panicked stands, too, and is not paused.
    async fn heard(&mut self, message: &Message, qmp: &mut Option<Qmp>) {
        match message {
            Message::Event { name, .. } if name == "RESUME" && self.is_loading() => self.resumed = true,
            // It says no more than that it does not.
            Message::Answer { id: command::LOAD, value: None } => self.kill(),
            Message::Event { name, data } if name == "MIGRATION" && self.is_loading() => {
                if data.get("status").is_some_and(|status| status == "completed") {
                    self.is_whole();
                }
            }
            Message::Event { name, .. } if name == "STOP" || name == "RESUME" => {
                send(qmp, command::STATUS, "query-status", Value::Null).await;
            }
            Message::Answer { id: command::STATUS, value: Some(status) } => {
                let paused = status.get("status").is_some_and(|status| status == "paused");
                self.frozen.send_replace(Some(paused));
            }
            Message::Greeting | Message::Event { .. } | Message::Answer { .. } => {}
        }
    }

    fn kill(&self) {
        if let Err(error) = self.pidfd.get_ref().kill() {
            tracing::error!(container.id = %self.record.spec.id, %error, "a machine could not be killed");
        }
    }

    async fn begin_load(&self, qmp: &mut Option<Qmp>) {
        if let Some(load) = self.load.as_ref().filter(|load| *load.at.borrow() == Loading::Begun) {
            send(qmp, command::PREPARE_LOAD, "migrate-set-capabilities", templates::capabilities()).await;
            let from = json!({ "uri": format!("fd:{}", load.descriptor) });
            send(qmp, command::LOAD, "migrate-incoming", from).await;
            load.at.send_replace(Loading::Told);
        }
    }

    /// It has its state. Where it has not its disks as well it stands still, or goes on without them and only says so:
    /// who reads what another one writes.
    fn is_whole(&self) {
        let has_disks = self.resumed && !is_lock_refused(&last_words(self.log.as_ref()));
        match &self.load {
            Some(load) if !has_disks => {
                load.at.send_replace(Loading::Barred);
                self.kill();
            }
            _ => self.loaded(),
        }
    }

    fn is_loading(&self) -> bool {
        self.load.as_ref().is_some_and(|load| *load.at.borrow() != Loading::Done)
    }

    fn loaded(&self) {
        let folder = MachineFolder::of(&self.shared.machines_folder(), &self.record.spec.id);
        match (folder.write_loaded(), &self.load) {
            (Ok(()), Some(load)) => drop(load.at.send_replace(Loading::Done)),
            (Ok(()), None) => {}
            (Err(error), _) => {
                tracing::error!(container.id = %self.record.spec.id, %error, "a clone cannot be noted as loaded");
            }
        }
    }

    /// A QEMU that cannot be asked is taken to run.
    fn guess(&self, qmp: &Option<Qmp>) {
        if qmp.is_none() {
            self.frozen.send_if_modified(|frozen| frozen.is_none() && frozen.replace(false).is_none());
        }
    }

    async fn connect(&self) -> io::Result<Qmp> {
        let folder = MachineFolder::of(&self.shared.machines_folder(), &self.record.spec.id);
        Ok(Qmp::new(connect(&folder, "qmp.sock").await?))
    }

    fn boot_time_left(&self) -> Duration {
        let age = chrono::Utc::now().signed_duration_since(self.record.since).to_std().unwrap_or_default();
        BOOT_TIME.saturating_sub(age)
    }

    fn limit(&mut self, tight: bool) {
        let (spec, size) = (&self.record.spec, *self.size.borrow_and_update());
        let share = if tight { Share::running(size) } else { Share::booting(spec, size) };
        if let Err(error) = self.shared.cgroups.set(&spec.id, share) {
            tracing::warn!(container.id = %spec.id, %error, "the machine keeps the share of the host that it had");
        }
    }

    async fn write_end(self, told: Option<String>) {
        let id = self.record.spec.id.clone();
        let written = tokio::task::spawn_blocking(move || {
            let spec = &self.record.spec;
            let out_of_memory = self.shared.cgroups.out_of_memory(&spec.id);
            self.shared.cgroups.leave(&spec.id);
            let reason = told.unwrap_or_else(|| {
                if out_of_memory {
                    "the host killed it: out of memory".into()
                } else {
                    last_words(self.log.as_ref())
                }
            });
            tracing::info!(container.id = %spec.id, %reason, "machine ended");
            MachineFolder::of(&self.shared.machines_folder(), &spec.id).write_end(&reason)
        });
        if let Err(error) = written.await.map_err(io::Error::other).flatten() {
            tracing::error!(container.id = %id, %error, "why a machine ended could not be written down");
        }
    }
}

/// Through the folder's descriptor: its path may be longer than a socket address.
pub(crate) async fn connect(folder: &MachineFolder, name: &str) -> io::Result<tokio::net::UnixStream> {
    use std::os::fd::AsRawFd;
    let directory = File::open(folder.path())?;
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    timeout(Duration::from_secs(5), tokio::net::UnixStream::connect(path)).await?
}

/// Never resolves if there is no connection.
async fn receive(qmp: &mut Option<Qmp>) -> io::Result<Message> {
    match qmp {
        Some(qmp) => qmp.receive().await,
        None => std::future::pending().await,
    }
}

struct Ending {
    reason: Option<String>,
    /// When SIGKILL is due.
    kill_at: Option<Instant>,
}

impl Ending {
    async fn heard(&mut self, message: Message, qmp: &mut Option<Qmp>) {
        match message {
            Message::Greeting => {
                send(qmp, command::CAPABILITIES, "qmp_capabilities", Value::Null).await;
                send(qmp, command::STATUS, "query-status", Value::Null).await;
            }
            Message::Event { name, data } => match name.as_str() {
                "SHUTDOWN" => self.because(shutdown_reason(&data)),
                "GUEST_PANICKED" => self.panicked(qmp).await,
                _ => {}
            },
            // It panicked while nobody listened.
            Message::Answer { id: command::STATUS, value: Some(status) }
                if status.get("status").is_some_and(|status| status == "guest-panicked") =>
            {
                self.panicked(qmp).await;
            }
            Message::Answer { id: command::CONSOLE, value } => {
                let console = value.as_ref().and_then(Value::as_str).unwrap_or_default();
                self.quit(panic_reason(console), qmp).await;
            }
            Message::Answer { .. } => {}
        }
    }

    fn because(&mut self, reason: String) {
        self.reason.get_or_insert(reason);
    }

    async fn panicked(&mut self, qmp: &mut Option<Qmp>) {
        // Should the answer never come, this ends it all the same.
        self.kill_at.get_or_insert(Instant::now() + 4 * QUIT_DEADLINE);
        send(qmp, command::CONSOLE, "ringbuf-read", json!({ "device": "console", "size": 65536 })).await;
    }

    async fn quit(&mut self, reason: String, qmp: &mut Option<Qmp>) {
        self.because(reason);
        self.kill_at = Some(Instant::now() + QUIT_DEADLINE);
        if qmp.is_some() {
            send(qmp, command::QUIT, "quit", Value::Null).await;
        } else {
            self.kill_at = Some(Instant::now());
        }
    }
}

/// A QEMU that does not read is not waited for.
async fn send(qmp: &mut Option<Qmp>, id: u64, command: &str, arguments: Value) {
    if let Some(connection) = qmp
        && !matches!(timeout(QUIT_DEADLINE, connection.send(id, command, arguments)).await, Ok(Ok(())))
    {
        *qmp = None;
    }
}

/// The reasons of QEMU's `ShutdownCause` (qapi/run-state.json).
fn shutdown_reason(data: &Value) -> String {
    match data.get("reason").and_then(Value::as_str).unwrap_or_default() {
        "guest-shutdown" => "guest powered off".into(),
        "guest-reset" => "guest restarted itself".into(),
        "guest-panic" => "guest panicked".into(),
        "host-signal" => "the hypervisor was told to end by a signal".into(),
        "host-qmp-quit" => "killed".into(),
        other => format!("the hypervisor shut down: {other:?}"),
    }
}

fn panic_reason(console: &str) -> String {
    let words = console.lines().rev().find_map(|line| line.split_once("Kernel panic - not syncing: "));
    match words {
        Some((_, why)) => format!("guest panicked: {}", printable(why)),
        None => "guest panicked".into(),
    }
}

/// The last error that QEMU wrote: it says what was wrong with its start. A hint may follow on lines of its own.
pub(crate) fn last_words(log: Option<&File>) -> String {
    let mut text = vec![0; 64 * 1024];
    let read = log.and_then(|log| log.read_at(&mut text, 0).ok()).unwrap_or_default();
    text.truncate(read);
    let text = String::from_utf8_lossy(&text);
    let lines = || text.trim_end_matches('\0').lines().rev().filter(|line| !line.trim().is_empty());
    let last = lines().find(|line| line.starts_with("qemu")).or_else(|| lines().next());
    last.map_or_else(|| UNKNOWN_END.into(), |line| format!("{UNKNOWN_END}: {}", printable(line)))
}

/// The guest or a QEMU in its hands wrote this: short, and nothing that moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_the_kernels_words() {
        let console = "[ 1.0] hello\r\n[ 2.0] Kernel panic - not syncing: sysrq triggered \x1b[2Jcrash\r\n[ 2.1] CPU: 0\r\n";
        assert_eq!(panic_reason(console), "guest panicked: sysrq triggered [2Jcrash");
        assert_eq!(panic_reason(""), "guest panicked");
    }

    #[test]
    fn the_log_tells_why_a_start_failed() {
        use std::io::Write;
        assert_eq!(last_words(None), UNKNOWN_END);
        let mut log = crate::spawn::log_file(4096).unwrap();
        assert_eq!(last_words(Some(&log)), UNKNOWN_END);
        log.write_all(b"warning: x\nqemu-system-x86_64: no such device\nIs there another?\n").unwrap();
        assert_eq!(last_words(Some(&log)), format!("{UNKNOWN_END}: qemu-system-x86_64: no such device"));
    }

    #[test]
    fn shutdown_causes_are_translated() {
        assert_eq!(shutdown_reason(&json!({"guest": true, "reason": "guest-shutdown"})), "guest powered off");
        assert_eq!(
            shutdown_reason(&json!({"guest": true, "reason": "guest-reset"})),
            "guest restarted itself"
        );
    }
}
