//! What every back end must do, as tests that run on each of them.
//!
//! A back end's tests say [`conformance!`](crate::conformance!) with a way to make a [`Fixture`]; each behaviour below
//! becomes a test of its own, on an installation of its own.

use crate::agent::{AgentClient, AgentError};
use crate::{
    BackEnd, Condition, Disks, Extent, JournalChunk, MachineError, MachineFacts, MachineSpec, MemoryFacts,
    VolumeDisk,
};
use async_trait::async_trait;
use bulkhead_guest_protocol::journal::{Body, Exited, Reader, Record};
use bulkhead_guest_protocol::message::{
    AgentState, Interior, Limits, Process, ReplyBody, RequestBody, Start, Stdio,
};
use bulkhead_model::placement::{DatastoreName, DiskPlace, Placement};
use bulkhead_model::volume::VolumePlace;
use bulkhead_model::{Boot, ContainerId, Digest, ServerId, VchId, VolumeId};
use std::error::Error;
use std::io::{Read, Write};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::{Instant, timeout};

mod disks;
mod journals;
mod machines;

pub use disks::*;
pub use journals::*;
pub use machines::*;

/// An empty installation of a back end.
#[async_trait]
pub trait Fixture: Send + Sync {
    fn back_end(&self) -> BackEnd;

    /// The same installation, opened by another server after the first one went away without a word.
    async fn reopen(&mut self) -> Result<BackEnd, Failure>;

    fn server(&self) -> ServerId;

    /// How its machines come to life.
    fn boot(&self) -> Boot {
        Boot::default()
    }

    /// Puts the layers of an image on the datastore in which [`Fixture::process`] can run.
    async fn image(&self, vch: VchId) -> Result<Vec<Digest>, Failure>;

    /// A process that does this.
    fn process(&self, what: &[Does]) -> Process;
}

/// What a process of these tests does, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Writes `line 1` to `line N` to its output.
    Count(u32),
    /// Waits for a signal. SIGTERM ends it once it has written something: a process needs a moment to be ready for it.
    Sleep,
    Exit(u8),
}

/// Why a test failed.
pub type Failure = Box<dyn Error + Send + Sync>;
pub type Outcome = Result<(), Failure>;

/// Fails the test with what was expected.
macro_rules! ensure {
    ($fact:expr, $($text:tt)+) => {
        if !$fact {
            return Err(format!($($text)+).into());
        }
    };
}
pub(crate) use ensure;

/// A boot on an emulated machine of a host that has much else to do.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(90);
pub const DEADLINE: Duration = Duration::from_secs(30);
const DISK_BYTES: u64 = 64 << 20;
const TOKEN: [u8; 32] = [0x5a; 32];

/// One `#[tokio::test]` for each behaviour; the argument is an expression, awaited, that makes a [`Fixture`].
#[macro_export]
macro_rules! conformance {
    ($fixture:expr) => {
        $crate::conformance!($fixture;
            a_start_may_be_repeated,
            what_is_not_there_is_told,
            a_process_runs_and_its_journal_is_whole,
            a_command_that_is_not_there_is_told,
            a_kill_is_final_and_may_be_repeated,
            a_paused_machine_stands_still_until_it_is_resumed,
            memory_comes_to_what_runs,
            an_end_wakes_whoever_listens,
            a_deleted_machine_starts_anew_and_its_journal_goes_on,
            a_new_channel_ends_the_last,
            a_machine_outlives_its_server,
            a_volume_is_one_machines_unless_all_read,
            a_journal_can_be_released,
            growth_wakes_the_reader,
            disks_are_made_once_and_deleted_once,
            layers_are_whole_or_not_there,
            volumes_are_made_grow_and_go,
            volumes_are_in_folders_that_were_made_ready,
        );
    };
    ($fixture:expr; $($behaviour:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let mut fixture = $fixture.await;
                if let Err(failure) = $crate::conformance::$behaviour(&mut fixture).await {
                    panic!("{failure}");
                }
            }
        )+
    };
}

/// A container that nobody else has.
pub fn container(number: u8) -> ContainerId {
    ContainerId::from_random([number; 32])
}

/// The disk of a container, where nobody named a datastore.
pub fn disk_of(id: &ContainerId) -> DiskPlace<'_> {
    DiskPlace { id, datastore: &DATASTORE }
}

static DATASTORE: LazyLock<DatastoreName> = LazyLock::new(DatastoreName::default);

/// A VCH of these tests.
pub fn vch() -> VchId {
    VchId(uuid_of(0x11))
}

fn uuid_of(byte: u8) -> uuid::Uuid {
    uuid::Uuid::from_bytes([byte; 16])
}

/// A machine that could start: its image is there, and its disk.
pub async fn prepare(fixture: &dyn Fixture, id: &ContainerId) -> Result<MachineSpec, Failure> {
    let layers = fixture.image(vch()).await?;
    fixture.back_end().disks.create_disk(vch(), disk_of(id), DISK_BYTES).await?;
    let spec = MachineSpec {
        id: id.clone(),
        vch: vch(),
        placement: Placement::default(),
        server: fixture.server(),
        cpu_milli: 1000,
        vcpus: 1,
        memory_bytes: 256 << 20,
        layers,
        volumes: Vec::new(),
        token: TOKEN,
        run: 1,
        journal_bytes_max: 1 << 20,
        nics: Vec::new(),
        boot: fixture.boot(),
    };
    fixture.back_end().machines.prepare(&spec, BOOT_DEADLINE).await?;
    Ok(spec)
}

