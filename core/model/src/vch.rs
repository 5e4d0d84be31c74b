//! Virtual container hosts: what they are and what they are set to.

use crate::boot::Boot;
use crate::ids::VchId;
use crate::ports::PublishGrant;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// One Docker API endpoint of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vch {
    pub id: VchId,
    pub name: VchName,
    /// Owner's name.
    pub tenant: String,
    pub class: Class,
    pub parent: Option<VchId>,
    pub settings: VchSettings,
    pub created_at: DateTime<Utc>,
    /// Set once deletion was asked for; everything in it is on its way out.
    pub deleting: bool,
}

/// `dev`, `test`, `prod`, or a class that the operator adds: which policies are in force.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Class(String);

/// A VCH's name: also a folder and a socket name, hence strict.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VchName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected 1 to 40 of a-z, 0-9 and `-`, beginning with a letter")]
pub struct NameError {
    pub kind: &'static str,
    pub text: String,
}

macro_rules! strict_name {
    ($name:ident, $kind:literal) => {
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let good = (1..=40).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
                if good { Ok(Self(text.into())) } else { Err(NameError { kind: $kind, text: text.into() }) }
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(crate) use strict_name;
strict_name!(Class, "class");
strict_name!(VchName, "VCH name");
strict_name!(VolumeStoreName, "volume store name");

/// The volume store of volumes that name none.
pub const DEFAULT_VOLUME_STORE: &str = "default";

/// Name of a volume store, unique in its VCH.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeStoreName(String);

impl Default for VolumeStoreName {
    fn default() -> Self {
        Self(DEFAULT_VOLUME_STORE.into())
    }
}

/// A place for volumes' disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeStore {
    /// A folder of the host, an absolute path; `None`: the server's data folder.
    pub folder: Option<PathBuf>,
    /// Most that the sizes of its volumes may add up to, in bytes.
    pub bytes_max: Option<u64>,
}

/// What an operator sets on a VCH. Every field is live: it holds for the next container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VchSettings {
    /// CPU of a container that asks for none, in thousandths of a vCPU.
    pub default_cpu_milli: u32,
    /// Memory of a container that asks for none, in bytes.
    pub default_memory_bytes: u64,
    /// Size of a container's own disk (sparse), in bytes.
    pub disk_bytes: u64,
    /// Log space of one container, in bytes; the oldest lines go first.
    pub log_bytes: u64,
    /// Most containers at a time, running or not.
    pub containers_max: u32,
    /// Most memory of running containers together, in bytes.
    pub memory_bytes_max: Option<u64>,
    /// Size of a volume that is made without one (sparse), in bytes.
    pub volume_bytes: u64,
    /// Most volumes at a time.
    pub volumes_max: u32,
    /// Most that the sizes of all volumes may add up to, in bytes.
    pub volumes_bytes_max: Option<u64>,
    /// Where volumes can be. One that has volumes stays, in its folder.
    pub volume_stores: BTreeMap<VolumeStoreName, VolumeStore>,
    /// Uids that may use the unix socket, besides root.
    pub socket_uids: Vec<u32>,
    /// TCP listener with TLS: `ADDRESS:PORT`.
    pub tls_listen: Option<String>,
    /// Plain TCP listener; only loopback addresses are accepted.
    pub insecure_listen: Option<String>,
    /// Addresses and ports of the host that containers may be published on.
    pub publish: PublishGrant,
    /// [`Boot::Cold`]: machines of this VCH share no memory with others, whatever containers ask for.
    pub boot: Boot,
}

impl Default for VchSettings {
    fn default() -> Self {
        Self {
            default_cpu_milli: 1000,
            default_memory_bytes: 512 << 20,
            disk_bytes: 8 << 30,
            log_bytes: 16 << 20,
            containers_max: 1000,
            memory_bytes_max: None,
            volume_bytes: 16 << 30,
            volumes_max: 1000,
            volumes_bytes_max: None,
            volume_stores: BTreeMap::from([(VolumeStoreName::default(), VolumeStore::default())]),
            socket_uids: Vec::new(),
            tls_listen: None,
            insecure_listen: None,
            publish: PublishGrant::default(),
            boot: Boot::default(),
        }
    }
}
