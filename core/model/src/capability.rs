//! Linux capabilities by name, and which of them a container has.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// In the order of their numbers; capabilities(7).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker leaves to a container that asked for nothing, as bits.
const DEFAULT: u64 = 0xa804_25fb;
const ALL: u64 = (1 << NAMES.len()) - 1;

/// One capability; written `CAP_CHOWN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(u8);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability: \"{0}\"")]
pub struct UnknownCapability(pub String);

impl Capability {
    pub fn name(self) -> String {
        format!("CAP_{}", NAMES.get(usize::from(self.0)).copied().unwrap_or_default())
    }

    fn bit(self) -> u64 {
        1 << self.0
    }
}

/// With and without the prefix, in any case.
impl std::str::FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<Self, UnknownCapability> {
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let at = NAMES.iter().position(|name| *name == short).and_then(|at| u8::try_from(at).ok());
        at.map(Self).ok_or_else(|| UnknownCapability(format!("CAP_{}", clip(short))))
    }
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

impl TryFrom<String> for Capability {
    type Error = UnknownCapability;

    fn try_from(text: String) -> Result<Self, UnknownCapability> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> String {
        capability.name()
    }
}

/// Some capabilities, or all that there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    pub all: bool,
    pub some: BTreeSet<Capability>,
}

impl Capabilities {
    pub fn parse(words: &[String]) -> Result<Self, UnknownCapability> {
        let mut list = Self::default();
        for word in words {
            if word.eq_ignore_ascii_case("ALL") {
                list.all = true;
            } else {
                list.some.insert(word.parse()?);
            }
        }
        Ok(list)
    }

    /// `ALL` and `CAP_…`, for policies.
    pub fn names(&self) -> Vec<String> {
        let all = self.all.then(|| "ALL".to_owned());
        all.into_iter().chain(self.some.iter().map(|one| one.name())).collect()
    }

    fn bits(&self) -> u64 {
        self.some.iter().fold(0, |bits, one| bits | one.bit())
    }
}

/// The bounding set of a container, bit by number. What is dropped by name stays dropped unless it is added by name,
/// as in Docker.
pub fn bounding_set(privileged: bool, add: &Capabilities, drop: &Capabilities) -> u64 {
    match (add.all, drop.all) {
        _ if privileged => ALL,
        (true, _) => ALL & !drop.bits(),
        (false, true) => add.bits(),
        (false, false) => (DEFAULT & !drop.bits()) | add.bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &str) -> Capabilities {
        let words: Vec<String> = words.split_whitespace().map(Into::into).collect();
        Capabilities::parse(&words).unwrap()
    }

    fn check(add: &str, drop: &str, expect: u64) {
        assert_eq!(bounding_set(false, &list(add), &list(drop)), expect, "+{add} -{drop}");
    }

    #[test]
    fn sets_are_dockers() {
        check("", "", DEFAULT);
        check("NET_ADMIN", "", DEFAULT | 1 << 12);
        check("cap_net_admin", "CAP_CHOWN", (DEFAULT | 1 << 12) & !1);
        check("", "all", 0);
        check("chown", "ALL", 1);
        check("ALL", "", 0x1ff_ffff_ffff);
        check("ALL", "SYS_ADMIN", 0x1ff_ffff_ffff & !(1 << 21));
        check("ALL", "ALL", 0x1ff_ffff_ffff);
        assert_eq!(bounding_set(true, &list(""), &list("ALL")), ALL);
    }

    #[test]
    fn unknown_ones_are_named() {
        let error = Capabilities::parse(&["teleport".into()]).unwrap_err();
        assert_eq!(error.to_string(), "unknown capability: \"CAP_TELEPORT\"");
    }

    #[test]
    fn they_are_kept_by_name() {
        let kept = serde_json::to_string(&list("SYS_PTRACE")).unwrap();
        assert_eq!(kept, r#"{"all":false,"some":["CAP_SYS_PTRACE"]}"#);
        assert_eq!(serde_json::from_str::<Capabilities>(&kept).unwrap(), list("sys_ptrace"));
        assert_eq!(list("ALL chown").names(), ["ALL", "CAP_CHOWN"]);
    }
}
