//! Everything that a back end has on its host, whoever it belongs to: for those who look for what belongs to nobody.

use crate::MachineError;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of thing it is, and by that what its id is an id of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Of a container.
    Machine,
    /// Of a container.
    Process,
    /// Of a container.
    Disk,
    /// Of a container.
    Journal,
    /// Of a VCH.
    Namespace,
    /// Of a VCH.
    Uplink,
    /// Of a network.
    Bridge,
    /// Of a place on a network.
    Tap,
    /// Of a place on a network.
    Rule,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Machine => "machine",
            Kind::Process => "process",
            Kind::Disk => "disk",
            Kind::Journal => "journal",
            Kind::Namespace => "namespace",
            Kind::Uplink => "uplink",
            Kind::Bridge => "bridge",
            Kind::Tap => "tap",
            Kind::Rule => "rule",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Found {
    pub kind: Kind,
    /// Of whom it is, as much as the host has room for: the beginning of an id, without hyphens.
    pub of: String,
    /// What it is called on the host.
    pub name: String,
}

#[async_trait]
pub trait Inventory: Send + Sync + fmt::Debug {
    /// As of now, read from the host anew. Of this server only, as far as that can be told.
    async fn found(&self) -> Result<Vec<Found>, MachineError>;
}
