//! One loop that does everything, as PID 1 has one thread: requests, output, the process's end.
//!
//! ```text
//!   Ready ──Start──▶ Running ──process ended, all output written──▶ exit record, power off
//!     └──Start cannot be done──▶ failure record, reply, power off
//! ```

use crate::channel::Channel;
use crate::devices::Drivers;
use crate::failure::{Doing, Failure, report};
use crate::files::Scene;
use crate::journal::Journal;
use crate::own_files::OwnFiles;
use crate::process::{self, Place, Spawned};
use crate::resolver::Resolver;
use crate::running::Running;
use crate::streams::{Beside, Input, TURN_BYTES};
use crate::{boot, cgroup, disks, files, network, own_files, rehearsal, stdio, sys, volumes, watch};
use bulkhead_guest_protocol::files::{Assemble, FileTask, Files};
use bulkhead_guest_protocol::journal::StartFailed;
use bulkhead_guest_protocol::message::{
    AgentState, Event, Exec, Hello, MAIN_STREAM, NO_REPLY, ReplyBody, Request, RequestBody, Start,
    TerminalSize, Took,
};
use bulkhead_guest_protocol::network::{Network, Resolver as Names};
use bulkhead_guest_protocol::volumes::Volumes;
use bulkhead_guest_protocol::{PROTOCOL_MAX, PROTOCOL_MIN};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How often an absent server is looked for, should a signal of the port be missed.
const LOOK_INTERVAL_MS: libc::c_int = 1000;
/// After some output, more is gathered for this long: a program that writes single lines would otherwise cost a record
/// and a change of context each. Under emulation 50 MB of lines took 25 s with 2 ms, and 12 s with 8.
const GATHER_MS: libc::c_int = 8;
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often a process that ended and left its output open is looked at.
const ENDING_LOOK_MS: libc::c_int = 100;
/// Processes beside the container's own, at a time.
const BESIDE_MAX: usize = 256;

pub struct Agent {
    /// Whose machine this is, once it is anybody's.
    token: Option<[u8; 32]>,
    kernel: String,
    channel: Channel,
    /// SIGCHLD and SIGIO.
    signals: File,
    /// Until the first start makes a journal of it.
    journal_port: Option<File>,
    running: Option<Running>,
    beside: Vec<Beside>,
    /// How many layers were stacked, with a writable disk on top, before the machine was anybody's.
    stacked: Option<u32>,
    /// What disks there are, once they are assembled without a process.
    assembled: Option<Assemble>,
    /// Tasks that want the container's processes to stand still.
    freezing: Vec<libc::pid_t>,
    /// The server wants that, too.
    still: bool,
    groups: cgroup::Ready,
    /// The interface that was there before the machine was anybody's.
    parked: Option<String>,
    /// Answers for names, where there are networks or may be.
    resolver: Option<Resolver>,
    /// Once they are written.
    own_files: Option<OwnFiles>,
    greeted: bool,
    drivers: Drivers,
    /// For output on its way from a process; the system gives its pages when they are used.
    buffer: Vec<u8>,
}

