//! The filter of system calls: what Docker's default profile keeps from containers, with regard to their capabilities.
//!
//! What is kept back is a short list and what is let through a long one, so the list says what is refused, up to the
//! newest call that was looked at; a newer one does not exist here. The kernel remembers which calls are let through
//! without a look at their arguments, so the order costs nothing.

use crate::failure::{Doing, Failure};
use crate::sys;
use libc::{c_long, sock_filter};

/// From uapi/linux/audit.h.
const ARCH_X86_64: u32 = 0xc000_003e;
const ARCH_I386: u32 = 0x4000_0003;
/// Of the calls that are in the list below or are let through: `mseal`. Above are also the calls of x32.
const NEWEST: u32 = 462;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

/// Places in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Capabilities that lift a refusal, as bits.
const NEVER: u64 = 0;
const DAC_READ_SEARCH: u64 = 1 << 2;
const MODULE: u64 = 1 << 16;
const RAWIO: u64 = 1 << 17;
const CHROOT: u64 = 1 << 18;
const PTRACE: u64 = 1 << 19;
const PACCT: u64 = 1 << 20;
const ADMIN: u64 = 1 << 21;
const BOOT: u64 = 1 << 22;
const NICE: u64 = 1 << 23;
const TIME: u64 = 1 << 25;
const TTY_CONFIG: u64 = 1 << 26;
const SYSLOG: u64 = 1 << 34;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// A call that 64-bit or 32-bit programs do not have.
const NONE: c_long = -1;

/// By its number for 64-bit and for 32-bit programs, and what lifts the refusal. Calls that the kernel has no more are
/// left out.
const REFUSED: [(c_long, c_long, u64); 61] = [
    (libc::SYS_acct, 51, PACCT),
    (libc::SYS_add_key, 286, NEVER),
    (libc::SYS_bpf, 357, ADMIN | BPF),
    (libc::SYS_chroot, 61, CHROOT),
    (libc::SYS_clock_settime, 264, TIME),
    (NONE, 404, TIME), // clock_settime64
    (libc::SYS_delete_module, 129, MODULE),
    (libc::SYS_fanotify_init, 338, ADMIN),
    (libc::SYS_finit_module, 350, MODULE),
    (libc::SYS_fsconfig, 431, ADMIN),
    (libc::SYS_fsmount, 432, ADMIN),
    (libc::SYS_fsopen, 430, ADMIN),
    (libc::SYS_fspick, 433, ADMIN),
    (libc::SYS_get_mempolicy, 275, NICE),
    (libc::SYS_init_module, 128, MODULE),
    (libc::SYS_io_uring_enter, 426, NEVER),
    (libc::SYS_io_uring_register, 427, NEVER),
    (libc::SYS_io_uring_setup, 425, NEVER),
    (libc::SYS_ioperm, 101, RAWIO),
    (libc::SYS_iopl, 110, RAWIO),
    (libc::SYS_kcmp, 349, PTRACE),
    (libc::SYS_kexec_file_load, NONE, NEVER),
    (libc::SYS_kexec_load, 283, NEVER),
    (libc::SYS_keyctl, 288, NEVER),
    (libc::SYS_lookup_dcookie, 253, ADMIN),
    (libc::SYS_mbind, 274, NICE),
    (libc::SYS_migrate_pages, 294, NEVER),
    (libc::SYS_mount, 21, ADMIN),
    (libc::SYS_mount_setattr, 442, ADMIN),
    (libc::SYS_move_mount, 429, ADMIN),
    (libc::SYS_move_pages, 317, NEVER),
    (libc::SYS_open_by_handle_at, 342, DAC_READ_SEARCH),
    (libc::SYS_open_tree, 428, ADMIN),
    (libc::SYS_perf_event_open, 336, ADMIN | PERFMON),
    (libc::SYS_pidfd_getfd, 438, PTRACE),
    (libc::SYS_pivot_root, 217, NEVER),
    (libc::SYS_process_madvise, 440, PTRACE),
    (libc::SYS_quotactl, 131, ADMIN),
    (libc::SYS_quotactl_fd, 443, ADMIN),
    (libc::SYS_reboot, 88, BOOT),
    (libc::SYS_request_key, 287, NEVER),
    (libc::SYS_set_mempolicy, 276, NICE),
    (libc::SYS_set_mempolicy_home_node, 450, NICE),
    (libc::SYS_setdomainname, 121, ADMIN),
    (libc::SYS_sethostname, 74, ADMIN),
    (libc::SYS_setns, 346, ADMIN),
    (libc::SYS_settimeofday, 79, TIME),
    (NONE, 25, TIME), // stime
    (libc::SYS_swapoff, 115, NEVER),
    (libc::SYS_swapon, 87, NEVER),
    (libc::SYS_sysfs, 135, NEVER),
    (libc::SYS_syslog, 103, ADMIN | SYSLOG),
    (NONE, 22, ADMIN), // umount
    (libc::SYS_umount2, 52, ADMIN),
    (libc::SYS_unshare, 310, ADMIN),
    (libc::SYS_uselib, 86, NEVER),
    (libc::SYS_userfaultfd, 374, NEVER),
    (libc::SYS_ustat, 62, NEVER),
    (libc::SYS_vhangup, 111, TTY_CONFIG),
    (NONE, 166, NEVER), // vm86
    (NONE, 113, NEVER), // vm86old
];

