//! Running single steps with root's rights: directly when we are root, else through `sudo`, saying why each time.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::say;

/// Whether this process has root's rights already.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The user who asked: under `sudo cargo xtask …` not root but the user behind it.
pub fn invoking_uid() -> u32 {
    // SAFETY: getuid has no preconditions and cannot fail.
    let own = unsafe { libc::getuid() };
    if own != 0 {
        return own;
    }
    std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).unwrap_or(0)
}

/// A command that will run as root. `why` is shown when sudo may ask for a password.
pub fn command(program: impl AsRef<OsStr>, why: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if find_program("sudo").is_none() {
        bail!("{why} needs root's rights, and there is no `sudo`: run this command as root, or install sudo");
    }
    say::note(&format!("sudo: {why}"));
    let mut command = Command::new("sudo");
    command.args(keep_proxies(|name| std::env::var_os(name).is_some())).arg(program);
    Ok(command)
}

/// sudo forgets the environment; packages and images come through the user's proxies all the same.
fn keep_proxies(is_set: impl Fn(&str) -> bool) -> Option<String> {
    let names = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ];
    let set: Vec<&str> = names.into_iter().filter(|name| is_set(name)).collect();
    (!set.is_empty()).then(|| format!("--preserve-env={}", set.join(",")))
}

/// Runs a command with its output on stderr (stdout is reserved), and fails with what to look at.
pub fn run(command: &mut Command) -> Result<()> {
    let name = display(command);
    let status = command
        .stdin(Stdio::inherit())
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .with_context(|| format!("cannot start `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed ({status}); its own words are above");
    }
    Ok(())
}

/// What a user would type to run this command.
pub fn display(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

/// A program on `PATH`, or in the system folders that a user's `PATH` often lacks.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_kept_if_there_are_any() {
        assert_eq!(keep_proxies(|_| false), None);
        let kept = keep_proxies(|name| name == "https_proxy" || name == "NO_PROXY");
        assert_eq!(kept.as_deref(), Some("--preserve-env=https_proxy,NO_PROXY"));
    }
}
