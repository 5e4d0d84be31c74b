//! The vocabulary of Bulkhead: one type per noun, and the pure rules that bind them.
//!
//! **Invariant:** no I/O, no async, no clock and no randomness of its own; both come in as arguments.
//! Everything here can be tested by calling it.

pub mod action;
pub mod boot;
pub mod caller;
pub mod capability;
pub mod clock;
pub mod container;
pub mod decision;
pub mod digest;
pub mod event;
pub mod health;
pub mod ids;
pub mod image;
pub mod ipv6;
pub mod lifecycle;
pub mod log;
pub mod network;
pub mod placement;
pub mod plugin;
pub mod policy;
pub mod ports;
pub mod process;
pub mod reason;
pub mod reference;
pub mod restart;
pub mod size;
pub mod vch;
pub mod volume;

pub use action::Action;
pub use boot::Boot;
pub use caller::Caller;
pub use clock::Clock;
pub use container::{Container, ContainerAsk, ContainerSpec, Resources, StdioOptions};
pub use decision::{Decision, Verdict};
pub use digest::Digest;
pub use event::Event;
pub use ids::{ContainerId, DecisionId, EndpointId, NetworkId, ServerId, VchId, VolumeId};
pub use image::{Image, ImageConfig, Layer, Origin};
pub use log::{LogDriver, LogOptions};
pub use network::{Endpoint, Network, NetworkOptions};
pub use placement::Placement;
pub use policy::{DraftName, PolicyDraft, PolicyFiles, PolicyOrigin, PolicyRevision};
pub use ports::Published;
pub use process::ProcessOptions;
pub use reason::Reason;
pub use reference::Reference;
pub use restart::{RestartPolicy, Restarts};
pub use vch::{Class, Vch, VchSettings, VolumeStore, VolumeStoreName};
pub use volume::{Mount, Volume, VolumeName};