/// Calls that depend on their first argument, in the same two ways.
const CLONE: (c_long, c_long) = (libc::SYS_clone, 120);
const CLONE3: (c_long, c_long) = (libc::SYS_clone3, 435);
const PERSONALITY: (c_long, c_long) = (libc::SYS_personality, 136);
const SOCKET: (c_long, c_long) = (libc::SYS_socket, 359);
/// Plain Linux, with or without random addresses or an old `uname`, and the question which it is.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, u32::MAX];

/// Filters the calls of this process and its children to come.
pub fn restrict(capabilities: u64) -> Result<(), Failure> {
    sys::filter_calls(&mut program(capabilities)).doing("filter system calls")
}

fn program(capabilities: u64) -> Vec<sock_filter> {
    let wide = section(capabilities, |(wide, _)| wide);
    let narrow = section(capabilities, |(_, narrow)| narrow);
    let skip = u32::try_from(wide.len()).unwrap_or(u32::MAX);
    // Another architecture cannot come.
    let other = answer(libc::SECCOMP_RET_KILL_PROCESS);
    let mut code = vec![load(ARCH), equal(ARCH_X86_64, 3, 0), equal(ARCH_I386, 1, 0), other, jump(skip)];
    code.extend(wide);
    code.extend(narrow);
    code
}

/// For one kind of programs; ends with an answer.
fn section(capabilities: u64, pick: impl Fn((c_long, c_long)) -> c_long) -> Vec<sock_filter> {
    let mut code = vec![load(NUMBER), greater(NEWEST, 0, 1), answer(UNKNOWN)];
    let mut add = |call: (c_long, c_long), block: Vec<sock_filter>| {
        if let (Ok(number), Ok(length)) = (u32::try_from(pick(call)), u8::try_from(block.len())) {
            code.push(equal(number, 0, length));
            code.extend(block);
        }
    };
    for (wide, narrow, lifted_by) in REFUSED {
        if capabilities & lifted_by == 0 {
            add((wide, narrow), vec![answer(REFUSE)]);
        }
    }
    if capabilities & ADMIN == 0 {
        let namespaces = libc::CLONE_NEWNS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET;
        let block = [load(FIRST_ARGUMENT), any_of(namespaces.unsigned_abs(), 0, 1)];
        add(CLONE, block.into_iter().chain([answer(REFUSE), answer(ALLOW)]).collect());
        // Its flags are in memory, out of a filter's sight; programs then try the other one.
        add(CLONE3, vec![answer(UNKNOWN)]);
    }
    let mut block = vec![load(FIRST_ARGUMENT)];
    block.extend(PERSONALITIES.into_iter().flat_map(|known| [equal(known, 0, 1), answer(ALLOW)]));
    block.push(answer(REFUSE));
    add(PERSONALITY, block);
    let vsock = libc::AF_VSOCK.unsigned_abs();
    add(SOCKET, vec![load(FIRST_ARGUMENT), equal(vsock, 0, 1), answer(REFUSE), answer(ALLOW)]);
    code.push(answer(ALLOW));
    code
}

fn instruction(code: u32, k: u32, yes: u8, no: u8) -> sock_filter {
    // All codes fit.
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: yes, jf: no, k }
}

