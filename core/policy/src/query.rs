//! What is asked of the policies and what they answer: model types in, a verdict with its reasons out.

use bulkhead_model::container::ContainerSpec;
use bulkhead_model::{Action, Caller, ContainerId, Image, Network, Reason, Vch, Verdict, Volume};
use chrono::{DateTime, Utc};

/// One question. Everything in it is the typed request that will be carried out, never what a client sent.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    pub action: Action,
    /// As the listener established it.
    pub caller: &'a Caller,
    /// The VCH at whose Docker endpoint the caller came in: this is what makes it a user of that VCH's tenant.
    /// `None` at the operator's socket and for the engine's own work.
    pub endpoint: Option<&'a Vch>,
    pub subject: Subject<'a>,
    pub host: HostFacts<'a>,
    /// As it would be after this request. Read by policies of `container.create` and `volume.create` only;
    /// `Usage::default()` elsewhere.
    pub usage_after: Usage,
    pub now: DateTime<Utc>,
}

/// What is acted on. The schema says which action takes which; another pair is denied.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// The installation as a whole: `vch.list`, and `decision.read` where the decision's VCH is gone.
    Platform,
    /// `system.*`, `registry.login`, `*.list`, `image.load`, `network.prune`, `vch.create|inspect|update|delete`, `decision.read`.
    Vch(&'a Vch),
    /// `container.*` but `list`. On create it is the container that would be made, decided spec and all.
    Container { vch: &'a Vch, container: ContainerFacts<'a> },
    /// `image.pull|inspect|tag|remove|save`.
    Image { vch: &'a Vch, image: ImageFacts<'a> },
    /// `volume.create|inspect|remove`. On create it is the volume that would be made.
    Volume { vch: &'a Vch, volume: &'a Volume },
    /// `network.create|remove|connect|disconnect`. `container`: the name of the one that comes or goes.
    Network { vch: &'a Vch, network: &'a Network, container: &'a str },
}

#[derive(Debug, Clone, Copy)]
pub struct ContainerFacts<'a> {
    pub id: &'a ContainerId,
    pub name: &'a str,
    /// `Container::owner`: the name of the caller that made it.
    pub owner: &'a str,
    /// As decided, not as asked.
    pub spec: &'a ContainerSpec,
    pub image: ImageFacts<'a>,
}

#[derive(Debug, Clone, Copy)]
pub struct ImageFacts<'a> {
    /// The reference as it was asked for (`ContainerAsk::image`, the argument of a pull): a name, an id.
    pub asked: &'a str,
    /// The image in the VCH's cache. Its recorded origins are what policies judge, not its names. `None` where it
    /// is not there (yet): a pull is judged by the registry that `asked` names, anything else has no origin then.
    pub cached: Option<&'a Image>,
}

/// What runs the machines; from the back end's capabilities.
#[derive(Debug, Clone, Copy)]
pub struct HostFacts<'a> {
    /// `kvm`, `tcg`, `sim`.
    pub accelerator: &'a str,
    /// Whether hardware separates guests from the host.
    pub hardware_isolation: bool,
}

/// What a VCH uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub containers: u32,
    /// Of running containers together, in bytes.
    pub memory_bytes: u64,
    pub volumes: u32,
    /// Sizes of all volumes together, in bytes.
    pub volumes_bytes: u64,
    /// Of those in the same volume store.
    pub store_bytes: u64,
}

/// What the operator's configuration adds to the facts that policies see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `registry.example:5000`, or with a path (`docker.io/library`) for the repositories below it only.
    pub trusted_registries: Vec<String>,
    /// Local users who administer the installation, besides root.
    pub operator_uids: Vec<u32>,
    /// Emulated machines (no hardware isolation) are good enough even where policies ask.
    pub accepts_emulation: bool,
}

/// The answer. The engine gives it an id and stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Of a denial: every policy that forbids it, or that nothing permits it, or what failed.
    /// Of a permission: the policies that permit it.
    pub reasons: Vec<Reason>,
    /// Of a denial: no change that a plugin may make of a container can make it pass. Nothing permits it, a policy failed,
    /// or one forbids it that looks at nothing of that kind.
    pub is_final: bool,
    /// What was acted on, as the policies saw it: `Container::"…"`.
    pub resource: String,
    /// Digest of the policy set that decided.
    pub policy_set: String,
    /// Time that it took, in microseconds.
    pub took_us: u64,
    /// What the policies saw, in Cedar's own JSON form and canonical order. Environment variables are there by
    /// name only; there are no secrets in it.
    pub inputs: serde_json::Value,
}

impl Outcome {
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

impl<'a> Subject<'a> {
    /// The VCH that it belongs to.
    pub fn vch(&self) -> Option<&'a Vch> {
        match *self {
            Subject::Platform => None,
            Subject::Vch(vch)
            | Subject::Container { vch, .. }
            | Subject::Image { vch, .. }
            | Subject::Network { vch, .. }
            | Subject::Volume { vch, .. } => Some(vch),
        }
    }
}
