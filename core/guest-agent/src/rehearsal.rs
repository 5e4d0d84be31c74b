//! Everything that a start does, done once before the machine is anybody's, with disks that are taken away again: where
//! a machine is emulated most of a start is the first translation of the guest's code, which then has happened.
//!
//! It is done by a child with mounts of its own. What is left of it is code that was used, and empty folders.

use crate::disks::{self, DISK, Place};
use crate::failure::{Doing, Failure};
use crate::own_files::OwnFiles;
use crate::resolver::Resolver;
use crate::{cgroup, network, process, sys};
use bulkhead_guest_protocol::message::{REHEARSAL, Start};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Whether this is the process of a rehearsal, and not the agent.
pub fn is_meant() -> bool {
    std::env::args_os().next().is_some_and(|name| name == REHEARSAL)
}

/// All else in the agent waits meanwhile.
pub fn hold(
    start: &Start,
    parked: Option<&str>,
    groups: cgroup::Ready,
    resolver: &mut Resolver,
) -> Result<(), Failure> {
    let Some(child) = sys::clone(0).doing("make a process")? else {
        let code = match rehearse(start, parked, groups, resolver) {
            Ok(()) => 0,
            Err(failure) => {
                eprintln!("bulkhead agent: rehearsal: {failure}");
                1
            }
        };
        sys::exit_now(code);
    };
    let status = sys::wait_for(child).doing("wait for the rehearsal")?;
    // Whatever became of it.
    let cleared = disks::forget(Place::Rehearsal, start.layer_count);
    let parked_again = parked.map_or(Ok(()), network::park);
    let renewed = cgroup::renew();
    match status {
        0 => cleared.and(parked_again).and(renewed),
        _ => Err(Failure::internal("the rehearsal failed; the console has the reason")),
    }
}

fn rehearse(
    start: &Start,
    parked: Option<&str>,
    groups: cgroup::Ready,
    resolver: &mut Resolver,
) -> Result<(), Failure> {
    sys::unshare(libc::CLONE_NEWNS).doing("part from the agent's mounts")?;
    sys::mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")
        .doing("part from the agent's mounts")?;
    sys::set_hostname(&start.hostname).doing("set the hostname")?;
    network::claim(parked, &start.network)?;
    network::configure(parked, &start.network)?;
    resolver.tell(&start.network.resolver)?;
    disks::assemble(Place::Rehearsal, start.layer_count, &start.interior.volumes)?;
    OwnFiles::write(&start.hostname, &start.domain_name, &start.network)?;
    let program = Path::new(DISK).join("upper").join(REHEARSAL.trim_start_matches('/'));
    fs::copy("/proc/self/exe", &program)
        .and_then(|_| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
        .doing("copy a program")?;
    let groups = groups.groups(&start.interior)?;
    let place = process::Place::First(&start.interior);
    let spawned = process::spawn(&start.process, start.stdio, place, &groups)?;
    let status = sys::wait_for(spawned.pid).doing("wait for the process")?;
    drop((groups, spawned));
    disks::release();
    match status {
        0 => Ok(()),
        _ => Err(Failure::internal(format!("the process ended with wait status {status:#x}"))),
    }
}
