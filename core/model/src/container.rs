//! Containers: what was asked for, what was decided, what is.

use crate::boot::{self, Boot, BootError};
use crate::digest::Digest;
use crate::health::{HealthAsk, HealthCheck, RunHealth};
use crate::ids::{ContainerId, VchId};
use crate::image::ImageConfig;
use crate::lifecycle::{Desired, Status};
use crate::log::LogOptions;
use crate::network::{Endpoint, NetworkOptions};
use crate::placement::{DiskPlace, Placement};
use crate::ports::Published;
use crate::process::ProcessOptions;
use crate::restart::RestartPolicy;
use crate::vch::VchSettings;
use crate::volume::{Mount, MountAsk, MountsFrom};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A container as the client asked for it. Kept beside the decided spec, so that defaults are neither
/// frozen nor applied twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerAsk {
    /// As typed: `nginx`, `nginx:1.27`, an id, a reference with a digest.
    pub image: String,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub stop_signal: Option<String>,
    pub stop_timeout_s: Option<i64>,
    pub cpu_milli: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub privileged: bool,
    pub auto_remove: bool,
    pub restart: RestartPolicy,
    pub stdio: StdioOptions,
    pub process: ProcessOptions,
    pub log: LogOptions,
    pub health: HealthAsk,
    /// What takes a line where a command is one; none: `/bin/sh -c`. The image's own is for its build alone.
    pub shell: Vec<String>,
    pub mounts: Vec<MountAsk>,
    /// Paths that get a volume of their own unless something else is there.
    pub volume_paths: Vec<String>,
    /// Containers whose mounts it gets, too.
    pub mounts_from: Vec<MountsFrom>,
    pub network: NetworkOptions,
}

/// What a process has for input and output besides its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StdioOptions {
    /// A terminal: output is one stream, and goes with input.
    pub tty: bool,
    /// Input is open to whoever attaches.
    pub open_stdin: bool,
    /// It ends with the first client that was attached to it.
    pub stdin_once: bool,
    /// Of the terminal to begin with, in characters; zeros: not known.
    pub rows: u16,
    pub columns: u16,
}

/// A container as it will run: the ask, the image's config and the VCH's defaults, after admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`, a name once.
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// As in the image config: empty, `user`, `uid`, `user:group`. Resolved inside the guest, in the
    /// image's own files.
    pub user: String,
    pub working_dir: String,
    pub hostname: String,
    pub stop_signal: Signal,
    /// Seconds between the stop signal and the kill; below 0 waits for ever.
    pub stop_timeout_s: i64,
    pub resources: Resources,
    pub privileged: bool,
    pub auto_remove: bool,
    #[serde(default)]
    pub stdio: StdioOptions,
    /// Rows of before there was any of it have none.
    #[serde(default)]
    pub process: ProcessOptions,
    #[serde(default)]
    pub log: LogOptions,
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// Parents before what is below them.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    #[serde(default)]
    pub network: NetworkOptions,
    #[serde(default)]
    pub boot: Boot,
}

/// What a machine gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a vCPU; the machine gets it rounded up to whole vCPUs, the rest is a quota.
    pub cpu_milli: u32,
    pub memory_bytes: u64,
    /// Size of the writable disk; sparse.
    pub disk_bytes: u64,
}

impl Resources {
    pub fn vcpus(&self) -> u32 {
        self.cpu_milli.div_ceil(1000).max(1)
    }
}

/// A Linux signal number for x86-64, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signal(u8);

/// A container of a VCH, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    pub id: ContainerId,
    pub vch: VchId,
    /// Without the leading slash that Docker shows.
    pub name: String,
    pub ask: ContainerAsk,
    pub spec: ContainerSpec,
    pub image: Digest,
    /// Where it is, as long as it is there.
    pub placement: Placement,
    /// Layer disks, bottom first: the machine's disks are these and no others.
    pub layers: Vec<Digest>,
    /// The reference as shown by `ps`.
    pub image_name: String,
    /// What the API front end wants back at inspect; the engine never reads it.
    pub client_view: serde_json::Value,
    pub owner: String,
    pub created_at: DateTime<Utc>,
    pub desired: Desired,
    pub status: Status,
    /// `None`: no check of it was answered yet.
    #[serde(default)]
    pub health: Option<RunHealth>,
    /// Its places on networks, the one for what goes out first.
    pub endpoints: Vec<Endpoint>,
    /// Ports of the host that lead to it, while it runs.
    pub published: Vec<Published>,
}

