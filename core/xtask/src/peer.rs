//! Which process serves a unix socket: the kernel knows, so no pid file can be stale or forged.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::root;

/// The process behind a listening socket; `None` when nobody listens.
pub fn pid_of(socket: &Path) -> Result<Option<u32>> {
    match UnixStream::connect(socket) {
        Ok(stream) => credentials(&stream).map(Some),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Ok(None),
            std::io::ErrorKind::PermissionDenied if !root::is_root() => ask_as_root(socket),
            _ => Err(error).with_context(|| format!("cannot ask who serves `{}`", socket.display())),
        },
    }
}

fn credentials(stream: &UnixStream) -> Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = libc::socklen_t::try_from(size_of::<libc::ucred>())?;
    // SAFETY: `peer` and `size` are valid for writing, and `size` is the size of `peer`.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    if outcome != 0 {
        return Err(std::io::Error::last_os_error()).context("SO_PEERCRED");
    }
    Ok(u32::try_from(peer.pid)?)
}

fn ask_as_root(socket: &Path) -> Result<Option<u32>> {
    let own = std::env::current_exe().context("own path")?;
    let answer = root::command(own, "to find the server's process")?
        .arg("peer-pid")
        .arg(socket)
        .output()
        .context("cannot start sudo")?;
    if !answer.status.success() {
        bail!("cannot ask who serves `{}` as root", socket.display());
    }
    Ok(String::from_utf8_lossy(&answer.stdout).trim().parse().ok())
}

/// `xtask peer-pid SOCKET`, for [`ask_as_root`].
pub fn print_pid(arguments: &[String]) -> Result<ExitCode> {
    let [socket] = arguments else { bail!("peer-pid takes one socket") };
    if let Some(pid) = pid_of(Path::new(socket))? {
        println!("{pid}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends SIGTERM, as root if needed.
pub fn terminate(pid: u32) -> Result<()> {
    let mut command: Command = root::command("kill", "to stop the server")?;
    root::run(command.args(["-TERM", &pid.to_string()]))
}

/// Whether a process is there and not a zombie.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in parentheses may hold anything; the state follows the last one.
    !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_is_found_and_a_dead_socket_is_nobody() {
        let folder = std::env::temp_dir().join(format!("bulkhead-peer-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(pid_of(&path).unwrap(), Some(std::process::id()));
        drop(listener);
        assert_eq!(pid_of(&path).unwrap(), None);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(pid_of(&path).unwrap(), None);
    }
}