impl Agent {
    /// What no two containers have differently is done here: it is in every clone of this machine.
    pub fn new(channel: File, journal_port: File, drivers: Drivers) -> Result<Self, Failure> {
        let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGIO]).doing("take signals")?;
        sys::make_async(&channel).doing("prepare the channel")?;
        network::prepare()?;
        own_files::prepare()?;
        Ok(Self {
            token: None,
            kernel: boot::kernel_release(),
            channel: Channel::new(channel),
            signals,
            journal_port: Some(journal_port),
            running: None,
            beside: Vec::new(),
            stacked: None,
            assembled: None,
            freezing: Vec::new(),
            still: false,
            groups: cgroup::prepare()?,
            parked: network::parked(),
            resolver: Some(Resolver::start(&Names::default())?),
            own_files: None,
            greeted: false,
            drivers,
            buffer: vec![0; TURN_BYTES],
        })
    }

    pub fn run(mut self) -> ! {
        loop {
            self.wait();
            self.take_signals();
            if self.channel.is_connected() {
                self.channel.receive();
                self.greeted &= !self.channel.is_alone();
                self.channel.send();
            }
            while let Some(request) = self.channel.next_request() {
                self.answer(request);
            }
            self.pump_beside();
            if let Some(Err(failure)) = self.resolver.as_mut().map(Resolver::revive) {
                eprintln!("bulkhead agent: {}", failure.message);
            }
            if let Some(running) = &mut self.running {
                running.pump();
                let bytes = running.input.pump();
                if bytes > 0 {
                    self.channel.event(Event::InputTaken { stream: MAIN_STREAM, bytes });
                }
                if running.is_over() {
                    running.finish();
                    self.power_off();
                }
            }
        }
    }

    fn pump_beside(&mut self) {
        if !self.channel.is_connected() {
            self.beside.iter_mut().for_each(Beside::leave);
        }
        let channel = &mut self.channel;
        for one in &mut self.beside {
            if !channel.is_crowded() {
                one.pump(&mut self.buffer, |event| channel.put_event(event));
                channel.send();
            }
        }
        self.beside.retain(|one| match one.outcome() {
            Some(exited) => {
                channel.event(Event::Ended { stream: one.stream, exited });
                false
            }
            None => true,
        });
    }

    fn wait(&mut self) {
        let signals = libc::pollfd { fd: self.signals.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut fds = vec![signals];
        fds.extend(self.channel.interest());
        let timeout_ms = match &self.running {
            Some(running) if running.gathering => GATHER_MS,
            _ if self.beside.iter().any(Beside::is_gathering) => GATHER_MS,
            _ if self.beside.iter().any(Beside::is_ending) => ENDING_LOOK_MS,
            _ if self.resolver.as_ref().is_some_and(Resolver::is_down) => LOOK_INTERVAL_MS,
            _ if self.channel.is_connected() => -1,
            _ => LOOK_INTERVAL_MS,
        };
        fds.extend(self.running.iter().flat_map(Running::interest));
        if !self.channel.is_crowded() {
            fds.extend(self.beside.iter().flat_map(Beside::interest));
        }
        sys::poll(&mut fds, timeout_ms);
    }

    fn take_signals(&mut self) {
        let mut buffer = [0; 1024];
        while self.signals.read(&mut buffer).is_ok_and(|length| length > 0) {}
        self.channel.look();
        while let Some((pid, status)) = sys::reap() {
            if let Some(running) = self.running.as_mut().filter(|running| running.pid == pid) {
                running.status = Some(status);
            }
            if let Some(resolver) = &mut self.resolver {
                resolver.ended(pid);
            }
            if let Some(one) = self.beside.iter_mut().find(|one| one.pid == pid) {
                one.ended = Some((status, Instant::now()));
            }
            if let Some(at) = self.freezing.iter().position(|one| *one == pid) {
                self.freezing.swap_remove(at);
                report(self.freeze().map_err(|failure| std::io::Error::other(failure.message)));
            }
        }
    }

    fn answer(&mut self, request: Request) {
        let reply = match request.body {
            RequestBody::Hello { protocol_min, protocol_max, nonce } => {
                self.channel.forget_unsent();
                self.beside.iter_mut().for_each(Beside::leave);
                if let Some(running) = &mut self.running {
                    running.input.begin_window();
                }
                self.greet(protocol_min, protocol_max, nonce)
            }
            _ if !self.greeted => refused("hello comes first"),
            RequestBody::Exec(exec) => self.exec(&exec),
            RequestBody::Files(files) => self.files(&files),
            RequestBody::Assemble(assemble) => done(self.assemble(&assemble)),
            RequestBody::ReleaseVolumes => match self.running {
                None => done(volumes::release()),
                Some(_) => refused("a process runs"),
            },
            RequestBody::GrowVolume { disk, bytes } => done(volumes::grow(disk, bytes)),
            RequestBody::Resize { stream, size } => done(self.resize(stream, size).doing("resize")),
            RequestBody::Input { stream, data } => return self.with_input(stream, |input| input.push(&data)),
            RequestBody::InputEnd { stream } => return self.with_input(stream, Input::end),
            RequestBody::Credit { stream, bytes } => {
                return self.with_beside(stream, |one| one.add_credit(bytes));
            }
            RequestBody::Kill { stream } => {
                return self.with_beside(stream, |one| report(one.kill()));
            }
            RequestBody::Leave { stream } => return self.with_beside(stream, Beside::leave),
            RequestBody::Start(start) => return self.start(request.id, &start),
            RequestBody::Signal { number } => self.signal(number),
            RequestBody::JournalLimit { offset } => self.raise_limit(offset),
            RequestBody::Limits(limits) => match &self.running {
                Some(running) => done(running.groups.limit(&limits)),
                None => refused("no process runs"),
            },
            RequestBody::Freeze { still } => self.set_still(still),
            RequestBody::Network(told) => done(self.network(&told)),
            RequestBody::SetClock { unix_ns } => done(sys::set_clock(unix_ns).doing("set the clock")),
            RequestBody::Rehearse(start) => self.rehearse(&start),
            RequestBody::Stack { layer_count } => self.stack(layer_count),
            RequestBody::Processes => self.watch(|| Ok(ReplyBody::Processes(Box::new(watch::processes()?)))),
            RequestBody::Usage => self.watch(|| Ok(ReplyBody::Usage(Box::new(watch::usage()?)))),
            RequestBody::PowerOff => {
                self.channel.reply(request.id, ReplyBody::Done);
                return self.shut_down();
            }
        };
        if request.id != NO_REPLY {
            self.channel.reply(request.id, reply);
        }
    }

    fn greet(&mut self, protocol_min: u16, protocol_max: u16, nonce: [u8; 16]) -> ReplyBody {
        let Some(protocol) = common_protocol(protocol_min, protocol_max) else {
            return refused(format!(
                "this agent speaks protocols {PROTOCOL_MIN} to {PROTOCOL_MAX}, not {protocol_min} to {protocol_max}"
            ));
        };
        self.greeted = true;
        let state = match &self.running {
            None => AgentState::Ready,
            Some(Running { run, status: Some(_), .. }) => AgentState::Over { run: *run },
            Some(running) => AgentState::Running {
                run: running.run,
                pid: running.pid.unsigned_abs(),
                started_unix_ns: running.started_unix_ns,
            },
        };
        ReplyBody::Hello(Hello {
            protocol,
            nonce,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: self.kernel.clone(),
            token: self.token,
            state,
        })
    }

    fn start(&mut self, id: u32, start: &Start) {
        if let Some(running) = &self.running {
            let reply = if running.run == start.run {
                let (pid, unix_ns) = (running.pid.unsigned_abs(), running.started_unix_ns);
                ReplyBody::Started { pid, unix_ns, took: running.took }
            } else {
                refused(format!("this machine carries run {}", running.run))
            };
            return self.channel.reply(id, reply);
        }
        if self.assembled.is_some() {
            return self.channel.reply(id, refused("this machine runs no process"));
        }
        let Some(port) = self.journal_port.take() else { return };
        self.token = Some(start.token);
        let mut journal = Journal::new(port, start.run, start.journal_offset, start.journal_limit);
        match self.become_container(start) {
            Ok((Spawned { pid, stdio }, groups, took)) => {
                let unix_ns = sys::unix_ns();
                report(journal.started(unix_ns, pid.unsigned_abs()));
                self.running = Some(Running {
                    run: start.run,
                    layer_count: start.layer_count,
                    pid,
                    started_unix_ns: unix_ns,
                    took,
                    journal,
                    stdout: stdio.stdout,
                    stderr: stdio.stderr,
                    input: Input::new(stdio.stdin, stdio.is_terminal),
                    is_terminal: stdio.is_terminal,
                    groups,
                    status: None,
                    hurry: false,
                    gathering: false,
                });
                self.channel.reply(id, ReplyBody::Started { pid: pid.unsigned_abs(), unix_ns, took });
            }
            Err(Failure { code, message }) => {
                report(journal.start_failed(sys::unix_ns(), StartFailed { code, message: message.clone() }));
                self.channel.reply(id, ReplyBody::StartFailed { code, message });
                self.power_off();
            }
        }
    }

    fn become_container(&mut self, start: &Start) -> Result<(Spawned, cgroup::Groups, Took), Failure> {
        let mut since = Instant::now();
        let mut lap = || {
            let began = std::mem::replace(&mut since, Instant::now());
            u32::try_from((since - began).as_micros()).unwrap_or(u32::MAX)
        };
        let random =
            fs::OpenOptions::new().write(true).open("/dev/urandom").doing("open the random generator")?;
        sys::add_entropy(&random, start.entropy).doing("seed the random generator")?;
        sys::set_clock(start.unix_ns).doing("set the clock")?;
        sys::set_hostname(&start.hostname).doing("set the hostname")?;
        sys::set_domain_name(&start.domain_name).doing("set the domain name")?;
        network::claim(self.parked.as_deref(), &start.network)?;
        if start.network.interfaces.is_empty() {
            self.resolver.take().map_or(Ok(()), Resolver::stop)?;
        }
        self.network(&start.network)?;
        let network_us = lap();
        self.take_disks(start.layer_count, &start.interior.volumes)?;
        let disks_us = lap();
        self.own_files = Some(OwnFiles::write(&start.hostname, &start.domain_name, &start.network)?);
        self.drivers.load(&start.interior)?;
        let groups = self.groups.groups(&start.interior)?;
        let spawned = process::spawn(&start.process, start.stdio, Place::First(&start.interior), &groups)?;
        Ok((spawned, groups, Took { network_us, disks_us, process_us: lap() }))
    }

    fn rehearse(&mut self, start: &Start) -> ReplyBody {
        match (self.token, &mut self.resolver) {
            (None, Some(resolver)) => {
                done(rehearsal::hold(start, self.parked.as_deref(), self.groups, resolver))
            }
            _ => refused("this machine is somebody's"),
        }
    }

    fn stack(&mut self, layer_count: u32) -> ReplyBody {
        if self.token.is_some() || self.stacked.is_some() {
            return refused("this machine has its disks");
        }
        let stacked = disks::stack(disks::Place::Container, layer_count).and_then(|()| {
            disks::read_ahead();
            disks::sync_own()
        });
        self.stacked = stacked.is_ok().then_some(layer_count);
        done(stacked)
    }

    /// Makes the disks the container's root. Those of its image are in place where the machine was captured with them.
    fn take_disks(&self, layer_count: u32, volumes: &Volumes) -> Result<(), Failure> {
        match self.stacked {
            None => disks::assemble(disks::Place::Container, layer_count, volumes),
            Some(stacked) if stacked == layer_count => disks::add_volumes(volumes),
            Some(stacked) => {
                Err(Failure::internal(format!("this machine has {stacked} layers and not {layer_count}")))
            }
        }
    }

    fn exec(&mut self, exec: &Exec) -> ReplyBody {
        let Some(running) = self.running.as_ref().filter(|running| running.status.is_none()) else {
            return refused("no process runs");
        };
        if let Some(refusal) = self.refusal(exec.stream) {
            return refusal;
        }
        match process::spawn(&exec.process, exec.stdio, Place::Beside(running.pid), &running.groups) {
            Ok(spawned) => {
                let pid = spawned.pid.unsigned_abs();
                self.beside.push(Beside::new(exec.stream, spawned, exec.window));
                ReplyBody::Started { pid, unix_ns: sys::unix_ns(), took: Took::default() }
            }
            Err(Failure { code, message }) => ReplyBody::StartFailed { code, message },
        }
    }

    /// Why there cannot be one more beside the container's own.
    fn refusal(&self, stream: u32) -> Option<ReplyBody> {
        if stream == MAIN_STREAM || self.beside.iter().any(|one| one.stream == stream) {
            return Some(refused(format!("stream {stream} is in use")));
        }
        let full = self.beside.len() >= BESIDE_MAX;
        full.then(|| refused(format!("{BESIDE_MAX} processes run beside the container's own already")))
    }

    fn files(&mut self, files: &Files) -> ReplyBody {
        let running = self.running.as_ref().filter(|running| running.status.is_none());
        let scene = match (running, &self.assembled) {
            (Some(running), _) => {
                Scene { first: Some(running.pid), layer_count: running.layer_count, volumes: &[] }
            }
            (None, Some(assembled)) => {
                let Assemble { layer_count, volumes, .. } = assembled;
                Scene { first: None, layer_count: *layer_count, volumes: &volumes.mounts }
            }
            (None, None) => return refused("no process runs"),
        };
        if let Some(refusal) = self.refusal(files.stream) {
            return refusal;
        }
        let freezes = scene.first.is_some() && matches!(files.task, FileTask::Layer { freeze: true, .. });
        if freezes && let Err(failure) = cgroup::freeze(true) {
            return refused(failure.message);
        }
        match files::spawn(&files.task, scene) {
            Ok(spawned) => {
                let pid = spawned.pid;
                self.freezing.extend(freezes.then_some(pid));
                self.beside.push(Beside::task(files.stream, spawned, files.window));
                ReplyBody::Started { pid: pid.unsigned_abs(), unix_ns: sys::unix_ns(), took: Took::default() }
            }
            Err(failure) => {
                if freezes {
                    report(self.freeze().map_err(|failure| std::io::Error::other(failure.message)));
                }
                refused(failure.message)
            }
        }
    }

    fn set_still(&mut self, still: bool) -> ReplyBody {
        if self.running.as_ref().is_none_or(|running| running.status.is_some()) {
            return refused("no process runs");
        }
        self.still = still;
        done(self.freeze())
    }

    /// They stand still as long as anybody wants it.
    fn freeze(&self) -> Result<(), Failure> {
        cgroup::freeze(self.still || !self.freezing.is_empty())
    }

    fn assemble(&mut self, asked: &Assemble) -> Result<(), Failure> {
        if self.assembled.is_some() {
            return Ok(());
        }
        if self.running.is_some() {
            return Err(Failure::internal("this machine runs a process"));
        }
        self.token = Some(asked.token);
        sys::set_clock(asked.unix_ns).doing("set the clock")?;
        self.take_disks(asked.layer_count, &asked.volumes)?;
        self.assembled = Some(asked.clone());
        Ok(())
    }

    fn network(&mut self, told: &Network) -> Result<(), Failure> {
        network::configure(self.parked.as_deref(), told)?;
        if let Some(own_files) = &mut self.own_files {
            own_files.follow(told)?;
        }
        match &mut self.resolver {
            Some(resolver) => resolver.tell(&told.resolver),
            None if told.interfaces.is_empty() => Ok(()),
            None => {
                self.resolver = Some(Resolver::start(&told.resolver)?);
                Ok(())
            }
        }
    }

    fn resize(&self, stream: u32, size: TerminalSize) -> std::io::Result<()> {
        let nothing = || std::io::Error::from(ErrorKind::NotFound);
        if stream != MAIN_STREAM {
            return self.beside.iter().find(|one| one.stream == stream).ok_or_else(nothing)?.resize(size);
        }
        let running = self.running.as_ref().ok_or_else(nothing)?;
        match running.stdout.as_ref().filter(|_| running.is_terminal) {
            Some(terminal) => stdio::resize(terminal, size),
            None => Err(std::io::Error::from_raw_os_error(libc::ENOTTY)),
        }
    }

    /// What belongs to a process that is over is dropped: its end is on the way.
    fn with_input(&mut self, stream: u32, body: impl FnOnce(&mut Input)) {
        if stream != MAIN_STREAM {
            self.with_beside(stream, |one| body(&mut one.input));
        } else if let Some(running) = &mut self.running {
            body(&mut running.input);
        }
    }

    fn with_beside(&mut self, stream: u32, body: impl FnOnce(&mut Beside)) {
        if let Some(one) = self.beside.iter_mut().find(|one| one.stream == stream) {
            body(one);
        }
    }

    fn signal(&self, number: u8) -> ReplyBody {
        match &self.running {
            Some(running) if running.status.is_none() => {
                done(sys::kill(running.pid, number.into()).doing(format!("send signal {number}")))
            }
            _ => refused("no process runs"),
        }
    }

    fn raise_limit(&mut self, offset: u64) -> ReplyBody {
        match &mut self.running {
            Some(running) => done(running.journal.raise_limit(offset).doing("write the journal")),
            None => refused("no process runs"),
        }
    }

    fn watch(&self, look: impl FnOnce() -> std::io::Result<ReplyBody>) -> ReplyBody {
        match &self.running {
            Some(running) if running.status.is_none() => {
                look().doing("look").unwrap_or_else(|failure| refused(failure.message))
            }
            _ => refused("no process runs"),
        }
    }

    /// A process that still runs is killed; its end is written like any other.
    fn shut_down(&mut self) {
        let Some(running) = &mut self.running else {
            self.beside.iter_mut().for_each(Beside::leave);
            self.power_off()
        };
        running.hurry = true;
        if running.status.is_none() {
            report(sys::kill(running.pid, libc::SIGKILL));
        }
    }

    fn power_off(&mut self) -> ! {
        self.channel.flush(FLUSH_WAIT_MAX);
        disks::release();
        sys::power_off()
    }
}

/// The newest that both sides speak.
fn common_protocol(min: u16, max: u16) -> Option<u16> {
    let newest = max.min(PROTOCOL_MAX);
    (newest >= min.max(PROTOCOL_MIN)).then_some(newest)
}

fn refused(message: impl Into<String>) -> ReplyBody {
    ReplyBody::Refused { message: message.into() }
}

fn done(outcome: Result<(), Failure>) -> ReplyBody {
    match outcome {
        Ok(()) => ReplyBody::Done,
        Err(failure) => refused(failure.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_on_the_newest_common_protocol() {
        assert_eq!(common_protocol(0, u16::MAX), Some(PROTOCOL_MAX));
        assert_eq!(common_protocol(PROTOCOL_MIN, PROTOCOL_MIN), Some(PROTOCOL_MIN));
        assert_eq!(common_protocol(PROTOCOL_MAX + 1, u16::MAX), None);
        assert_eq!(common_protocol(0, PROTOCOL_MIN - 1), None);
        assert_eq!(common_protocol(u16::MAX, 0), None);
    }
}
