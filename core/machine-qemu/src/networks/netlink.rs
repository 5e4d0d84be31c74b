//! Requests to the kernel about interfaces (rtnetlink(7)).

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
const SET_LINK: u16 = 19;
const NAME: u16 = 3;
const NAMESPACE_FD: u16 = 28;

pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?)
}

/// An interface of this thread's namespace goes into another one, where it has that name.
pub(super) fn move_interface(index: u32, namespace: &File, name: &str) -> io::Result<()> {
    // `struct ifinfomsg`: family and kind, index, flags and which of them.
    let head: Vec<u8> = [0, index, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    let fd = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    let attributes = [attribute(NAMESPACE_FD, &fd.to_ne_bytes()), attribute(NAME, &text)].concat();
    ask(&open()?, SET_LINK, &head, &attributes)
}

pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// One request, and the kernel's word for it.
pub(super) fn ask(netlink: &OwnedFd, kind: u16, head: &[u8], attributes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(16 + head.len() + attributes.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | ACK | CREATE | EXCLUSIVE).to_ne_bytes());
    // Sequence and sender.
    message.extend([0; 8]);
    message.extend(head);
    message.extend(attributes);
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let count = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let answer = answer.get(..count).unwrap_or_default();
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::other("the kernel's answer about an interface is not understood")),
    }
}
