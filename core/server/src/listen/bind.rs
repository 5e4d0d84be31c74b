//! Opening sockets.

use anyhow::{Context as _, Result, bail};
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use tokio::net::{TcpListener, UnixListener};

/// A unix socket that everybody may connect to; the peer's uid decides what happens then. One that a crashed server
/// left is replaced: the caller holds the lock of the folder.
pub fn bind_unix(path: &Path) -> Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            fs::remove_file(path).with_context(|| format!("cannot replace `{}`", path.display()))?;
        }
        Ok(_) => bail!("`{}` is in the way: it is no socket", path.display()),
        Err(_) => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on `{}`", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

pub async fn bind_tcp(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
