//! Whatever comes over the channel is an answer or an error: nothing panics, and no memory is taken for what was only
//! promised. Both directions: what an agent sends to the server, and what a server sends to the agent.

use bulkhead_guest_protocol::files::{Assemble, FileTask, Files};
use bulkhead_guest_protocol::frame::{Decoder, PAYLOAD_BYTES_MAX, decode, encode};
use bulkhead_guest_protocol::journal::{Exited, Stream};
use bulkhead_guest_protocol::message::{
    AgentState, Event, Exec, Hello, Interior, Limit, Process, Reply, ReplyBody, Request, RequestBody, Start,
    Stdio, TerminalSize, Tmpfs, Took,
};
use bulkhead_guest_protocol::network::{Interface, Network};
use bulkhead_guest_protocol::volumes::{VolumeDisk, Volumes};
use bulkhead_guest_protocol::watch::{self, DeviceUsage, Processes, Usage};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what a thread asks for.
struct Counting;

thread_local! {
    static TAKEN_BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is the system's allocator's own; the counter is a plain number of this thread, which takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN_BYTES.with(|taken| taken.set(taken.get() + layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// For each byte of a message, and for promises of lists in lists: a reader trusts each with a million bytes at most.
fn bound_bytes(payload: &[u8]) -> usize {
    payload.len() * 256 + (4 << 20)
}

/// Decodes as both sides would. Whether one understood it.
fn try_both(payload: &[u8]) -> bool {
    let (reply, request) = (measured::<Reply>(payload), measured::<Request>(payload));
    reply | request
}

fn measured<T: DeserializeOwned>(payload: &[u8]) -> bool {
    let before = TAKEN_BYTES.get();
    let understood = decode::<T>(payload).is_ok();
    let taken = TAKEN_BYTES.get() - before;
    assert!(taken <= bound_bytes(payload), "{taken} bytes for a message of {}", payload.len());
    understood
}

fn payload(frame: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::default();
    decoder.push(frame);
    decoder.next_frame().unwrap()
}

fn replies() -> Vec<ReplyBody> {
    let text = || "text".to_owned();
    let process = watch::Process { pid: 7, name: text(), command: text(), ..watch::Process::default() };
    let device = DeviceUsage::default();
    vec![
        ReplyBody::Hello(Hello {
            protocol: 1,
            nonce: [1; 16],
            agent: text(),
            kernel: text(),
            token: Some([2; 32]),
            state: AgentState::Running { run: 1, pid: 2, started_unix_ns: 3 },
        }),
        ReplyBody::Started {
            pid: 1,
            unix_ns: u64::MAX,
            took: Took { disks_us: u32::MAX, ..Took::default() },
        },
        ReplyBody::StartFailed { code: -1, message: text() },
        ReplyBody::Done,
        ReplyBody::Processes(Box::new(Processes { list: vec![process; 3], ..Processes::default() })),
        ReplyBody::Usage(Box::new(Usage {
            memory: vec![(text(), 1); 3],
            devices: vec![device; 2],
            ..Usage::default()
        })),
        ReplyBody::Refused { message: text() },
        ReplyBody::Event(Event::Output { stream: 1, of: Stream::Stderr, data: vec![0; 300] }),
        ReplyBody::Event(Event::InputTaken { stream: 1, bytes: u32::MAX }),
        ReplyBody::Event(Event::Ended { stream: 1, exited: Exited::default() }),
    ]
}

fn requests() -> Vec<RequestBody> {
    let text = || "text".to_owned();
    let process = Process {
        args: vec![text(); 3],
        env: vec![text(); 3],
        working_dir: text(),
        user: text(),
        groups: vec![text()],
        capabilities: u64::MAX,
        filtered: true,
        no_new_privileges: false,
        limits: vec![Limit { resource: 1, soft: 2, hard: 3 }],
        oom_score_adj: -1,
    };
    let size = TerminalSize { rows: 24, columns: 80 };
    let stdio = Stdio { stdin: true, terminal: Some(size) };
    let interior = Interior {
        tmpfs: vec![Tmpfs { target: text(), ..Tmpfs::default() }],
        sysctls: vec![(text(), text())],
        masked_paths: vec![text(); 2],
        ..Interior::default()
    };
    let interface = Interface {
        mac: [2; 6],
        address: [10, 0, 0, 2].into(),
        prefix: 16,
        gateway: Some([10, 0, 0, 1].into()),
        six: None,
    };
    let network = Network {
        interfaces: vec![interface; 2],
        hosts: vec![(text(), [10, 0, 0, 3].into())],
        ..Network::default()
    };
    let volumes = Volumes { disks: vec![VolumeDisk { read_only: true }; 2], ..Volumes::default() };
    let write = FileTask::Write { path: text(), keep_kinds: true, owner: Some(text()), read_only: false };
    vec![
        RequestBody::Hello { protocol_min: 1, protocol_max: 2, nonce: [3; 16] },
        RequestBody::Start(Box::new(Start {
            token: [4; 32],
            run: 1,
            entropy: [4; 32],
            unix_ns: 5,
            hostname: text(),
            domain_name: text(),
            layer_count: 6,
            network: network.clone(),
            process: process.clone(),
            interior,
            stdio,
            journal_offset: 7,
            journal_limit: 8,
        })),
        RequestBody::Signal { number: 9 },
        RequestBody::Exec(Box::new(Exec { stream: 1, process, stdio, window: 2 })),
        RequestBody::Resize { stream: 1, size },
        RequestBody::Input { stream: 1, data: vec![0; 300] },
        RequestBody::Files(Box::new(Files { stream: 1, task: write, window: 3 })),
        RequestBody::Files(Box::new(Files {
            stream: 1,
            task: FileTask::Layer { mounts: vec![text(); 2], freeze: true },
            window: 3,
        })),
        RequestBody::Assemble(Assemble { token: [4; 32], unix_ns: 1, layer_count: 2, volumes }),
        RequestBody::Network(Box::new(network)),
    ]
}

fn messages() -> Vec<Vec<u8>> {
    let replies = replies().into_iter().map(|body| encode(&Reply { id: 1, body }).unwrap());
    let requests = requests().into_iter().map(|body| encode(&Request { id: 1, body }).unwrap());
    replies.chain(requests).map(|frame| payload(&frame)).collect()
}

#[test]
fn a_message_cut_at_any_byte_is_an_error() {
    for body in replies() {
        let whole = payload(&encode(&Reply { id: 1, body }).unwrap());
        for cut in 0..whole.len() {
            assert!(!measured::<Reply>(&whole[..cut]), "{whole:?} cut at {cut}");
        }
    }
    for body in requests() {
        let whole = payload(&encode(&Request { id: 1, body }).unwrap());
        for cut in 0..whole.len() {
            assert!(!measured::<Request>(&whole[..cut]), "{whole:?} cut at {cut}");
        }
    }
}

/// Each byte in turn becomes the beginning of a number as large as numbers get: each length that there is, among them.
#[test]
fn a_length_that_is_a_lie_takes_no_memory() {
    for whole in messages() {
        assert!(try_both(&whole));
        for at in 0..whole.len() {
            for lie in [
                &[0xff, 0xff, 0xff, 0xff, 0x0f][..],
                &[0xff; 10],
                &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x04],
                &[0x7f],
            ] {
                let lying = [&whole[..at], lie, &whole[at + 1..]].concat();
                try_both(&lying);
                try_both(&lying[..at + lie.len()]);
            }
        }
    }
}

/// A whole megabyte of promises.
#[test]
fn a_message_full_of_lies_takes_bounded_memory() {
    for lie in [&[0xff, 0xff, 0x3f][..], &[0x01], &[0x00], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
        for head in messages() {
            for length in [1, 2, 3, 8] {
                let body = lie.iter().copied().cycle().take(PAYLOAD_BYTES_MAX - length);
                let lying: Vec<u8> = head.iter().copied().take(length).chain(body).collect();
                try_both(&lying);
            }
        }
    }
}

proptest! {
    /// Frames whose sum is right and whose content is not, as a hostile agent would send them, in pieces.
    #[test]
    fn a_frame_with_any_content_is_harmless(
        parts in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![
                    (0_u8..16).prop_map(|small| vec![small]),
                    Just(vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
                    Just(vec![0xff, 0x7f]),
                    prop::collection::vec(any::<u8>(), 0..30),
                ],
                0..24,
            ),
            1..6,
        ),
        step in 1_usize..200,
    ) {
        // A tuple of bytes is encoded as those bytes, without a length.
        let frames: Vec<u8> = parts.iter().flat_map(|part| raw_frame(&part.concat())).collect();
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for piece in frames.chunks(step) {
            decoder.push(piece);
            while let Some(payload) = decoder.next_frame() {
                try_both(&payload);
                found.push(payload);
            }
        }
        prop_assert_eq!(found, parts.iter().map(|part| part.concat()).collect::<Vec<_>>());
    }

    /// Real messages with some bytes changed.
    #[test]
    fn a_damaged_message_is_harmless(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let all = messages();
        let mut message = which.get(&all).clone();
        for (at, byte) in damage {
            let at = at.index(message.len());
            message[at] = byte;
        }
        try_both(&message);
    }
}

/// A frame around bytes that are no message.
fn raw_frame(bytes: &[u8]) -> Vec<u8> {
    struct Raw<'a>(&'a [u8]);
    impl serde::Serialize for Raw<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeTuple as _;
            let mut tuple = serializer.serialize_tuple(self.0.len())?;
            for byte in self.0 {
                tuple.serialize_element(byte)?;
            }
            tuple.end()
        }
    }
    encode(&Raw(bytes)).unwrap()
}
