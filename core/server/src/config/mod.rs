//! The server's settings: one TOML file, read and checked whole before anything starts.
//!
//! Everything is optional. An unknown key is refused with its line and the nearest known one: a misspelt limit must not
//! be a limit that silently is not there. What belongs to a VCH is set on the VCH, not here.
//!
//! To add a section: a file with a struct of defaults and `check`, a field in [`Sections`], lines in `example.toml`.

mod admin;
mod limits;
mod network;
mod places;
mod policies;
mod qemu;
mod registry;
mod secret;
mod security;
mod telemetry;
mod unknown;

pub use admin::AdminSection;
pub use limits::LimitsSection;
pub use network::NetworkSection;
pub use places::{DatastoreSection, HostSection, SimSection};
pub use policies::PoliciesSection;
pub use qemu::{Accelerator, QemuSection};
pub use registry::RegistrySection;
pub use secret::Secret;
pub use security::SecuritySection;
pub use telemetry::{LogFormat, TelemetrySection};

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A commented file with every key and its default.
pub const EXAMPLE: &str = include_str!("example.toml");

const DATA_DIR: &str = "/var/lib/bulkhead";
const RUN_DIR: &str = "/run/bulkhead";
const GUEST_DIR_INSTALLED: &str = "/usr/lib/bulkhead/guest";
/// `sockaddr_un.sun_path` of Linux holds 108 bytes, the last one a NUL (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest path below the run folder: `/vch/NAME/docker.sock`, and a name has at most 40 bytes.
const SOCKET_BELOW_BYTES: usize = "/vch//docker.sock".len() + 40;

/// The file as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sections {
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    guest_dir: Option<PathBuf>,
    database_url: Option<Secret>,
    back_end: BackEndKind,
    admin: AdminSection,
    registry: RegistrySection,
    qemu: QemuSection,
    security: SecuritySection,
    policies: PoliciesSection,
    telemetry: TelemetrySection,
    limits: LimitsSection,
    network: NetworkSection,
    host: Vec<HostSection>,
    datastore: Vec<DatastoreSection>,
    sim: SimSection,
}

/// What makes machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackEndKind {
    #[default]
    Qemu,
    /// Simulated machines: for trying the API and for tests.
    Sim,
}

/// Settings with every default filled in and every value checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it was read from.
    pub file: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub guest_dir: PathBuf,
    pub database_url: Option<Secret>,
    pub back_end: BackEndKind,
    pub admin: AdminSection,
    pub registry: RegistrySection,
    pub qemu: QemuSection,
    pub security: SecuritySection,
    pub policies: PoliciesSection,
    pub telemetry: TelemetrySection,
    pub limits: LimitsSection,
    pub network: NetworkSection,
    pub hosts: Vec<HostSection>,
    pub datastores: Vec<DatastoreSection>,
    pub sim: SimSection,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{file}:{line}: {message}")]
    Syntax { file: String, line: usize, message: String },
    #[error("{file}:{line}: {}", unknown::message(key, section, nearest.as_deref()))]
    UnknownKey { file: String, line: usize, key: String, section: String, nearest: Option<String> },
    #[error("{file}: {}", problems.join("; "))]
    Values { file: String, problems: Vec<String> },
}

impl Config {
    /// Reads the file, if one is named; `data_dir` from the command line wins over the file's.
    pub fn load(file: Option<&Path>, data_dir: Option<&Path>) -> Result<Self, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.into(), source })?,
        };
        let name = file.map_or_else(|| "built-in settings".to_owned(), |path| path.display().to_string());
        let mut config = Self::parse(&text, &name, data_dir)?;
        config.file = file.map(Path::to_path_buf);
        Ok(config)
    }

    /// `name` is what messages call the file.
    pub fn parse(text: &str, name: &str, data_dir: Option<&Path>) -> Result<Self, ConfigError> {
        unknown::check(text, name)?;
        let sections: Sections = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            file: name.into(),
            line: unknown::line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().trim_end().replace('\n', ", "),
        })?;
        let config = sections.resolve(data_dir);
        let problems = config.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Values { file: name.into(), problems })
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, path) in
            [("data_dir", &self.data_dir), ("run_dir", &self.run_dir), ("guest_dir", &self.guest_dir)]
        {
            if !path.is_absolute() {
                problems.push(format!("{key} `{}` is not an absolute path", path.display()));
            }
        }
        if self.run_dir == self.data_dir {
            problems.push("run_dir and data_dir are the same folder".into());
        }
        let longest = self.run_dir.as_os_str().len() + SOCKET_BELOW_BYTES;
        if longest > SOCKET_PATH_BYTES_MAX {
            let spare = SOCKET_PATH_BYTES_MAX - SOCKET_BELOW_BYTES;
            problems.push(format!(
                "run_dir `{}` is too long for sockets below it: at most {spare} bytes",
                self.run_dir.display()
            ));
        }
        if self.database_url.as_ref().is_some_and(|url| {
            !(url.expose().starts_with("postgres://") || url.expose().starts_with("postgresql://"))
        }) {
            problems.push("database_url does not begin with `postgres://`".into());
        }
        self.registry.check(&mut problems);
        self.qemu.check(&mut problems);
        self.policies.check(&mut problems);
        self.telemetry.check(&mut problems);
        self.limits.check(&mut problems);
        self.network.check(&mut problems);
        places::check(&self.hosts, &self.datastores, &self.data_dir, &mut problems);
        self.sim.check(&mut problems);
        problems
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir.join("admin.sock")
    }

    /// The folder of Cedar policies.
    pub fn policies_dir(&self) -> PathBuf {
        self.policies.dir.clone().unwrap_or_else(|| self.data_dir.join("policies"))
    }
}