/// Connects to the agent and hears who it is.
pub async fn greet(back_end: &BackEnd, spec: &MachineSpec) -> Result<(AgentClient, AgentState), Failure> {
    let mut agent = AgentClient::new(back_end.machines.channel(&spec.id).await?);
    let hello = agent.hello([7; 16], BOOT_DEADLINE).await?;
    ensure!(hello.token.is_none_or(|token| token == spec.token), "the agent said another token");
    Ok((agent, hello.state))
}

/// Makes the machine a container.
pub async fn run(
    back_end: &BackEnd,
    spec: &MachineSpec,
    agent: &mut AgentClient,
    process: Process,
) -> Result<ReplyBody, Failure> {
    let end = back_end.journals.extent(&spec.id).await?.end;
    let start = Start {
        token: spec.token,
        run: spec.run,
        entropy: [9; 32],
        unix_ns: 1_700_000_000_000_000_000,
        hostname: spec.id.short().into(),
        domain_name: String::new(),
        layer_count: u32::try_from(spec.layers.len())?,
        process,
        interior: Interior { shm_bytes: 64 << 20, ..Interior::default() },
        stdio: Stdio::default(),
        journal_offset: end,
        journal_limit: end + spec.journal_bytes_max,
        network: Default::default(),
    };
    Ok(agent.call(RequestBody::Start(Box::new(start)), BOOT_DEADLINE).await?)
}

/// Starts a machine and its process.
pub async fn start_process(
    fixture: &dyn Fixture,
    spec: &MachineSpec,
    what: &[Does],
) -> Result<AgentClient, Failure> {
    let back_end = fixture.back_end();
    back_end.machines.start(spec).await?;
    let (mut agent, _) = greet(&back_end, spec).await?;
    let reply = run(&back_end, spec, &mut agent, fixture.process(what)).await?;
    ensure!(matches!(reply, ReplyBody::Started { .. }), "the process did not start: {reply:?}");
    Ok(agent)
}

/// Waits until the process has written something.
pub async fn first_output(back_end: &BackEnd, id: &ContainerId) -> Outcome {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        let chunk = back_end.journals.read(id, 0, 64 << 10).await?;
        let mut reader = Reader::new(chunk.offset);
        reader.push(chunk.offset, &chunk.data);
        if std::iter::from_fn(|| reader.next_record())
            .any(|(_, record)| matches!(record.body, Body::Output { .. }))
        {
            return Ok(());
        }
        back_end.journals.grown(id, chunk.offset + u64::try_from(chunk.data.len())?).await;
    }
    Err("the process writes nothing".into())
}

/// All records of the journal up to the one that ends run `run`.
pub async fn records(back_end: &BackEnd, id: &ContainerId, run: u32) -> Result<Vec<Record>, Failure> {
    let deadline = Instant::now() + DEADLINE;
    let Extent { start, .. } = back_end.journals.extent(id).await?;
    let mut reader = Reader::new(start);
    let mut offset = start;
    let mut records = Vec::new();
    while Instant::now() < deadline {
        let JournalChunk { offset: at, data } = back_end.journals.read(id, offset, 64 << 10).await?;
        reader.push(at, &data);
        offset = at + u64::try_from(data.len())?;
        while let Some((_, record)) = reader.next_record() {
            let last = record.run == run && matches!(record.body, Body::Exited(_) | Body::StartFailed(_));
            records.push(record);
            if last {
                return Ok(records);
            }
        }
        if data.is_empty() {
            back_end.journals.grown(id, offset).await;
        }
    }
    Err(format!("the journal has no end of run {run}: {records:?}").into())
}

/// The output in these records as text.
pub fn output(records: &[Record], run: u32) -> String {
    let pieces = records.iter().filter(|record| record.run == run).filter_map(|record| match &record.body {
        Body::Output { data, .. } => Some(String::from_utf8_lossy(data).into_owned()),
        _ => None,
    });
    pieces.collect()
}

/// How the run ended, by its last record.
pub fn exit(records: &[Record]) -> Option<&Exited> {
    match records.last().map(|record| &record.body) {
        Some(Body::Exited(exited)) => Some(exited),
        _ => None,
    }
}

pub(crate) fn lines(count: u32) -> String {
    (1..=count).map(|line| format!("line {line}\n")).collect()
}

/// Waits until the machine has ended; its reason.
pub async fn ended(back_end: &BackEnd, id: &ContainerId) -> Result<String, Failure> {
    let mut changes = back_end.machines.changes();
    let wait = async {
        loop {
            match back_end.machines.observe(id).await? {
                None => return Err("the machine is not there".into()),
                Some(MachineFacts { condition: Condition::Ended { reason }, .. }) => return Ok(reason),
                // A wake-up that was missed is made up for by looking again soon.
                Some(_) => drop(timeout(Duration::from_millis(500), changes.recv()).await),
            }
        }
    };
    timeout(DEADLINE, wait).await.map_err(|_| "the machine does not end")?
}
