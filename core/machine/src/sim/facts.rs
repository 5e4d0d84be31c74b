//! What a simulated container takes: a quarter of a CPU, and the same memory always.

use super::agent::{Guest, now_ns};
use bulkhead_guest_protocol::message::{AgentState, ReplyBody};
use bulkhead_guest_protocol::watch::{DeviceUsage, InterfaceUsage, Process, Processes, Traffic, Usage};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

const TICKS_PER_S: u32 = 100;
const NS_PER_TICK: u64 = 10_000_000;
const MIB: u64 = 1 << 20;
pub(super) const MEMORY_BYTES: u64 = 3 * MIB;

fn started_ns(state: &AgentState) -> Option<u64> {
    match state {
        AgentState::Running { started_unix_ns, .. } => Some(*started_unix_ns),
        AgentState::Ready | AgentState::Over { .. } => None,
    }
}

fn no_process() -> ReplyBody {
    ReplyBody::Refused { message: "no process runs".into() }
}

/// Its own process; those beside it are not told.
pub(super) fn processes(guest: &Guest) -> ReplyBody {
    let inside = guest.lock();
    let Some(started_ns) = started_ns(&inside.state) else { return no_process() };
    let unix_ns = now_ns();
    let age_ticks = unix_ns.saturating_sub(started_ns) / NS_PER_TICK;
    let first = Process {
        pid: 1,
        group: 1,
        session: 1,
        state: b'S',
        threads: 1,
        started_ticks: 100,
        cpu_ticks: age_ticks / 4,
        virtual_bytes: 4 * MIB,
        resident_bytes: MIB,
        name: "sim".into(),
        command: inside.args.join(" "),
        ..Process::default()
    };
    ReplyBody::Processes(Box::new(Processes {
        list: vec![first],
        left_off: 0,
        uptime_ticks: 100 + age_ticks,
        ticks_per_s: TICKS_PER_S,
        unix_ns,
        memory_bytes: 256 * MIB,
    }))
}

/// Ten packets came in on each, and five went out.
fn network(guest: &Guest) -> Vec<InterfaceUsage> {
    let network = guest.network.lock().unwrap_or_else(PoisonError::into_inner);
    let traffic = |packets| Traffic { bytes: 100 * packets, packets, ..Traffic::default() };
    let interface =
        |(at, _)| InterfaceUsage { name: format!("eth{at}"), received: traffic(10), sent: traffic(5) };
    network.interfaces.iter().enumerate().map(interface).collect()
}

pub(super) fn usage(guest: &Guest) -> ReplyBody {
    let Some(started_ns) = started_ns(&guest.lock().state) else { return no_process() };
    let age_ns = now_ns().saturating_sub(started_ns);
    ReplyBody::Usage(Box::new(Usage {
        system_ns: 1_000_000_000 + age_ns,
        cpus: 1,
        cpu_ns: age_ns / 4,
        user_ns: age_ns / 8,
        kernel_ns: age_ns / 8,
        memory_bytes: guest.memory_bytes.load(Ordering::Relaxed),
        memory_limit_bytes: 64 * MIB,
        memory: vec![("anon".into(), MIB), ("inactive_file".into(), MIB)],
        pids: 1,
        devices: vec![DeviceUsage {
            major: 8,
            minor: 16,
            read_bytes: 2 * MIB,
            write_bytes: MIB,
            reads: 20,
            writes: 10,
        }],
        interfaces: network(guest),
        ..Usage::default()
    }))
}