impl Sections {
    fn resolve(self, data_dir: Option<&Path>) -> Config {
        let data_dir = data_dir.map(Path::to_path_buf).or(self.data_dir).unwrap_or_else(|| DATA_DIR.into());
        let run_dir = self.run_dir.unwrap_or_else(|| {
            if data_dir == Path::new(DATA_DIR) { RUN_DIR.into() } else { data_dir.join("run") }
        });
        let guest_dir = self.guest_dir.unwrap_or_else(|| {
            let own = data_dir.join("guest");
            if own.is_dir() || !Path::new(GUEST_DIR_INSTALLED).is_dir() {
                own
            } else {
                GUEST_DIR_INSTALLED.into()
            }
        });
        Config {
            file: None,
            data_dir,
            run_dir,
            guest_dir,
            database_url: self.database_url,
            back_end: self.back_end,
            admin: self.admin,
            registry: self.registry,
            qemu: self.qemu,
            security: self.security,
            policies: self.policies,
            telemetry: self.telemetry,
            limits: self.limits,
            network: self.network,
            hosts: self.host,
            datastores: self.datastore,
            sim: self.sim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, "bulkhead.toml", None).map_err(|error| error.to_string())
    }

    fn check(text: &str, expect: &str) {
        assert_eq!(parse(text).unwrap_err(), expect);
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.data_dir, Path::new("/var/lib/bulkhead"));
        assert_eq!(config.run_dir, Path::new("/run/bulkhead"));
        assert_eq!(config.admin_socket(), Path::new("/run/bulkhead/admin.sock"));
        assert_eq!(config.telemetry.listen, "127.0.0.1:9480");
    }

    #[test]
    fn a_data_folder_of_ones_own_takes_the_sockets_along() {
        assert_eq!(parse("data_dir = '/srv/b'").unwrap().run_dir, Path::new("/srv/b/run"));
        let config = Config::parse("data_dir = '/srv/b'", "x", Some(Path::new("/srv/c"))).unwrap();
        assert_eq!(config.run_dir, Path::new("/srv/c/run"), "the command line wins");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
        check("data_dri = '/x'", "bulkhead.toml:1: unknown key `data_dri`; did you mean `data_dir`?");
        check(
            "\n[telemetry]\nlog_format = 'json'\nlisten_on = ''\n",
            "bulkhead.toml:4: unknown key `listen_on` in [telemetry]; did you mean `listen`?",
        );
        check("[qemuu]\n", "bulkhead.toml:1: unknown key `qemuu`; did you mean `qemu`?");
        let far = parse("[qemu]\nzzzzzzzzzz = 1\n").unwrap_err();
        assert!(far.starts_with("bulkhead.toml:2: unknown key `zzzzzzzzzz` in [qemu]; known are `"), "{far}");
    }

    #[test]
    fn names_of_registries_are_no_keys_of_ours() {
        let config = parse("[registry.mirrors]\n'docker.io' = ['https://mirror.example']\n").unwrap();
        assert_eq!(config.registry.mirrors["docker.io"], ["https://mirror.example"]);
    }

    #[test]
    fn bad_values_say_where_and_what() {
        check(
            "[qemu]\naccelerator = 'xen'\n",
            "bulkhead.toml:2: unknown variant `xen`, expected one of `auto`, `kvm`, `tcg`",
        );
        check("data_dir = 1", "bulkhead.toml:1: invalid type: integer `1`, expected path string");
        check(
            "data_dir = 'x'\nrun_dir = '/r'\nguest_dir = '/g'",
            "bulkhead.toml: data_dir `x` is not an absolute path",
        );
        check(
            "[telemetry]\nlisten = '0.0.0.0:9480'\n",
            "bulkhead.toml: [telemetry] listen `0.0.0.0:9480` is not on loopback, and what it tells is for this machine only",
        );
        let long = parse(&format!("run_dir = '/{}'", "r".repeat(60))).unwrap_err();
        assert!(long.contains("too long for sockets"), "{long}");
        assert!(parse("a = [").unwrap_err().starts_with("bulkhead.toml:1: "));
        assert!(parse("database_url = 'mysql://x'").unwrap_err().contains("postgres://"));
    }

    #[test]
    fn the_example_names_every_key_and_changes_nothing() {
        let given: Sections = toml::from_str(EXAMPLE).unwrap();
        assert_eq!(given, Sections::default());
        // With the commented lines turned on, every key that exists is there.
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        parse(&uncommented).unwrap();
        let all: toml::Table = toml::from_str(&uncommented).unwrap();
        for (section, keys) in unknown::known() {
            let table = if section.is_empty() {
                Some(&all)
            } else {
                all.get(&section).and_then(toml::Value::as_table)
            };
            for key in keys {
                assert!(
                    table.is_some_and(|table| table.contains_key(&key)),
                    "[{section}] {key} is not in the example"
                );
            }
        }
    }

    #[test]
    fn a_database_password_is_not_printed() {
        let config = parse("database_url = 'postgres://bulkhead:s3cr3t@db/bulkhead'").unwrap();
        assert!(!format!("{config:?}").contains("s3cr3t"));
    }
}
