//! The use cases: where model, store, policy, images and machines meet.
//!
//! ```text
//!   docker-api, admin-api ──▶ use case ──▶ policy decides ──▶ store: desired state, event, audit (one transaction)
//!                                                                │ wake
//!   back end ──── events wake ────▶ driver (one per container) ◀─┘
//!                                      │ observe → next() → act → store: actual state
//! ```
//!
//! **Invariants:** a use case changes only what is desired, and waits; one driver task per container is the only
//! writer of its actual state; every use case asks the policies before it does or tells anything. No word of
//! Docker's API is spoken here.

mod admission;
mod archives;
mod clock;
mod containers;
mod driver;
mod error;
mod exec;
mod feed;
mod files;
mod fsck;
mod guest;
mod health;
mod images;
mod input;
mod layers;
mod log;
mod lookup;
mod machines;
mod networks;
mod observe;
mod output;
mod placement;
mod plugins;
mod policies;
mod pruned;
mod pull;
mod recovery;
mod system;
mod templates;
mod vchs;
mod volumes;
mod wait;
mod watch;

pub use archives::{Loaded, Saved};
pub use containers::create::{ClientView, Created};
pub use containers::prune::Pruned;
pub use containers::update::Update;
pub use containers::{Changed, ContainerUsage};
pub use driver::Phase;
pub use error::EngineError;
pub use exec::{ExecAsk, ExecFacts, ExecSession};
pub use feed::EventQuery;
pub use files::{ArchiveIn, ChangeKind, CommitAsk, FileChange, FileFault, Pieces};
pub use fsck::Finding;
pub use images::{PrunedImages, RemovedImage};
pub use input::{Input, Size};
pub use log::{Log, LogLine, LogQuery};
pub use machines::MachineReport;
pub use networks::{NewNetwork, NewPool6};
pub use observe::{Happening, Observer};
pub use output::{Output, OutputStream};
pub use plugins::{NewBinding, NewScope};
pub use policies::{
    Activation, CaseResult, DecisionFilter, Difference, DraftCheck, DraftFiles, Expected, FileDifference,
    Flip, NewDraft, PolicyError, PolicyProblem, Replay, RevisionDifference, WhatIf, WhatIfQuery,
    open_policies,
};
pub use pull::{Pull, PullOutcome};
pub use system::SystemFacts;
pub use templates::TemplateReport;
pub use vchs::{NewVch, VchUsage};
pub use volumes::{PrunedVolumes, VolumeFacts, VolumeStoreFacts};
pub use wait::{WaitFor, Waiting};
pub use watch::{Sample, Stats};

// What callers need of it, so that they need not know the crate.
pub use bulkhead_guest_protocol::files::PathStat;
pub use bulkhead_guest_protocol::watch::{DeviceUsage, InterfaceUsage, Process, Processes, Traffic, Usage};
pub use bulkhead_image::registry::{Credentials, Described};
pub use bulkhead_image::{ImageError, PullProgress, Stage};
pub use bulkhead_machine::Condition;
pub use bulkhead_machine::templates::{ImageFacts, TemplateFacts, TemplateState};

use bulkhead_image::convert::Converter;
use bulkhead_image::registry::Registries;
use bulkhead_machine::BackEnd;
use bulkhead_model::{Caller, Clock, VchId};
use bulkhead_policy::Decider;
use bulkhead_store::{Fence, Store};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What an engine is built from.
#[derive(Debug)]
pub struct EngineParts {
    pub store: Store,
    pub back_end: BackEnd,
    pub policies: Arc<Decider>,
    pub plugins: bulkhead_plugin::Host,
    pub registries: Registries,
    /// How layer conversion children are started.
    pub converter: Converter,
    pub clock: Clock,
    /// From `Store::claim_server`; a later claim fences this engine off.
    pub fence: Fence,
    pub settings: EngineSettings,
    pub observer: Observer,
}

/// Set by the operator in the configuration file.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Product version, for `info`.
    pub version: String,
    /// Where archives of `load` and `save` are spooled.
    pub work_dir: std::path::PathBuf,
    /// Decisions are kept this many days.
    pub decision_days: u32,
    /// Whom containers ask for names that are not their networks' own, if they do not say.
    pub dns: Vec<std::net::IpAddr>,
}

/// The engine; cloning shares it.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    back_end: BackEnd,
    policies: Arc<Decider>,
    policy_desk: policies::PolicyDesk,
    plugins: plugins::Plugins,
    registries: Registries,
    converter: Converter,
    clock: Clock,
    fence: Fence,
    settings: EngineSettings,
    observer: Observer,
    feed: feed::Feed,
    drivers: driver::Drivers,
    execs: exec::Execs,
    pulls: pull::Pulls,
    volume_gate: Arc<tokio::sync::Mutex<()>>,
    /// One container at a time is given its place.
    placing: Arc<tokio::sync::Mutex<()>>,
    keeper: networks::Keeper,
    vchs_changed: tokio::sync::watch::Sender<u64>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Who asks, and of which VCH. Made by a listener, which knows both for certain.
#[derive(Debug, Clone)]
pub struct Session {
    pub vch: VchId,
    pub caller: Caller,
}

impl Engine {
    /// Builds the engine and starts a driver for each container that the store knows: machines that outlived the
    /// last server are found again, the others' ends are recorded.
    pub async fn start(parts: EngineParts) -> Result<Self, EngineError> {
        let stop = CancellationToken::new();
        let inner = Inner {
            fence: parts.fence,
            feed: feed::Feed::new(),
            drivers: driver::Drivers::new(),
            execs: exec::Execs::default(),
            pulls: pull::Pulls::new(),
            volume_gate: Arc::default(),
            placing: Arc::default(),
            keeper: networks::Keeper::default(),
            vchs_changed: tokio::sync::watch::Sender::new(0),
            tasks: TaskTracker::new(),
            stop,
            store: parts.store,
            back_end: parts.back_end,
            policies: parts.policies,
            policy_desk: policies::PolicyDesk::new(),
            plugins: plugins::Plugins::new(parts.plugins),
            registries: parts.registries,
            converter: parts.converter,
            clock: parts.clock,
            settings: parts.settings,
            observer: parts.observer,
        };
        let engine = Self(Arc::new(inner));
        engine.start_plugins().await?;
        engine.recover().await?;
        Ok(engine)
    }

    /// Stops drivers and background work; machines go on. Returns when all tasks have ended.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn back_end(&self) -> &BackEnd {
        &self.0.back_end
    }

    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.0.clock.now()
    }
}
