//! Sockets and ports that the server will open. One that a running server has is fine.

use super::Finding;
use crate::config::Config;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3);

pub fn check_admin(config: &Config) -> Finding {
    let path = config.admin_socket();
    if UnixStream::connect(&path).is_ok() {
        return Finding::ok("admin socket", format!("a server runs at {}", path.display()));
    }
    match std::fs::symlink_metadata(&path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => Finding::failed(
            "admin socket",
            format!("`{}` is in the way", path.display()),
            "move that file away, or set run_dir",
        ),
        Ok(_) | Err(_) => Finding::ok("admin socket", format!("{} is free", path.display())),
    }
}

pub fn check_telemetry(config: &Config) -> Finding {
    let Some(address) = config.telemetry.address() else {
        return Finding::ok("telemetry", "turned off");
    };
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("telemetry", format!("{address} is free")),
        Err(_) if is_ours(address) && UnixStream::connect(config.admin_socket()).is_ok() => {
            Finding::ok("telemetry", format!("a server runs at {address}"))
        }
        Err(error) => Finding::failed(
            "telemetry",
            format!("{address}: {error}"),
            "set [telemetry] listen to another port, or to \"\"",
        ),
    }
}

/// Whether it is a server of ours that has the port.
fn is_ours(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with("\r\n\r\nok\n"))
}
