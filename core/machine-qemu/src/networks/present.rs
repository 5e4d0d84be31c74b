//! Whether links of a namespace are there: one request to the kernel for each, and no program.

use super::namespace::Namespace;
use super::tap::named;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// A socket of one namespace, whatever happens to its name.
#[derive(Debug)]
pub(crate) struct Links(OwnedFd);

impl Links {
    pub(crate) fn open(namespace: &Namespace) -> io::Result<Self> {
        namespace.enter(|| {
            // SAFETY: plain numbers; returns a new descriptor or -1.
            let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
            match socket {
                -1 => Err(io::Error::last_os_error()),
                // SAFETY: the descriptor is new and belongs to nobody else.
                socket => Ok(Self(unsafe { OwnedFd::from_raw_fd(socket) })),
            }
        })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        let Ok(mut request) = named(name) else { return false };
        // SAFETY: the structure that this request reads and writes.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) != -1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there() {
        let links = Links::open(&Namespace::host()).unwrap();
        assert!(links.has("lo"));
        assert!(!links.has("no-such"));
        assert!(!links.has("longer-than-any-name"));
    }
}
