//! What no rule let pass does not pass, also where there is no rule any more.
//!
//! Rules mark what they let pass ([`super::rules::MARK`]). Two things that no flush of rules takes away look for the
//! mark: a program at each tap's end towards its machine, and the namespace's choice of routes. So a flush closes
//! everything at once, whether or not a server is there to see it.

use super::names::UPLINK;
use super::namespace::{Namespace, output};
use super::netlink::{self, ask, attribute};
use super::rules::MARK;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Who may be routed, in turn; nobody else.
const ROUTED: [(u32, &str); 3] = [(90, "iif uplink"), (100, "fwmark"), (110, "iif lo")];
/// By which everybody may, if it is left there.
const FOR_ALL: u64 = 32766;

/// Routes are for what comes in by the uplink, what is marked, and the namespace's own.
pub(crate) fn ensure_rules(namespace: &Namespace) -> io::Result<()> {
    for family in ["-4", "-6"] {
        let listed = namespace.enter(|| output("ip", ["-json", family, "rule", "show"]))?;
        let listed: serde_json::Value = serde_json::from_slice(&listed)?;
        let there: Vec<u64> = listed
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|rule| rule.get("priority")?.as_u64())
            .collect();
        let mut lines = Vec::new();
        for (priority, who) in ROUTED.iter().filter(|(priority, _)| !there.contains(&u64::from(*priority))) {
            let who = match *who {
                "fwmark" => format!("fwmark {MARK}"),
                "iif uplink" => format!("iif {UPLINK}"),
                other => other.to_owned(),
            };
            lines.push(format!("rule add pref {priority} {who} lookup main"));
        }
        if there.contains(&FOR_ALL) {
            lines.push(format!("rule delete pref {FOR_ALL}"));
        }
        namespace.change_routing(family, &lines)?;
    }
    Ok(())
}

/// linux/bpf.h, linux/bpf_common.h
mod bpf {
    pub(super) const PROG_LOAD: libc::c_long = 5;
    pub(super) const SCHED_CLS: u32 = 3;

    #[repr(C)]
    pub(super) struct Instruction {
        pub(super) code: u8,
        /// Destination in the low half, source in the high one.
        pub(super) registers: u8,
        pub(super) offset: i16,
        pub(super) immediate: i32,
    }

    /// The beginning of `union bpf_attr` for loading; the kernel takes what is missing for zero.
    #[repr(C)]
    pub(super) struct Load {
        pub(super) kind: u32,
        pub(super) instructions: u32,
        pub(super) first: u64,
        pub(super) license: u64,
        pub(super) log: [u64; 2],
        pub(super) kernel_version: u32,
        pub(super) flags: u32,
    }
}

/// Drops frames without the mark.
fn program() -> io::Result<OwnedFd> {
    const LOAD_WORD: u8 = 0x61;
    const JUMP_IF_EQUAL: u8 = 0x15;
    const SET: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    /// Of `struct __sk_buff`.
    const OFFSET_OF_MARK: i16 = 8;
    const PASS: i32 = 0;
    const SHOT: i32 = 2;
    let instruction =
        |code, registers, offset, immediate| bpf::Instruction { code, registers, offset, immediate };
    let code = [
        instruction(LOAD_WORD, 0x10, OFFSET_OF_MARK, 0),
        instruction(JUMP_IF_EQUAL, 0, 2, i32::try_from(MARK).map_err(io::Error::other)?),
        instruction(SET, 0, 0, SHOT),
        instruction(EXIT, 0, 0, 0),
        instruction(SET, 0, 0, PASS),
        instruction(EXIT, 0, 0, 0),
    ];
    let license = c"Apache-2.0";
    let load = bpf::Load {
        kind: bpf::SCHED_CLS,
        instructions: u32::try_from(code.len()).map_err(io::Error::other)?,
        first: code.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log: [0; 2],
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `load` and what it points to outlive the call, which returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, bpf::PROG_LOAD, &raw const load, size_of::<bpf::Load>()) };
    match i32::try_from(fd) {
        // SAFETY: the descriptor is new and belongs to nobody else.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h
const NEW_QDISC: u16 = 36;
const NEW_FILTER: u16 = 44;
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const EGRESS: u32 = 0xffff_fff3;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const BPF_FD: u16 = 6;
const BPF_FLAGS: u16 = 8;
const DIRECT_ACTION: u32 = 1;
/// The first one, for every protocol.
const PRIORITY: u32 = 1 << 16 | 0x0300;

/// Lets frames through to the machine behind this tap only with the mark. In the namespace of the tap.
pub(crate) fn close(index: u32) -> io::Result<()> {
    let netlink = netlink::open()?;
    let program = program()?;
    let clsact = attribute(KIND, b"clsact\0");
    ask(&netlink, NEW_QDISC, &traffic(index, CLSACT_HANDLE, CLSACT, 0), &clsact)?;
    let fd = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    let options =
        [attribute(BPF_FD, &fd.to_ne_bytes()), attribute(BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes())].concat();
    let filter = [attribute(KIND, b"bpf\0"), attribute(OPTIONS, &options)].concat();
    ask(&netlink, NEW_FILTER, &traffic(index, 0, EGRESS, PRIORITY), &filter)
}

/// `struct tcmsg`
fn traffic(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, index, handle, parent, info].into_iter().flat_map(u32::to_ne_bytes).collect()
}