impl Container {
    /// Of its own disk.
    pub fn disk_place(&self) -> DiskPlace<'_> {
        self.placement.disk_of(&self.id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("no command specified")]
    NoCommand,
    #[error("label {label}: {0}", label = boot::LABEL)]
    Boot(#[from] BootError),
    #[error("invalid signal: {0}")]
    Signal(String),
    #[error("invalid hostname `{0}`: expected 1 to 63 letters, digits, `-` and `.`")]
    Hostname(String),
    #[error("invalid environment variable `{0}`: expected NAME=value")]
    Env(String),
    #[error("the working directory '{0}' is invalid, it needs to be an absolute path")]
    WorkingDir(String),
    #[error("minimum memory limit allowed is 6MB")]
    MemoryTooSmall,
    #[error("can't create 'AutoRemove' container with restart policy")]
    RestartAndAutoRemove,
    #[error("invalid mount path: '{0}' {1}")]
    Target(String, String),
    #[error("invalid specification: destination can't be '/'")]
    TargetIsRoot,
    #[error("Duplicate mount point: {0}")]
    DuplicateTarget(String),
    #[error("{len} {what} are more than the {max} that a container can have")]
    TooMany { what: &'static str, len: usize, max: usize },
    #[error("{what} is too long: {len} bytes, at most {max}")]
    TooLong { what: &'static str, len: usize, max: usize },
}

const MEMORY_BYTES_MIN: u64 = 6 << 20;
/// Linux's own limit for one argument or variable (MAX_ARG_STRLEN).
const ARGUMENT_BYTES_MAX: usize = 128 << 10;
/// Everything that is handed to a guest together; the channel's frame is 1 MiB.
const PROCESS_BYTES_MAX: usize = 512 << 10;
/// What else goes there.
const OPTIONS_BYTES_MAX: usize = 64 << 10;

/// Merges the ask with the image's config and the VCH's defaults. Pure; the same arguments give the same spec. It has no
/// mounts yet: which volumes there are is not known here.
pub fn resolve(
    id: &ContainerId,
    ask: &ContainerAsk,
    image: &ImageConfig,
    settings: &VchSettings,
) -> Result<ContainerSpec, SpecError> {
    // An entrypoint of one's own discards the image's command, as in Docker.
    let (entrypoint, cmd) = match (&ask.entrypoint, &ask.cmd) {
        (Some(entrypoint), cmd) => (entrypoint.clone(), cmd.clone().unwrap_or_default()),
        (None, Some(cmd)) => (image.entrypoint.clone(), cmd.clone()),
        (None, None) => (image.entrypoint.clone(), image.cmd.clone()),
    };
    // `--entrypoint ""` arrives as one empty word and means none.
    let entrypoint = if entrypoint == [""] { Vec::new() } else { entrypoint };
    if entrypoint.is_empty() && cmd.is_empty() {
        return Err(SpecError::NoCommand);
    }
    let env = merge_env(&image.env, &ask.env)?;
    let size = |words: &[String]| words.iter().map(|word| word.len() + 1).sum::<usize>();
    for word in entrypoint.iter().chain(&cmd).chain(&env) {
        if word.len() >= ARGUMENT_BYTES_MAX {
            let what = "an argument or environment variable";
            return Err(SpecError::TooLong { what, len: word.len(), max: ARGUMENT_BYTES_MAX - 1 });
        }
    }
    let together = size(&entrypoint) + size(&cmd) + size(&env);
    if together > PROCESS_BYTES_MAX {
        let what = "command and environment together";
        return Err(SpecError::TooLong { what, len: together, max: PROCESS_BYTES_MAX });
    }
    let len = ask.process.text_bytes() + ask.network.text_bytes();
    if len > OPTIONS_BYTES_MAX {
        let what = "paths, groups and settings together";
        return Err(SpecError::TooLong { what, len, max: OPTIONS_BYTES_MAX });
    }
    let hostname = match ask.hostname.as_deref() {
        None | Some("") => id.short().to_owned(),
        Some(name) => check_hostname(name)?.to_owned(),
    };
    let working_dir = match ask.working_dir.as_deref() {
        None | Some("") => image.working_dir.clone(),
        Some(path) => path.to_owned(),
    };
    let working_dir = if working_dir.is_empty() { "/".to_owned() } else { working_dir };
    if !working_dir.starts_with('/') {
        return Err(SpecError::WorkingDir(working_dir));
    }
    let stop_signal = match ask.stop_signal.as_deref().or(image.stop_signal.as_deref()) {
        None | Some("") => Signal::TERM,
        Some(name) => Signal::parse(name)?,
    };
    let memory_bytes = ask.memory_bytes.unwrap_or(settings.default_memory_bytes);
    check_memory(memory_bytes)?;
    if ask.auto_remove && ask.restart != RestartPolicy::No {
        return Err(SpecError::RestartAndAutoRemove);
    }
    let boot = match ask.labels.get(boot::LABEL) {
        Some(wish) => settings.boot.and(wish.parse()?),
        None => settings.boot,
    };
    let mut labels = image.labels.clone();
    labels.extend(ask.labels.clone());
    Ok(ContainerSpec {
        entrypoint,
        cmd,
        env,
        labels,
        user: ask.user.clone().filter(|user| !user.is_empty()).unwrap_or_else(|| image.user.clone()),
        working_dir,
        hostname,
        stop_signal,
        stop_timeout_s: ask.stop_timeout_s.unwrap_or(10),
        resources: Resources {
            cpu_milli: ask.cpu_milli.unwrap_or(settings.default_cpu_milli),
            memory_bytes,
            disk_bytes: settings.disk_bytes,
        },
        privileged: ask.privileged,
        auto_remove: ask.auto_remove,
        stdio: ask.stdio,
        process: ask.process.clone(),
        log: ask.log.clone(),
        health: ask.health.over(&image.health).check(&ask.shell),
        mounts: Vec::new(),
        network: ask.network.clone().with_image(&image.exposed_ports),
        boot,
    })
}

/// As the agent resolves a user: nothing means root, a number is a uid.
pub fn is_root(user: &str) -> bool {
    let name = user.split(':').next().unwrap_or_default();
    name.is_empty() || name == "root" || name.parse::<u64>() == Ok(0)
}

/// Docker's own least; a machine gets more in any case.
pub fn check_memory(bytes: u64) -> Result<(), SpecError> {
    if bytes < MEMORY_BYTES_MIN { Err(SpecError::MemoryTooSmall) } else { Ok(()) }
}

/// The image's variables, then the client's; a later value replaces an earlier one in place. A name without `=`
/// stays, as in dockerd: it says that the process has no such variable.
fn merge_env(image: &[String], ask: &[String]) -> Result<Vec<String>, SpecError> {
    let name_of = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    let mut merged: Vec<String> = image.to_vec();
    for entry in ask {
        let name = name_of(entry);
        if name.is_empty() || entry.contains('\0') {
            return Err(SpecError::Env(entry.chars().take(80).collect()));
        }
        match merged.iter_mut().find(|old| name_of(old) == name) {
            Some(old) => old.clone_from(entry),
            None => merged.push(entry.clone()),
        }
    }
    if !merged.iter().any(|entry| name_of(entry) == "PATH") {
        merged.insert(0, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    }
    Ok(merged)
}

fn check_hostname(name: &str) -> Result<&str, SpecError> {
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !name.starts_with('-');
    if good { Ok(name) } else { Err(SpecError::Hostname(name.chars().take(80).collect())) }
}

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Signal {
    pub const KILL: Signal = Signal(9);
    pub const TERM: Signal = Signal(15);

    /// `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let wrong = || SpecError::Signal(text.chars().take(40).collect());
        if let Ok(number) = text.parse::<u8>() {
            return if (1..=64).contains(&number) { Ok(Self(number)) } else { Err(wrong()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = if let Some(at) = SIGNALS.iter().position(|known| *known == name) {
            u8::try_from(at + 1).ok()
        } else if let Some(rest) = name.strip_prefix("RTMIN") {
            offset(rest).and_then(|n| 34_u8.checked_add(n))
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            offset(&rest.replacen('-', "+", 1)).and_then(|n| 64_u8.checked_sub(n))
        } else {
            None
        };
        number.filter(|n| (1..=64).contains(n)).map(Self).ok_or_else(wrong)
    }

    pub fn number(self) -> u8 {
        self.0
    }

    /// `SIGTERM`; the number where there is no name.
    pub fn name(self) -> String {
        SIGNALS
            .get(usize::from(self.0).wrapping_sub(1))
            .map_or_else(|| self.0.to_string(), |name| format!("SIG{name}"))
    }
}

fn offset(rest: &str) -> Option<u8> {
    if rest.is_empty() { Some(0) } else { rest.strip_prefix('+')?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ContainerId {
        "ab".repeat(32).parse().unwrap()
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(Into::into).collect()
    }

    fn nginx() -> ImageConfig {
        ImageConfig {
            entrypoint: words("/entry"),
            cmd: words("nginx -g daemon"),
            env: words("A=1 PATH=/bin"),
            working_dir: "/srv".into(),
            ..ImageConfig::default()
        }
    }

    fn command(ask: ContainerAsk) -> Result<Vec<String>, SpecError> {
        let spec = resolve(&id(), &ask, &nginx(), &VchSettings::default())?;
        Ok([spec.entrypoint, spec.cmd].concat())
    }

    #[test]
    fn commands_merge_as_in_docker() {
        let ask = |entrypoint: Option<&str>, cmd: Option<&str>| ContainerAsk {
            entrypoint: entrypoint.map(words),
            cmd: cmd.map(words),
            ..ContainerAsk::default()
        };
        assert_eq!(command(ask(None, None)).unwrap(), words("/entry nginx -g daemon"));
        assert_eq!(command(ask(None, Some("sh"))).unwrap(), words("/entry sh"));
        assert_eq!(command(ask(Some("/mine"), None)).unwrap(), words("/mine"));
        assert_eq!(command(ask(Some("/mine"), Some("x"))).unwrap(), words("/mine x"));
        let none = ContainerAsk {
            entrypoint: Some(vec![String::new()]),
            cmd: Some(words("ls")),
            ..Default::default()
        };
        assert_eq!(command(none).unwrap(), words("ls"));
    }

    #[test]
    fn a_command_is_needed() {
        let bare = ImageConfig::default();
        let error = resolve(&id(), &ContainerAsk::default(), &bare, &VchSettings::default()).unwrap_err();
        assert_eq!(error, SpecError::NoCommand);
    }

    #[test]
    fn variables_replace_in_place_and_can_be_taken_away() {
        let merged = merge_env(&words("A=1 B=2 PATH=/x"), &words("B=3 C=4 A")).unwrap();
        assert_eq!(merged, words("A B=3 PATH=/x C=4"));
        assert!(merge_env(&[], &["=x".into()]).is_err());
    }

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in
            [("TERM", 15), ("SIGKILL", 9), ("sighup", 1), ("15", 15), ("RTMIN+3", 37), ("RTMAX-1", 63)]
        {
            assert_eq!(Signal::parse(text).unwrap().number(), number, "{text}");
        }
        for text in ["", "0", "65", "NOPE", "RTMIN+90", "-1"] {
            assert!(Signal::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hostname_defaults_to_the_short_id() {
        let spec = resolve(&id(), &ContainerAsk::default(), &nginx(), &VchSettings::default()).unwrap();
        assert_eq!(spec.hostname, "abababababab");
        let ask = ContainerAsk { hostname: Some("a b".into()), ..Default::default() };
        assert!(resolve(&id(), &ask, &nginx(), &VchSettings::default()).is_err());
    }

    #[test]
    fn what_was_kept_before_there_were_options_is_read() {
        let mut spec = serde_json::to_value(
            resolve(&id(), &ContainerAsk::default(), &nginx(), &VchSettings::default()).unwrap(),
        )
        .unwrap();
        spec.as_object_mut().unwrap().remove("process").unwrap();
        let read: ContainerSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(read.process, ProcessOptions::default());
    }

    #[test]
    fn options_that_would_not_fit_are_refused() {
        let groups = vec!["x".repeat(60); 1000];
        let process = ProcessOptions { groups, ..ProcessOptions::default() };
        let ask = ContainerAsk { process, ..ContainerAsk::default() };
        let error = resolve(&id(), &ask, &nginx(), &VchSettings::default()).unwrap_err();
        assert!(matches!(error, SpecError::TooLong { .. }), "{error}");
    }
}
