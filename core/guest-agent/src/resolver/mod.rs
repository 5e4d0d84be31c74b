//! Names on the container's networks, answered at 127.0.0.11; all others are asked of the servers that the container is
//! to use, from inside the guest. So it works whether or not Bulkhead's server is there.
//!
//! ```text
//!   agent ── file of names, a byte as a bell ──▶ resolver: a process of its own, without rights
//!                                                  ▲ 127.0.0.11:53        │ upstream, by the guest's own network
//!                                                  container              ▼
//! ```
//!
//! It is the agent's program, run anew: what it parses is hostile, and the agent's memory holds the machine's token.
//! If it ends, the agent starts it again, with the sockets that the agent kept.

mod serve;
mod wire;

use crate::failure::{Doing, Failure};
use crate::sys;
use bulkhead_guest_protocol::frame;
use bulkhead_guest_protocol::network::{RESOLVER, Resolver as Told};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

pub use serve::run;

/// What it is called, for those who look at it.
const NAME: &str = "/sbin/resolver";
const FOLDER: &str = "/resolver";
/// In the folder.
const NAMES: &str = "names";
const PORT: u16 = 53;
/// Of the user who has no rights.
const NOBODY: u32 = 65534;
/// One that ends again and again is not started more often.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Descriptors that it inherits.
const BELL: i32 = 3;
const UDP: i32 = 4;
const TCP: i32 = 5;

/// Whether this is such a process, and not the agent.
pub fn is_meant() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

pub struct Resolver {
    program: File,
    udp: UdpSocket,
    tcp: TcpListener,
    /// Written to, the resolver reads the file of names.
    bell: File,
    ear: OwnedFd,
    pid: libc::pid_t,
    started: Instant,
}

impl Resolver {
    /// The loopback interface is up.
    pub fn start(told: &Told) -> Result<Self, Failure> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(FOLDER)
            .doing("make the resolver's folder")?;
        write_names(told)?;
        let program = File::open("/proc/self/exe").doing("open the agent's program")?;
        let udp = UdpSocket::bind((RESOLVER, PORT)).doing("listen for names")?;
        let tcp = TcpListener::bind((RESOLVER, PORT)).doing("listen for names")?;
        let (ear, bell) = sys::pipe().doing("make a pipe")?;
        sys::set_nonblocking(&bell).doing("make a pipe")?;
        let started = Instant::now();
        let mut resolver = Self { program, udp, tcp, bell: File::from(bell), ear, pid: 0, started };
        resolver.spawn()?;
        Ok(resolver)
    }

    pub fn tell(&mut self, told: &Told) -> Result<(), Failure> {
        write_names(told)?;
        // A pipe full of bells rings all the same.
        let _ = self.bell.write(&[1]);
        Ok(())
    }

    /// Nobody is to be answered.
    pub fn stop(self) -> Result<(), Failure> {
        let Some(pid) = self.pid() else { return Ok(()) };
        sys::kill(pid, libc::SIGKILL).and_then(|()| sys::wait_for(pid)).doing("end the resolver").map(drop)
    }

    /// Whether this was its process.
    pub fn ended(&mut self, pid: libc::pid_t) -> bool {
        let own = self.pid == pid;
        if own {
            self.pid = 0;
        }
        own
    }

    /// Of its process, while that runs.
    pub fn pid(&self) -> Option<libc::pid_t> {
        (self.pid != 0).then_some(self.pid)
    }

    pub fn is_down(&self) -> bool {
        self.pid == 0
    }

    /// Starts it again, if it ended.
    pub fn revive(&mut self) -> Result<(), Failure> {
        if self.is_down() && self.started.elapsed() >= RESTART_AFTER {
            return self.spawn();
        }
        Ok(())
    }

    fn spawn(&mut self) -> Result<(), Failure> {
        self.started = Instant::now();
        match sys::clone(0).doing("start the resolver")? {
            Some(pid) => {
                self.pid = pid;
                Ok(())
            }
            None => {
                let failed = self.become_resolver();
                eprintln!(
                    "bulkhead agent: {}",
                    failed.map_or_else(|failure| failure.message, |error| error.to_string())
                );
                sys::exit_now(1)
            }
        }
    }

    /// Returns only with what went wrong.
    fn become_resolver(&self) -> Result<std::io::Error, Failure> {
        sys::new_session().doing("start a session")?;
        sys::default_signals().doing("take signals as usual")?;
        std::env::set_current_dir(FOLDER).doing("enter the resolver's folder")?;
        // Above the ones that are being set.
        let own = [self.ear.as_fd(), self.udp.as_fd(), self.tcp.as_fd()].map(sys::raise_fd);
        for (fd, number) in own.into_iter().zip([BELL, UDP, TCP]) {
            let fd = fd.doing("hand over a socket")?;
            sys::replace_fd(fd.as_fd(), number).doing("hand over a socket")?;
        }
        for capability in 0..64 {
            if !sys::drop_bounding(capability).doing("give up rights")? {
                break;
            }
        }
        sys::set_user(NOBODY, NOBODY, &[]).doing("give up rights")?;
        sys::forbid_new_privileges().doing("give up rights")?;
        Ok(sys::exec_open(&self.program, &[NAME.to_owned()], &[]))
    }
}

/// Whole or not at all: it may be read at any moment.
fn write_names(told: &Told) -> Result<(), Failure> {
    let draft = Path::new(FOLDER).join("names.new");
    let bytes = frame::encode(told).map_err(|error| Failure::internal(format!("write names: {error}")))?;
    fs::write(&draft, bytes)
        .and_then(|()| fs::set_permissions(&draft, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&draft, Path::new(FOLDER).join(NAMES)))
        .doing("write names")
}
