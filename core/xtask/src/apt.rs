//! The distribution's packages, without their side effects.
//!
//! **Invariant:** after an installation no service runs that did not run before. Two things see to it for the time
//! of the step: a policy file that refuses service starts, and a setting by which PostgreSQL's package creates no
//! cluster. Both are put back as they were, also when the step fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::say;
use crate::{layout, root};

/// Refuses every service start while it is there (status 101, as invoke-rc.d's specification has it).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Read by PostgreSQL's package when it decides about a first cluster.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/bulkhead-setup.conf";

/// `apt-get update`.
pub fn refresh_lists() -> Result<()> {
    root::run(root::command("apt-get", "to read the package lists")?.args(["-q", "update"]))
        .context("the package lists could not be read: is there a network, or a mirror in /etc/apt?")
}

/// Whether the archive has a package of this name.
pub fn exists(package: &str) -> bool {
    Command::new("apt-cache")
        .args(["show", "--no-all-versions", package])
        .output()
        .is_ok_and(|answer| answer.status.success() && !answer.stdout.is_empty())
}

/// Installs packages with no service started.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let _quiet = Quiet::begin()?;
    let mut command = root::command("env", &format!("to install {}", packages.join(", ")))?;
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "install", "--no-install-recommends"])
        .args(packages);
    root::run(&mut command).context("the packages could not be installed")
}

/// Takes one program out of a package.
pub fn unpack_program(package: &str, file: &str, into: &Path) -> Result<()> {
    let folder = layout::target().join("unpacked").join(package);
    unpack(package, &folder)?;
    let program = folder.join(file);
    let for_all = into.starts_with("/usr");
    let mut command = if for_all {
        root::command("install", &format!("to put `{}` into {}", file, into.display()))?
    } else {
        Command::new("install")
    };
    command.args(["-D", "-m", "755"]).arg(&program).arg(into.join(file_name(&program)));
    root::run(&mut command)
}

fn file_name(path: &Path) -> PathBuf {
    path.file_name().map(PathBuf::from).unwrap_or_default()
}

/// Unpacks what a package points at: the kernel package without a version only depends on the newest one.
pub fn unpack_newest_dependency(package: &str, into: &Path) -> Result<()> {
    let answer = Command::new("apt-cache")
        .args(["depends", "--important", package])
        .output()
        .context("cannot start apt-cache")?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let Some(newest) = first_dependency(&text) else {
        bail!("the archive has no `{package}`: is this a Debian for amd64?");
    };
    unpack(newest, into)
}

/// From the words of `apt-cache depends`.
fn first_dependency(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.trim().strip_prefix("Depends: "))
}

/// The version that an installation would bring.
pub fn candidate(package: &str) -> Result<String> {
    let answer =
        Command::new("apt-cache").args(["policy", package]).output().context("cannot start apt-cache")?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    version
        .filter(|version| *version != "(none)")
        .map(ToOwned::to_owned)
        .with_context(|| format!("the archive has no `{package}`"))
}

/// The dependency of a package whose name begins so.
pub fn dependency(package: &str, prefix: &str) -> Result<String> {
    let answer = Command::new("apt-cache")
        .args(["depends", "--important", package])
        .output()
        .context("cannot start apt-cache")?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let mut all = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let found = all.find(|name| name.starts_with(prefix)).map(ToOwned::to_owned);
    found.with_context(|| format!("`{package}` depends on no `{prefix}`"))
}

/// Fetches a package (apt checks its signature and sum) and unpacks it; a half-unpacked one never counts.
pub fn unpack(package: &str, into: &Path) -> Result<()> {
    unpack_together(&[package], into)
}

/// Several packages into one folder.
pub fn unpack_together(packages: &[&str], into: &Path) -> Result<()> {
    let fetched = into.with_extension("fetch");
    let fresh = into.with_extension("new");
    for folder in [&fetched, &fresh] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    let names = packages.join(", ");
    say::note(&format!("fetching {names}"));
    root::run(Command::new("apt-get").args(["-q", "download"]).args(packages).current_dir(&fetched))
        .with_context(|| format!("`{names}` could not be fetched"))?;
    let archives: Vec<PathBuf> = fs::read_dir(&fetched)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .collect();
    if archives.len() != packages.len() {
        bail!("apt-get fetched {} files for `{names}`", archives.len());
    }
    for archive in archives {
        root::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&fresh))?;
    }
    if into.exists() {
        fs::remove_dir_all(into)?;
    }
    fs::rename(&fresh, into)?;
    fs::remove_dir_all(&fetched)?;
    Ok(())
}

/// No service starts and no database cluster while this lives.
struct Quiet {
    ours: Vec<&'static str>,
}

impl Quiet {
    fn begin() -> Result<Self> {
        let mut quiet = Self { ours: Vec::new() };
        // An operator's own policy stays: it may refuse more than ours, and is not ours to replace.
        quiet.put(POLICY, "#!/bin/sh\nexit 101\n", "755")?;
        quiet.put(NO_CLUSTER, "create_main_cluster = false\n", "644")?;
        Ok(quiet)
    }

    fn put(&mut self, path: &'static str, text: &str, mode: &str) -> Result<()> {
        if Path::new(path).exists() {
            return Ok(());
        }
        let mut command = root::command("install", "to keep packages from starting services")?;
        command.args(["-D", "-m", mode, "/dev/stdin", path]).stdin(Stdio::piped());
        let mut child = command.spawn().context("cannot start install")?;
        if let Some(mut input) = child.stdin.take() {
            std::io::Write::write_all(&mut input, text.as_bytes())?;
        }
        if !child.wait()?.success() {
            bail!("cannot write `{path}`");
        }
        self.ours.push(path);
        Ok(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        for path in &self.ours {
            let removed = root::command("rm", "to let packages start services again")
                .and_then(|mut command| root::run(command.args(["-f", path])));
            if let Err(error) = removed {
                say::note(&format!("`{path}` could not be removed, do it by hand: {error:#}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_that_a_name_points_at() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Depends: other\n";
        assert_eq!(first_dependency(text), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(first_dependency(""), None);
    }
}
