//! What a container's process has and may do in its machine, besides its command: file systems, rights and limits.

use crate::capability::{self, Capabilities};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const SHM_BYTES_DEFAULT: u64 = 64 << 20;

/// Hidden from a container without privileges, as Docker does.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What such a container may read only.
pub const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// As asked for; what is absent is decided by whoever carries it out, with the functions below.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessOptions {
    pub domain_name: String,
    /// Names or numbers of groups beside the user's, looked up in the image's own file.
    pub groups: Vec<String>,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// Parents before what is below them.
    pub tmpfs: Vec<Tmpfs>,
    /// 0: there is no /dev/shm.
    pub shm_bytes: Option<u64>,
    pub cap_add: Capabilities,
    pub cap_drop: Capabilities,
    pub seccomp: Seccomp,
    pub no_new_privileges: bool,
    pub masked_paths: Option<Vec<String>>,
    pub read_only_paths: Option<Vec<String>>,
    pub limits: Vec<Limit>,
    pub sysctls: BTreeMap<String, String>,
    /// The first process is one that reaps and forwards signals.
    pub init: bool,
    pub pids_max: Option<u32>,
    pub oom_score_adj: i16,
    pub devices: Vec<Device>,
}

/// What guests have to give.
pub const GUEST_DEVICES: [&str; 8] = [
    "/dev/fuse",
    "/dev/net/tun",
    // Every container has these, by their own names.
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

/// A device of the guest for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// One of [`GUEST_DEVICES`].
    pub source: String,
    pub target: String,
    /// Letters of `rwm`.
    pub access: String,
}

/// A file system in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tmpfs {
    pub target: String,
    pub read_only: bool,
    pub executable: bool,
    pub set_user_id: bool,
    pub devices: bool,
    /// As the kernel reads it: `65536k`, `1g`, `50%`; half of the memory where nothing is said.
    pub size: Option<String>,
    pub inodes: Option<u64>,
    /// That of the folder below where nothing is said.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Which system calls are let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// Those of Docker's profile; all of them for a privileged container.
    #[default]
    Default,
    Unconfined,
}

impl Seccomp {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Unconfined => "unconfined",
        }
    }
}

/// A limit of setrlimit(2); `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub resource: Resource,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl Resource {
    /// By the name that limits have in Docker.
    pub fn by_name(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.into())).ok()
    }

    /// Of Linux on x86-64.
    pub fn number(self) -> u8 {
        match self {
            Self::Cpu => 0,
            Self::Fsize => 1,
            Self::Data => 2,
            Self::Stack => 3,
            Self::Core => 4,
            Self::Rss => 5,
            Self::Nproc => 6,
            Self::Nofile => 7,
            Self::Memlock => 8,
            Self::Locks => 10,
            Self::Sigpending => 11,
            Self::Msgqueue => 12,
            Self::Nice => 13,
            Self::Rtprio => 14,
            Self::Rttime => 15,
        }
    }
}

impl ProcessOptions {
    pub fn bounding_set(&self, privileged: bool) -> u64 {
        capability::bounding_set(privileged, &self.cap_add, &self.cap_drop)
    }

    /// Whether system calls are filtered.
    pub fn is_filtered(&self, privileged: bool) -> bool {
        !privileged && self.seccomp == Seccomp::Default
    }

    pub fn masked(&self, privileged: bool) -> Vec<String> {
        paths(self.masked_paths.as_ref(), &MASKED_PATHS, privileged)
    }

    pub fn unwritable(&self, privileged: bool) -> Vec<String> {
        paths(self.read_only_paths.as_ref(), &READ_ONLY_PATHS, privileged)
    }

    /// Those asked for, above the ones that let every user open low ports and send echo requests, as in Docker.
    pub fn all_sysctls(&self) -> BTreeMap<String, String> {
        let ours =
            [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
        let mut all = BTreeMap::from(ours.map(|(name, value)| (name.to_owned(), value.to_owned())));
        all.extend(self.sysctls.clone());
        all
    }

    /// Of all texts together, which go to the guest in one message.
    pub(crate) fn text_bytes(&self) -> usize {
        let paths = [&self.masked_paths, &self.read_only_paths].into_iter().flatten().flatten();
        let texts = paths.chain(&self.groups).chain(self.tmpfs.iter().map(|one| &one.target));
        let sysctls = self.sysctls.iter().flat_map(|(name, value)| [name, value]);
        // Each costs something besides its letters.
        texts.chain(sysctls).map(|text| text.len() + 64).sum::<usize>() + self.domain_name.len()
    }
}

fn paths(asked: Option<&Vec<String>>, default: &[&str], privileged: bool) -> Vec<String> {
    match asked {
        _ if privileged => Vec::new(),
        Some(paths) => paths.clone(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    }
}

/// Whether a setting is of a namespace that containers have for themselves, which is what Docker allows.
pub fn is_own_sysctl(name: &str) -> bool {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let letters = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let grouped = name.starts_with("net.") || name.starts_with("fs.mqueue.");
    (grouped || IPC.contains(&name)) && name.split('.').all(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_whole_kernel_are_not_a_containers() {
        for good in ["net.core.somaxconn", "kernel.shmmax", "fs.mqueue.msg_max", "net.ipv4.conf.lo.rp_filter"]
        {
            assert!(is_own_sysctl(good), "{good}");
        }
        for bad in [
            "vm.swappiness",
            "kernel.panic",
            "kernel.hostname",
            "net..x",
            "net./etc",
            "net.",
            "fs.mqueue",
            "",
        ] {
            assert!(!is_own_sysctl(bad), "{bad}");
        }
    }

    #[test]
    fn privileges_lift_what_was_not_asked_for() {
        let options = ProcessOptions::default();
        assert_eq!(options.masked(false).len(), MASKED_PATHS.len());
        assert!(options.masked(true).is_empty() && options.unwritable(true).is_empty());
        assert!(options.is_filtered(false) && !options.is_filtered(true));
        let bare = ProcessOptions { masked_paths: Some(Vec::new()), ..ProcessOptions::default() };
        assert!(bare.masked(false).is_empty() && !bare.unwritable(false).is_empty());
    }

    #[test]
    fn a_setting_replaces_dockers_own() {
        let mut options = ProcessOptions::default();
        options.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "1024".into());
        let all = options.all_sysctls();
        assert_eq!(all["net.ipv4.ip_unprivileged_port_start"], "1024");
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn limits_are_known_by_name() {
        assert_eq!(Resource::by_name("nofile").map(Resource::number), Some(7));
        assert_eq!(Resource::by_name("as"), None);
    }
}
