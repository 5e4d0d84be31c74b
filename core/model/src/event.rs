//! What happened, in order, per VCH.

use crate::ids::VchId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A thing that happened to an object of a VCH. Written in the transaction that made it true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub vch: VchId,
    /// Counts up by one per VCH, without gaps.
    pub seq: i64,
    pub at: DateTime<Utc>,
    pub kind: EventKind,
    pub action: String,
    /// Id (or reference, for images) of the object.
    pub actor: String,
    pub attributes: BTreeMap<String, String>,
}

/// An event before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub kind: EventKind,
    pub action: String,
    pub actor: String,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Container,
    Image,
    Vch,
    Volume,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Container => "container",
            EventKind::Image => "image",
            EventKind::Vch => "vch",
            EventKind::Volume => "volume",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Container, Self::Image, Self::Vch, Self::Volume].into_iter().find(|kind| kind.as_str() == text)
    }
}
