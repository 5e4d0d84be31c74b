//! The server that `up` starts: built, put in place, started in the background, waited for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::layout::{self, Layout, VCH};
use crate::say::{self, Step};
use crate::{peer, root};

/// The first start makes a database cluster; on a slow disk that alone takes a good part of this.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// Which build of the server; each has a folder of its own in cargo's target folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

impl Profile {
    fn binary(self) -> PathBuf {
        let folder = match self {
            Self::Dev => "debug",
            Self::Release => "release",
        };
        layout::target().join(folder).join("bulkhead")
    }
}

/// Builds the server and the guest files.
pub fn build(profile: Profile) -> Result<()> {
    let step =
        Step::start("build the server (the first time takes minutes, most of it other people's crates)");
    let mut command = cargo(&["build", "--workspace", "--bin", "bulkhead"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    root::run(&mut command).context("the server did not build")?;
    step.done("built");
    let step = Step::start("prepare the guest: kernel modules and agent");
    // This program, even if its file was just built anew.
    root::run(Command::new("/proc/self/exe").arg("guest-image").current_dir(layout::workspace()))
        .context("the guest image was not made")?;
    step.done("ready");
    Ok(())
}

/// Cargo, in the workspace. What cargo told this program of itself is not passed on: some crates' build scripts look
/// at it, and would build anew whenever one is built by hand and then from here.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(layout::workspace()).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_")
            || name.to_string_lossy().starts_with("CARGO_MANIFEST_")
        {
            command.env_remove(name);
        }
    }
    command
}

/// Puts binary, guest files and a first config file in place; what is there and equal stays untouched.
pub fn put_in_place(profile: Profile, layout: &Layout) -> Result<()> {
    let mut changed = copy_if_different(&profile.binary(), &layout.binary, "755")?;
    let guest = layout::target().join("guest");
    for entry in fs::read_dir(&guest).with_context(|| format!("`{}`", guest.display()))? {
        let file = entry?.path();
        if let (true, Some(name)) = (file.is_file(), file.file_name()) {
            changed |= copy_if_different(&file, &layout.guest.join(name), "644")?;
        }
    }
    if !layout.config.exists() {
        write_as_root(&layout.config, &config(layout), "644")?;
        say::note(&format!("wrote {}", layout.config.display()));
    }
    if changed && running(layout)?.is_some() {
        say::note("what runs is older than what was just built: stop it and call `up` again to change over");
    }
    Ok(())
}

/// Adds sections to the config file.
pub fn append_to_config(layout: &Layout, more: &str) -> Result<()> {
    let text = fs::read_to_string(&layout.config).with_context(|| layout.config.display().to_string())?;
    write_as_root(&layout.config, &format!("{text}\n{more}"), "644")
}

fn config(layout: &Layout) -> String {
    format!(
        "# Written by `cargo xtask up`, and yours from now on: it is not written again.\n\
         data_dir = {:?}\nrun_dir = {:?}\n\n\
         [admin]\n# Besides root, these users may use the admin socket.\nuids = [{}]\n",
        layout.data,
        layout.run,
        root::invoking_uid()
    )
}

fn copy_if_different(from: &Path, to: &Path, mode: &str) -> Result<bool> {
    let same = Command::new("cmp").arg("--silent").args([from, to]).status().context("cannot start cmp")?;
    if same.success() {
        return Ok(false);
    }
    let mut command = root::command("install", &format!("to put {} in place", to.display()))?;
    root::run(command.args(["-D", "-m", mode]).args([from, to]))?;
    Ok(true)
}

fn write_as_root(path: &Path, text: &str, mode: &str) -> Result<()> {
    let draft = layout::target().join("up.draft");
    fs::write(&draft, text)?;
    let outcome = copy_if_different(&draft, path, mode);
    fs::remove_file(&draft)?;
    outcome.map(drop)
}

/// The process of the server that serves this layout's admin socket.
pub fn running(layout: &Layout) -> Result<Option<u32>> {
    peer::pid_of(&layout.admin_socket())
}

/// Starts the server unless it runs, and waits until it answers.
pub fn start(layout: &Layout) -> Result<()> {
    if let Some(pid) = running(layout)? {
        say::note(&format!("the server already runs (process {pid})"));
        return wait_until_ready(layout, pid);
    }
    let step = Step::start(format!("start the server (log: {})", layout.log.display()));
    // The shell leaves at once and the server belongs to no terminal, so closing one does not stop it.
    let script = "mkdir -p \"$(dirname \"$4\")\" && setsid \"$1\" serve --config \"$2\" --data-dir \"$3\" \
                  </dev/null >>\"$4\" 2>&1 & echo $!";
    let mut command =
        root::command("sh", "to start the server, which runs machines under users of their own")?;
    command.args(["-c", script, "up"]).args([&layout.binary, &layout.config, &layout.data, &layout.log]);
    let answer = command.stderr(Stdio::inherit()).output().context("cannot start the server")?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let pid: u32 = text.trim().parse().context("the server's process is not known")?;
    wait_until_ready(layout, pid)?;
    step.done(&format!("process {pid} is ready"));
    Ok(())
}

fn wait_until_ready(layout: &Layout, pid: u32) -> Result<()> {
    let started = Instant::now();
    let mut told = Duration::from_secs(10);
    loop {
        let answer = admin(layout).args(["vch", "ls"]).output().context("cannot start the bulkhead CLI")?;
        if answer.status.success() {
            return Ok(());
        }
        if !peer::is_alive(pid) {
            bail!("the server ended at once; the end of its log:\n{}", log_end(layout));
        }
        let waited = started.elapsed();
        if waited > READY_WITHIN {
            bail!(
                "the server does not answer after {}: {}\nthe end of its log:\n{}",
                say::seconds(waited),
                String::from_utf8_lossy(&answer.stderr).trim(),
                log_end(layout)
            );
        }
        if waited > told {
            say::note(&format!("still waiting ({}); the first start makes a database", say::seconds(waited)));
            told += Duration::from_secs(10);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn log_end(layout: &Layout) -> String {
    let text = fs::read_to_string(&layout.log).unwrap_or_else(|error| format!("(no log: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

/// The operator's CLI, pointed at this layout.
pub fn admin(layout: &Layout) -> Command {
    let mut command = Command::new(&layout.binary);
    command.arg("--socket").arg(layout.admin_socket());
    command
}

/// Creates the first VCH unless it is there. The invoking user and root may use its endpoint.
pub fn ensure_vch(layout: &Layout) -> Result<()> {
    if admin(layout).args(["vch", "inspect", VCH]).output()?.status.success() {
        say::note(&format!("VCH `{VCH}` already there"));
        return Ok(());
    }
    let step = Step::start(format!("create VCH `{VCH}`"));
    let mut command = admin(layout);
    command.args(["vch", "create", VCH, "--class", "dev", "--tenant", "local"]);
    let mut users = vec![0, root::invoking_uid()];
    users.dedup();
    for uid in users {
        command.args(["--socket-uid", &uid.to_string()]);
    }
    let answer = command.output().context("cannot start the bulkhead CLI")?;
    if !answer.status.success() {
        bail!("VCH `{VCH}` was not created: {}", String::from_utf8_lossy(&answer.stderr).trim());
    }
    step.done(&layout.docker_host());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_names_the_places_of_the_layout() {
        let text = config(&Layout::below(Path::new("/srv/trial")));
        assert!(text.contains("data_dir = \"/srv/trial/data\"\n"), "{text}");
        assert!(text.contains("uids = ["), "{text}");
    }
}
