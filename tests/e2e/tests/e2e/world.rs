//! What all cases share: a server with real machines, a registry with TLS and a password, images in it, and VCHs of
//! three classes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_test_support::Docker;
use bulkhead_test_support::Output;
use bulkhead_test_support::{BackEnd, Server, ServerOptions};

use crate::images::Images;
use crate::registry::Registry;

/// The shared fixtures. Fields are dropped in this order: the server first.
pub struct World {
    pub server: Server,
    pub registry: Registry,
    /// The VCH that most cases use, logged in to the registry.
    pub dev: Docker,
}

/// The kernel and initramfs that `cargo xtask guest-image` made.
pub fn guest_dir() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let guest = test
        .ancestors()
        .map(|folder| folder.join("guest"))
        .find(|folder| folder.join("guest.json").is_file());
    guest.context("no guest image in the target folder; make it first: cargo xtask guest-image")
}

impl World {
    pub fn make() -> Result<Self> {
        let registry = Images::in_registry().context("registry")?;
        let config = format!(
            // No name is asked for beyond this host: where this resolver would be, packets are dropped.
            "[registry]\ntrusted = [{0:?}]\nca_files = {{ {0:?} = {1:?} }}\n[network]\ndns = [\"198.18.255.254\"]\n",
            registry.address(),
            registry.ca_file()
        );
        let options = ServerOptions {
            back_end: BackEnd::Qemu,
            guest_dir: Some(guest_dir()?),
            config,
            ..ServerOptions::default()
        };
        let server = Server::start(&options).context("server")?;
        let dev = vch(&server, "dev-a", "dev", "acme")?;
        registry.log_in(&dev)?;
        for name in ["busybox:1", "debian:12"] {
            dev.ok(&["pull", &registry.name(name)])?;
        }
        Ok(Self { server, registry, dev })
    }

    /// A full image name in the registry.
    pub fn image(&self, name: &str) -> String {
        self.registry.name(name)
    }

    /// The small image.
    pub fn busybox(&self) -> String {
        self.image("busybox:1")
    }

    /// `docker run ARGS busybox COMMAND` in the first VCH, to its end.
    pub fn busybox_run(&self, options: &[&str], command: &[&str]) -> Result<Output> {
        let image = self.busybox();
        self.dev.run(&[&["run"], options, &[image.as_str()], command].concat())
    }

    /// A new VCH whose endpoint this test's user may use.
    pub fn vch(&self, name: &str, class: &str, tenant: &str) -> Result<Docker> {
        let docker = vch(&self.server, name, class, tenant)?;
        self.registry.log_in(&docker)?;
        Ok(docker)
    }

    /// Removes a VCH with all in it.
    pub fn remove_vch(&self, name: &str) -> Result<()> {
        self.server.bulkhead(&["vch", "rm", "--force", name])?.ok().map(drop)
    }

    /// The processes of machines that are somebody's.
    pub fn machine_processes(&self) -> Result<Vec<u32>> {
        let listed = self.server.bulkhead(&["machine", "ls", "-o", "json"])?.ok()?;
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed)?;
        Ok(listed.iter().filter_map(|machine| machine.get("pid")?.as_u64()?.try_into().ok()).collect())
    }

    /// The one of a container's machine.
    pub fn machine_process(&self, container: &str) -> Result<u32> {
        let found = self.server.bulkhead(&["machine", "inspect", container, "-o", "json"])?.ok()?;
        let found: serde_json::Value = serde_json::from_str(&found)?;
        let pid = found
            .get("pid")
            .and_then(serde_json::Value::as_u64)
            .with_context(|| format!("{container} has no machine"))?;
        Ok(pid.try_into()?)
    }

    /// For the reader of a failed run: the end of the server's log.
    pub fn explain_failure(&self) {
        let log = self.server.log();
        let lines: Vec<&str> = log.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(15)) {
            eprintln!("     | {line}");
        }
    }

    /// Removes all VCHs, stops the server, and looks that no machine and no database remains.
    /// Removes the containers of the first VCH, whatever they do.
    pub fn sweep(&self) {
        let listed = self.dev.ok(&["ps", "--all", "--quiet"]).unwrap_or_default();
        for id in listed.lines() {
            if let Err(error) = self.dev.ok(&["rm", "--force", "--volumes", id]) {
                eprintln!("     {id} stays: {error:#}");
            }
        }
    }

    pub fn take_down(self) -> Result<()> {
        let folder = self.server.dir().to_path_buf();
        drop(self.server);
        let left = processes_below(&folder)?;
        ensure!(left.is_empty(), "processes of the test server are still there: {left:?}");
        ensure!(!folder.exists(), "`{}` is still there", folder.display());
        Ok(())
    }
}

fn vch(server: &Server, name: &str, class: &str, tenant: &str) -> Result<Docker> {
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self")?).to_string();
    let docker = server.create_vch(name, &["--class", class, "--tenant", tenant, "--socket-uid", &uid])?;
    // A configuration of its own: a login at one VCH must not count at another.
    let config = server.dir().join(format!("docker-{name}"));
    std::fs::create_dir_all(&config)?;
    Ok(Docker::new(docker.host(), &config))
}

/// Processes that work with files below `folder`.
fn processes_below(folder: &Path) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(words) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let words = String::from_utf8_lossy(&words).into_owned();
        if touches(&entry.path(), &words, folder) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// By a word of the command line, the working folder, or an open file: machines get their files as descriptors.
fn touches(process: &Path, words: &str, folder: &Path) -> bool {
    if words.contains(&*folder.to_string_lossy()) {
        return true;
    }
    if std::fs::read_link(process.join("cwd")).is_ok_and(|path| path.starts_with(folder)) {
        return true;
    }
    let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    open.into_iter().any(|file| std::fs::read_link(file.path()).is_ok_and(|path| path.starts_with(folder)))
}

/// Fails with both texts when `text` does not hold `part`.
pub fn has(text: &str, part: &str) -> Result<()> {
    if text.contains(part) { Ok(()) } else { bail!("expected `{part}` in:\n{text}") }
}

/// Fails unless a program ended with this code.
pub fn code(output: &Output, expected: i32) -> Result<()> {
    if output.code == Some(expected) { Ok(()) } else { bail!("expected exit code {expected}: {output}") }
}

/// Fails with both values when they differ.
pub fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(found: T, expected: U) -> Result<()> {
    if found == expected { Ok(()) } else { bail!("expected {expected:?}, found {found:?}") }
}
