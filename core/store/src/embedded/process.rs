//! Processes of the private cluster: `initdb`, and the postmaster with those it forks.

use super::files::{Binaries, Layout, Owner, PORT, hand_over, log_tail, open_log};
use super::{EmbeddedError, INITDB_TIMEOUT, POLL};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the processes of a killed postmaster may take to notice and end.
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(30);
const NEW_PREFIX: &str = "data.new-";

#[derive(Debug)]
pub(super) enum Postmaster {
    /// Of this process; it is reaped here.
    Started(Child),
    /// Of an earlier server.
    Adopted(u32),
}

impl Postmaster {
    pub(super) fn pid(&self) -> u32 {
        match self {
            Postmaster::Started(child) => child.id(),
            Postmaster::Adopted(pid) => *pid,
        }
    }

    pub(super) fn is_alive(&mut self, layout: &Layout) -> bool {
        match self {
            Postmaster::Started(child) => matches!(child.try_wait(), Ok(None)),
            Postmaster::Adopted(pid) => works_in(*pid, &layout.data),
        }
    }

    pub(super) fn signal(&mut self, signal: Signal, layout: &Layout) {
        if !self.is_alive(layout) {
            return;
        }
        if let Ok(pid) = i32::try_from(self.pid()) {
            // It may have ended since; then there is nothing left to signal.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

fn command(program: &Path, layout: &Layout, owner: &Owner) -> Command {
    let mut command = Command::new(program);
    command
        // Nothing of PGDATA, PGOPTIONS and the like; and messages in English, in UTC.
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .current_dir(&layout.root)
        .stdin(Stdio::null())
        // A Ctrl-C at the server's terminal is not for the database.
        .process_group(0);
    if owner.switch {
        command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
    }
    command
}

/// Makes the cluster beside its place and renames it there once it is whole and on disk. What an earlier attempt left is
/// removed; its `initdb` may even be still at work, hence a name of its own for each attempt.
pub(super) async fn initdb(layout: &Layout, binaries: &Binaries, owner: &Owner) -> Result<(), EmbeddedError> {
    remove_leftovers(&layout.root)?;
    let new = layout.root.join(format!("{NEW_PREFIX}{}", uuid::Uuid::new_v4().simple()));
    fs::DirBuilder::new().mode(0o700).create(&new).map_err(EmbeddedError::io("make", &new))?;
    hand_over(&new, owner)?;
    let output = open_log(layout)?;
    let errors = output.try_clone().map_err(EmbeddedError::io("open", &layout.log))?;
    let mut command = command(&binaries.initdb, layout, owner);
    command
        .arg("--pgdata")
        .arg(&new)
        .args(["--username", super::NAME, "--encoding", "UTF8", "--locale", "C.UTF-8", "--auth", "trust"])
        .args(["--data-checksums", "--no-instructions"])
        .stdout(output)
        .stderr(errors);
    let mut child = command.spawn().map_err(EmbeddedError::io("run", &binaries.initdb))?;
    let late = Instant::now() + INITDB_TIMEOUT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() > late => {
                // Only the message matters from here on.
                let _ = child.kill();
                let _ = child.wait();
                let output = log_tail(layout);
                return Err(EmbeddedError::Late { what: "make its cluster", limit: INITDB_TIMEOUT, output });
            }
            Ok(None) => tokio::time::sleep(POLL).await,
            Err(error) => return Err(EmbeddedError::io("wait for", &binaries.initdb)(error)),
        }
    };
    if !status.success() {
        return Err(EmbeddedError::Failed { program: "initdb", output: log_tail(layout) });
    }
    let publish = || {
        fs::rename(&new, &layout.data)?;
        fs::File::open(&layout.root)?.sync_all()
    };
    publish().map_err(EmbeddedError::io("make", &layout.data))
}

fn remove_leftovers(root: &Path) -> Result<(), EmbeddedError> {
    for entry in fs::read_dir(root).map_err(EmbeddedError::io("list", root))? {
        let entry = entry.map_err(EmbeddedError::io("list", root))?;
        if entry.file_name().to_string_lossy().starts_with(NEW_PREFIX) {
            let path = entry.path();
            // One whose `initdb` still writes fails to go; the next start gets it. It is in nobody's way.
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "an unfinished database folder is left for now");
            }
        }
    }
    Ok(())
}

pub(super) fn spawn(
    layout: &Layout,
    binaries: &Binaries,
    owner: &Owner,
) -> Result<Postmaster, EmbeddedError> {
    let log = open_log(layout)?;
    let errors = log.try_clone().map_err(EmbeddedError::io("open", &layout.log))?;
    let setting = |name: &str, path: &Path| {
        let mut setting = std::ffi::OsString::from(format!("{name}="));
        setting.push(path);
        setting
    };
    let mut command = command(&binaries.postgres, layout, owner);
    command
        .arg("-D")
        .arg(&layout.data)
        .arg("-c")
        .arg(setting("config_file", &layout.config))
        .arg("-c")
        .arg(setting("hba_file", &layout.hba))
        .stdout(log)
        .stderr(errors);
    let child = command.spawn().map_err(EmbeddedError::io("run", &binaries.postgres))?;
    Ok(Postmaster::Started(child))
}

/// The postmaster that works on the cluster, by its pid file; not if another process has that number by now.
pub(super) fn find_postmaster(layout: &Layout) -> Option<u32> {
    let text = fs::read_to_string(layout.data.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    works_in(pid, &layout.data).then_some(pid)
}

/// Every process of a cluster works in its data folder, and nothing else does. A dead one that was not reaped does not.
fn works_in(pid: u32, data: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == data)
}

/// Removes what a killed postmaster left: PostgreSQL would take any process of its user that has the number in its pid file
/// or socket lock by now for a running postmaster. Only once no process of the cluster is left, since these files are also
/// PostgreSQL's own guard against two postmasters on the same data.
pub(super) async fn clear_stale_files(layout: &Layout) -> Result<(), EmbeddedError> {
    let late = Instant::now() + ORPHANS_TIMEOUT;
    while any_works_in(&layout.data)? {
        if Instant::now() > late {
            let output = "processes of the killed database do not end".to_owned();
            return Err(EmbeddedError::Late { what: "end", limit: ORPHANS_TIMEOUT, output });
        }
        tokio::time::sleep(POLL).await;
    }
    let socket = layout.socket_dir.join(format!(".s.PGSQL.{PORT}"));
    for file in [layout.data.join("postmaster.pid"), socket.with_added_extension("lock"), socket] {
        match fs::remove_file(&file) {
            Ok(()) => tracing::info!(file = %file.display(), "left by a database that was killed; removed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(EmbeddedError::io("remove", &file)(error)),
        }
    }
    Ok(())
}

fn any_works_in(data: &Path) -> Result<bool, EmbeddedError> {
    let proc = Path::new("/proc");
    for entry in fs::read_dir(proc).map_err(EmbeddedError::io("list", proc))? {
        let name = entry.map_err(EmbeddedError::io("list", proc))?.file_name();
        if name.to_str().and_then(|name| name.parse().ok()).is_some_and(|pid| works_in(pid, data)) {
            return Ok(true);
        }
    }
    Ok(false)
}
