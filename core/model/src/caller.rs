//! Who asks.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The identity behind a request, as the listener established it; never taken from the request itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// `uid:1000` for a local peer, `cert:NAME` for a client certificate, `system` for the engine itself.
    pub name: String,
    pub via: Via,
}

/// How a caller came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// A unix socket; the kernel vouched for the uid (SO_PEERCRED).
    Unix,
    /// TLS with a client certificate.
    Tls,
    /// Plain TCP on loopback: nobody vouched for anything.
    Loopback,
    /// The engine's own work: restarts, recovery.
    System,
}

impl Caller {
    pub fn unix(uid: u32) -> Self {
        Self { name: format!("uid:{uid}"), via: Via::Unix }
    }

    pub fn system() -> Self {
        Self { name: "system".into(), via: Via::System }
    }
}

impl Via {
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Unix => "unix",
            Via::Tls => "tls",
            Via::Loopback => "loopback",
            Via::System => "system",
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