fn load(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0)
}

fn jump(over: u32) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, over, 0, 0)
}

fn equal(value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no)
}

fn greater(value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, value, yes, no)
}

fn any_of(bits: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bits, yes, no)
}

fn answer(what: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, what, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: u64 = 0xa804_25fb;
    const ALL: u64 = 0x1ff_ffff_ffff;

    /// Does what the kernel does with it, which checks it at load.
    fn ask(capabilities: u64, arch: u32, number: c_long, argument: u32) -> u32 {
        let program = program(capabilities);
        let (mut at, mut value) = (0, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            match u32::from(step.code) {
                0x20 => {
                    value = match step.k {
                        NUMBER => u32::try_from(number).unwrap(),
                        ARCH => arch,
                        FIRST_ARGUMENT => argument,
                        other => panic!("reads at {other}"),
                    }
                }
                0x05 => at += usize::try_from(step.k).unwrap(),
                0x15 => at += jump(value == step.k),
                0x25 => at += jump(value > step.k),
                0x45 => at += jump(value & step.k != 0),
                0x06 => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn wide(capabilities: u64, number: c_long, argument: u32) -> u32 {
        ask(capabilities, ARCH_X86_64, number, argument)
    }

    #[test]
    fn common_calls_pass_and_strong_ones_do_not() {
        for number in
            [libc::SYS_read, libc::SYS_execve, libc::SYS_ptrace, libc::SYS_chroot, libc::SYS_openat2]
        {
            assert_eq!(wide(DEFAULT, number, 0), ALLOW, "{number}");
        }
        for number in [libc::SYS_mount, libc::SYS_keyctl, libc::SYS_unshare, libc::SYS_bpf, libc::SYS_reboot]
        {
            assert_eq!(wide(DEFAULT, number, 0), REFUSE, "{number}");
        }
        assert_eq!(wide(DEFAULT, 463, 0), UNKNOWN);
        assert_eq!(wide(DEFAULT, 0x4000_0000, 0), UNKNOWN, "x32");
        assert_eq!(wide(DEFAULT & !CHROOT, libc::SYS_chroot, 0), REFUSE);
    }

    #[test]
    fn arguments_are_looked_at() {
        let thread = 0x3d_0f00;
        assert_eq!(wide(DEFAULT, libc::SYS_clone, thread), ALLOW);
        assert_eq!(wide(DEFAULT, libc::SYS_clone, libc::CLONE_NEWUSER.unsigned_abs()), REFUSE);
        assert_eq!(wide(DEFAULT, libc::SYS_clone3, 0), UNKNOWN);
        assert_eq!(wide(DEFAULT, libc::SYS_personality, 0x8), ALLOW);
        assert_eq!(wide(DEFAULT, libc::SYS_personality, 0x40_0000), REFUSE);
        assert_eq!(wide(DEFAULT, libc::SYS_socket, 2), ALLOW);
        assert_eq!(wide(DEFAULT, libc::SYS_socket, 40), REFUSE);
    }

    #[test]
    fn capabilities_lift_what_is_theirs() {
        for (number, capability) in
            [(libc::SYS_mount, ADMIN), (libc::SYS_bpf, BPF), (libc::SYS_settimeofday, TIME)]
        {
            assert_eq!(wide(DEFAULT | capability, number, 0), ALLOW, "{number}");
            assert_eq!(wide(ALL, number, 0), ALLOW, "{number}");
        }
        assert_eq!(wide(DEFAULT | ADMIN, libc::SYS_clone3, 0), ALLOW);
        assert_eq!(wide(ALL, libc::SYS_keyctl, 0), REFUSE);
    }

    #[test]
    fn programs_of_32_bits_are_filtered_by_their_own_numbers() {
        assert_eq!(ask(DEFAULT, ARCH_I386, 21, 0), REFUSE, "mount");
        assert_eq!(ask(DEFAULT, ARCH_I386, 165, 0), ALLOW, "where 64-bit programs have mount");
        assert_eq!(ask(DEFAULT, ARCH_I386, 120, libc::CLONE_NEWNS.unsigned_abs()), REFUSE);
        assert_eq!(ask(DEFAULT, ARCH_I386, 3, 0), ALLOW);
        assert_eq!(ask(DEFAULT, 7, 3, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
