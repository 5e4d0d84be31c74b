//! PID 1 of a container's machine: makes the container, carries its output and its end out, and switches off.
//!
//! Outside there is a server that comes and goes. Inside there is a process that is not trusted: it has a root, devices,
//! a process list and IPC of its own, and sees neither the agent nor its ports, nor the raw disks.
//!
//! **Invariants:** one thread, so that a child may run ordinary code between clone and exec. No names are looked up by
//! the C library: there is none to do it. All `unsafe` is in [`sys`].

mod agent;
mod boot;
mod caps;
mod cgroup;
mod channel;
mod devices;
mod disks;
mod failure;
mod files;
mod init;
mod journal;
mod lookup;
mod memory;
mod network;
mod own_files;
mod ports;
mod process;
mod rehearsal;
mod report;
mod resolver;
mod rootfs;
mod running;
mod seccomp;
mod stdio;
mod streams;
mod sys;
mod tree;
mod user;
mod volumes;
mod watch;

use bulkhead_guest_protocol::{CHANNEL_PORT, JOURNAL_PORT};
use failure::Failure;

fn main() {
    if init::is_meant() {
        init::run();
    }
    if resolver::is_meant() {
        resolver::run();
    }
    if rehearsal::is_meant() {
        return;
    }
    if std::process::id() != 1 {
        eprintln!("this program is the first process of a container's machine and runs nowhere else");
        std::process::exit(2);
    }
    // Power off either way: the server finds a machine that ended, and the reason on its console.
    if let Err(failure) = serve() {
        eprintln!("bulkhead agent: {failure}");
        sys::power_off();
    }
}

fn serve() -> Result<(), Failure> {
    boot::mount_basics()?;
    boot::load_modules()?;
    let drivers = devices::Drivers::take()?;
    boot::leave_initramfs()?;
    boot::quieten()?;
    let channel = ports::open(CHANNEL_PORT)?;
    let journal = ports::open(JOURNAL_PORT)?;
    agent::Agent::new(channel, journal, drivers)?.run()
}
