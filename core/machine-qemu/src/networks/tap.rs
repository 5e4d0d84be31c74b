//! Taps: a machine's end of a segment, as a descriptor that QEMU inherits. It is gone when the last one who holds it is:
//! nothing of a machine that ended is left on its bridge.

use super::namespace::Namespace;
use super::{names, netlink, unmarked};
use bulkhead_machine::networks::Nic;
use nix::sched::CloneFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// linux/if_tun.h
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// linux/sockios.h: an interface joins a bridge.
const SIOCBRADDIF: libc::c_ulong = 0x89a2;

const PARKED: &str = "parked";

/// A tap that leads nowhere, in a namespace that is gone with it.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) tap: File,
    namespace: File,
}

/// On a thread of its own, which is never anywhere else again.
fn apart<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = std::thread::Builder::new().name("parked".into()).spawn_scoped(scope, work)?;
        inside.join().unwrap_or_else(|_| Err(io::Error::other("work in a network namespace was cut off")))
    })
}

impl Parked {
    pub(crate) fn make() -> io::Result<Self> {
        apart(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
            let namespace = File::open("/proc/thread-self/ns/net")?;
            Ok(Self { tap: make(PARKED)?, namespace })
        })
    }

    /// Leads it to the segment of the interface's network, as [`open`] makes one.
    pub(crate) fn join(&self, namespace: &Namespace, nic: &Nic) -> io::Result<()> {
        let target = namespace.file()?;
        let name = names::port(&nic.endpoint);
        apart(|| {
            nix::sched::setns(&self.namespace, CloneFlags::CLONE_NEWNET)?;
            netlink::move_interface(nix::net::if_::if_nametoindex(PARKED)?, &target, &name)
        })?;
        namespace.enter(|| join(&name, nic))
    }
}

fn make(name: &str) -> io::Result<File> {
    let tap =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = named(name)?;
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)
            .map_err(io::Error::other)?;
    control(tap.as_raw_fd(), TUNSETIFF, &mut request)?;
    Ok(tap)
}

/// A tap on the segment of the interface's network. Which frames may come out of it, rules say that are there before.
pub(crate) fn open(namespace: &Namespace, nic: &Nic) -> io::Result<File> {
    let name = names::port(&nic.endpoint);
    namespace.enter(|| {
        let tap = make(&name)?;
        join(&name, nic)?;
        Ok(tap)
    })
}

/// Onto the bridge of its network, in whose namespace it is.
fn join(name: &str, nic: &Nic) -> io::Result<()> {
    // SAFETY: plain numbers; returns a new descriptor or -1.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut join = named(&names::bridge(&nic.network))?;
    let index = nix::net::if_::if_nametoindex(name)?;
    join.ifr_ifru.ifru_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    control(socket.as_raw_fd(), SIOCBRADDIF, &mut join)?;
    // Before anything can come that way.
    unmarked::close(index)?;
    let mut up = named(name)?;
    up.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    control(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &mut up)
}

pub(super) fn named(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::other("the name of an interface is too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn control(fd: RawFd, what: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the structure that these requests read.
    match unsafe { libc::ioctl(fd, what, request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
