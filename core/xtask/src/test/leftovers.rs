//! The run's own folder, and the test that nothing is left behind.
//!
//! This process makes itself the one that the kernel gives orphans to. So whatever a test starts and forgets, also
//! a machine that detached itself twice, ends up as its descendant and is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::processes;
use super::tally::Tally;
use crate::say::{self, Step};
use crate::{root, setup};

/// What is being stopped may take this long until it counts as left behind.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Where runs keep their data; their process number follows. The second is on a disk wherever /tmp is none.
const PREFIX: &str = "/tmp/bh";
const DISK_PREFIX: &str = "/var/tmp/bh";

/// One run of the tests.
pub struct Run {
    folder: PathBuf,
    disk: PathBuf,
}

impl Run {
    pub fn begin() -> Result<Self> {
        // SAFETY: sets a flag of this process; the arguments are plain numbers.
        if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
            bail!(
                "this process cannot adopt what its tests leave behind: {}",
                std::io::Error::last_os_error()
            );
        }
        sweep(PREFIX);
        sweep(DISK_PREFIX);
        // Short, since socket addresses below it are limited to 107 bytes.
        let folder = PathBuf::from(format!("{PREFIX}{}", std::process::id()));
        let disk = PathBuf::from(format!("{DISK_PREFIX}{}", std::process::id()));
        fs::create_dir_all(folder.join("t")).with_context(|| format!("`{}`", folder.display()))?;
        fs::create_dir_all(&disk).with_context(|| format!("`{}`", disk.display()))?;
        // Databases and machines run as other users and must be able to pass through.
        for one in [folder.clone(), folder.join("t"), disk.clone()] {
            fs::set_permissions(&one, std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
        }
        Ok(Self { folder, disk })
    }

    /// A test program, as root, with the run's folder for its data.
    pub fn command(&self, program: &Path) -> Command {
        let path = format!("{}:{}:/usr/local/sbin:/usr/sbin:/sbin", setup::tools().display(), path());
        let own = [
            ("PATH", path),
            ("TMPDIR", self.folder.join("t").display().to_string()),
            ("BULKHEAD_TEST_DISK", self.disk.display().to_string()),
        ];
        if root::is_root() {
            let mut command = Command::new(program);
            command.envs(own);
            return command;
        }
        // Through `env`, since sudo has ideas of its own about PATH.
        let mut command = Command::new("sudo");
        command.args(["--preserve-env", "env"]);
        command.args(own.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
        command
    }

    /// The last test: nothing that this run started still runs, and its data folders are empty.
    pub fn end(&self) -> Tally {
        let step = Step::start("nothing is left behind");
        let mut tally = Tally::default();
        let started = Instant::now();
        while !processes::below(std::process::id()).is_empty() && started.elapsed() < GONE_WITHIN {
            reap();
            std::thread::sleep(Duration::from_millis(100));
        }
        let still_there = processes::below(std::process::id());
        for (pid, words) in &still_there {
            tally.failures.push(format!("left behind: process {pid}: {words}"));
            processes::end(*pid);
        }
        reap();
        for data in [&self.folder.join("t"), &self.disk] {
            for mount in mounts_below(data) {
                tally.failures.push(format!("left behind: mount {mount}"));
            }
            for file in fs::read_dir(data).into_iter().flatten().flatten() {
                tally.failures.push(format!("left behind: {}", file.path().display()));
            }
        }
        if tally.failures.is_empty() {
            tally.passed = 1;
        } else {
            tally.failed = 1;
        }
        remove(&self.folder);
        remove(&self.disk);
        step.done(if tally.failed == 0 { "so it is" } else { "NOT SO" });
        tally
    }
}

/// Ends and removes what runs left that were themselves killed.
fn sweep(prefix: &str) {
    let parent = Path::new(prefix).parent().unwrap_or(Path::new("/"));
    let Ok(all) = fs::read_dir(parent) else { return };
    for folder in all.flatten().map(|entry| entry.path()) {
        let number = folder.to_str().and_then(|path| path.strip_prefix(prefix)?.parse::<u32>().ok());
        let Some(pid) = number.filter(|&pid| !Path::new(&format!("/proc/{pid}")).exists()) else { continue };
        say::note(&format!("run {pid} was cut off and did not clean up; doing it now"));
        for pid in processes::working_in(&folder) {
            processes::end(pid);
        }
        remove(&folder);
    }
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

fn remove(folder: &Path) {
    if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
        return;
    }
    let removed = root::command("rm", "to remove the tests' data")
        .and_then(|mut command| root::run(command.arg("-rf").arg(folder)));
    if let Err(error) = removed {
        say::note(&format!("`{}` could not be removed: {error:#}", folder.display()));
    }
}

/// Collects dead children that were adopted, so that they do not count.
fn reap() {
    // SAFETY: a null status pointer is allowed; no other thread waits for these children at this point.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

fn mounts_below(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = text.lines().filter_map(|line| line.split(' ').nth(1));
    places.filter(|place| Path::new(place).starts_with(folder)).map(str::to_owned).collect()
}
