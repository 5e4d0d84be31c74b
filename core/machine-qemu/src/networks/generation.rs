//! Whether anybody changed rules of a namespace: the kernel counts the changes (linux/netfilter/nf_tables.h,
//! NFT_MSG_GETGEN). Asking costs one message, where reading the rules would cost a program.

use super::namespace::Namespace;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const SUBSYSTEM_NFTABLES: u16 = 10;
const GETGEN: u16 = 16;
const NEWGEN: u16 = 15;
const REQUEST: u16 = 1;
const ATTRIBUTE_ID: u16 = 1;
const HEADER_BYTES: usize = 16 + 4;

/// A question open to one namespace, whatever happens to its name.
#[derive(Debug)]
pub(crate) struct Counter(OwnedFd);

impl Counter {
    pub(crate) fn open(namespace: &Namespace) -> io::Result<Self> {
        namespace.enter(|| {
            let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
            let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
            setsockopt(&socket, ReceiveTimeout, &TimeVal::new(2, 0))?;
            Ok(Self(socket))
        })
    }

    pub(crate) fn read(&self) -> io::Result<u32> {
        let mut request = Vec::with_capacity(HEADER_BYTES);
        request.extend(u32::try_from(HEADER_BYTES).unwrap_or_default().to_ne_bytes());
        request.extend((SUBSYSTEM_NFTABLES << 8 | GETGEN).to_ne_bytes());
        request.extend(REQUEST.to_ne_bytes());
        // Sequence, port, then the family: any.
        request.extend([0; 12]);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = [0; 512];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        generation(answer.get(..length).unwrap_or_default())
            .ok_or_else(|| io::Error::other("the kernel's count of rule changes is not understood"))
    }
}

fn generation(answer: &[u8]) -> Option<u32> {
    let short = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if short(4)? != SUBSYSTEM_NFTABLES << 8 | NEWGEN {
        return None;
    }
    let mut at = HEADER_BYTES;
    loop {
        let (length, kind) = (usize::from(short(at)?), short(at + 2)?);
        if kind == ATTRIBUTE_ID {
            return Some(u32::from_be_bytes(answer.get(at + 4..at + 8)?.try_into().ok()?));
        }
        at += length.max(4).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_rules_counts() {
        let name = format!("bulkhead-test-{}", std::process::id());
        let namespace = Namespace::named(name);
        namespace.ensure().unwrap();
        let counter = Counter::open(&namespace).unwrap();
        let before = counter.read().unwrap();
        assert_eq!(counter.read().unwrap(), before);
        namespace.change_rules("add table ip x\n").unwrap();
        assert_ne!(counter.read().unwrap(), before);
        namespace.remove().unwrap();
        assert!(!namespace.exists());
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for answer in [&[][..], &[0; 20], &[0xff; 40]] {
            assert_eq!(generation(answer), None);
        }
    }
}
