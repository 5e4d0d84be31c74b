//! Everything that a use case can answer instead of its result.

use bulkhead_image::ImageError;
use bulkhead_machine::MachineError;
use bulkhead_model::container::SpecError;
use bulkhead_model::reference::ReferenceError;
use bulkhead_model::{Action, ContainerId, DecisionId, Reason};
use bulkhead_store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    #[error("no such exec instance: {0}")]
    NoSuchExec(String),
    #[error("the process takes no more input")]
    InputClosed,
    #[error("several containers match `{0}`")]
    AmbiguousContainer(String),
    #[error("no such image: {0}")]
    NoSuchImage(String),
    #[error("several images match `{0}`")]
    AmbiguousImage(String),
    #[error("no VCH `{0}`")]
    NoSuchVch(String),
    #[error("no plugin `{0}`")]
    NoSuchPlugin(String),
    #[error("several plugins are called `{text}`: say one by its digest, of {}", digests.join(", "))]
    AmbiguousPlugin { text: String, digests: Vec<String> },
    #[error("no binding `{0}`")]
    NoSuchBinding(String),
    #[error("plugin `{plugin}` is bound by {by}: unbind it first")]
    PluginInUse { plugin: String, by: String },
    /// A component that is none, or does not do what one must.
    #[error("this is no plugin that can be installed: {0}")]
    PluginRefused(String),
    /// The plugin found them wrong.
    #[error("the plugin does not take these settings: {}", .0.join("; "))]
    PluginSettings(Vec<String>),
    #[error(transparent)]
    Plugin(bulkhead_plugin::HostError),
    #[error("no decision `{0}`")]
    NoSuchDecision(String),
    #[error("decision {id} cannot be decided again: {why}")]
    NotReplayable { id: DecisionId, why: String },
    #[error("no draft `{0}`")]
    NoSuchDraft(String),
    #[error("no policy revision {0}")]
    NoSuchRevision(u64),
    #[error("draft {0} was changed meanwhile: read it again")]
    DraftChanged(String),
    /// Somebody else's set came in between.
    #[error(
        "revision {active} of the policies is in force, not {expected}: look at what changed and try again"
    )]
    PoliciesChanged { expected: u64, active: u64 },
    /// With every place that is wrong.
    #[error("{0}")]
    PoliciesRefused(Box<bulkhead_policy::PolicyError>),
    #[error("the container name `{name}` is in use by container {holder}")]
    NameInUse { name: String, holder: ContainerId },
    #[error("the VCH name `{0}` is in use")]
    VchNameInUse(String),
    #[error(
        "VCH `{name}` has {containers} containers and {volumes} volumes; remove them first, or remove it with force"
    )]
    VchNotEmpty { name: String, containers: u64, volumes: u64 },
    #[error(
        "invalid container name `{0}`: expected letters, digits, `_`, `.` and `-`, two at least, beginning with a letter or digit"
    )]
    InvalidName(String),
    #[error("denied by {reason} (decision {decision}; see: bulkhead decision show {decision})", reason = summary(.reasons))]
    Denied { action: Action, decision: DecisionId, reasons: Vec<Reason> },
    /// A limit of the VCH.
    #[error("{0}")]
    Limit(Box<Reason>),
    #[error("container {0} is running")]
    IsRunning(ContainerId),
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    #[error("container {0} is being removed")]
    BeingRemoved(ContainerId),
    #[error("container {0} is paused")]
    IsPaused(ContainerId),
    #[error("container {0} is not paused")]
    NotPaused(ContainerId),
    #[error("container {0} is restarting, wait until the container is running")]
    IsRestarting(ContainerId),
    #[error("configured logging driver does not support reading")]
    LogNotKept,
    #[error("could not find `{path}` in container {container}")]
    NoSuchFile { path: String, container: String },
    /// Work on a container's files that failed in its guest.
    #[error("{message}")]
    Files { why: crate::FileFault, message: String },
    /// Two things that were asked for exclude each other.
    #[error("{0}")]
    Conflict(String),
    /// `by`: the container that uses it; `running`: force does not help then.
    #[error("image {image} is used by container {by}")]
    ImageInUse { image: String, by: ContainerId, running: bool },
    #[error("no such volume: {0}")]
    NoSuchVolume(String),
    /// Containers have it, whether they run or not.
    #[error("volume {name} is in use by {} containers", containers.len())]
    VolumeInUse { name: String, containers: Vec<ContainerId> },
    #[error(
        "volume {name} is in use by container {by}: a volume is in one running machine at a time, unless all mount it \
         read-only; stop that container first",
        by = .by.short()
    )]
    VolumeHeld { name: String, by: ContainerId },
    /// The image's last name, while `by` uses the image.
    #[error("image {image} loses its last name {name} while container {by} uses it")]
    ImageNameInUse { name: String, image: String, by: ContainerId },
    #[error("image {0} has several names")]
    ImageHasNames(String),
    #[error("image {image} is for {found}, this engine runs {wanted}")]
    WrongPlatform { image: String, found: String, wanted: String },
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    #[error("several networks match `{0}`")]
    AmbiguousNetwork(String),
    /// What was asked of networks cannot be, in the user's words.
    #[error("{0}")]
    BadNetwork(String),
    #[error("network with name {0} already exists")]
    NetworkNameInUse(String),
    /// What others have, or what is there for all, stands in the way; in the user's words.
    #[error("{0}")]
    NetworkForbidden(String),
    /// What publishing asks for is not the VCH's to have.
    #[error(transparent)]
    Publish(#[from] bulkhead_model::ports::PublishError),
    /// Something of networks, addresses or ports that cannot be, in the user's words.
    #[error("{0}")]
    Network(String),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("invalid {what} `{value}`: {why}")]
    Invalid { what: &'static str, value: String, why: String },
    /// The process could not be started; `code` is what the container exits with.
    #[error("{message}")]
    StartFailed { code: i32, message: String },
    #[error("no such template: {0}")]
    NoSuchTemplate(String),
    #[error("gave up after {0} seconds")]
    TimedOut(u64),
    #[error("this server lost its claim on the data to a newer one, and stops changing anything")]
    Fenced,
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Store(StoreError),
    #[error("the server is stopping")]
    Stopping,
}

/// The first reason is the one that a user reads; the decision has them all.
fn summary(reasons: &[Reason]) -> String {
    match reasons {
        [] => "the policies".into(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first}, and {} more", rest.len()),
    }
}
