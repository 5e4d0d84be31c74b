//! The folders of an installation, with the modes that keep strangers out.
//!
//! The data folder itself may be passed through (0711): PostgreSQL and each machine run as users of their own and reach
//! only their own folder below it.

use crate::config::Config;
use anyhow::{Context as _, Result, bail};
use bulkhead_model::ServerId;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Folders {
    data_dir: PathBuf,
    run_dir: PathBuf,
}

impl Folders {
    pub fn prepare(config: &Config) -> Result<Self> {
        folder(&config.data_dir, 0o711)?;
        folder(&config.data_dir.join("tls"), 0o700)?;
        folder(&config.data_dir.join("spool"), 0o700)?;
        folder(&config.run_dir, 0o755)?;
        folder(&config.run_dir.join("vch"), 0o755)?;
        Ok(Self { data_dir: config.data_dir.clone(), run_dir: config.run_dir.clone() })
    }

    /// The id of this installation; made once. It is written on every machine, so it must never change.
    pub fn server_id(&self) -> Result<ServerId> {
        let path = self.data_dir.join("server-id");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| format!("`{}`", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let id = ServerId(uuid::Uuid::new_v4());
                crate::tls::write_private(&path, &format!("{id}\n"))?;
                Ok(id)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.run_dir.join("bulkhead.pid")
    }

    pub fn write_pid(&self) -> Result<()> {
        let path = self.pid_file();
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        let mut file = file.with_context(|| format!("cannot write `{}`", path.display()))?;
        writeln!(file, "{}", std::process::id())?;
        Ok(())
    }

    /// What shows that a server runs. Files that stay say no more than that one was here.
    pub fn remove_files(&self, admin_socket: &Path) {
        fs::remove_file(admin_socket).ok();
        fs::remove_file(self.pid_file()).ok();
    }
}

/// Made, or found to be ours; its mode as it must be.
pub fn folder(path: &Path, mode: u32) -> Result<()> {
    let what = || format!("cannot prepare the folder `{}`", path.display());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(what)?;
            }
            DirBuilder::new().mode(mode).create(path).with_context(what)?;
        }
        Err(error) => return Err(error).with_context(what),
        Ok(_) => {}
    }
    // Followed here: an operator may link the data folder to another disk.
    let found = fs::metadata(path).with_context(what)?;
    if !found.is_dir() {
        bail!("`{}` is no folder", path.display());
    }
    let own = nix::unistd::geteuid().as_raw();
    if found.uid() != own {
        bail!(
            "the folder `{}` belongs to uid {}, and this server runs as uid {own}",
            path.display(),
            found.uid()
        );
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn folders_get_their_modes_and_the_id_stays() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::parse("", "test", Some(&dir.path().join("data"))).unwrap();
        let folders = Folders::prepare(&config).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&config.data_dir), 0o711);
        assert_eq!(mode(&config.data_dir.join("tls")), 0o700);
        let id = folders.server_id().unwrap();
        assert_eq!(mode(&config.data_dir.join("server-id")), 0o600);
        assert_eq!(Folders::prepare(&config).unwrap().server_id().unwrap(), id);
    }

    #[test]
    fn a_damaged_id_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::parse("", "test", Some(dir.path())).unwrap();
        let folders = Folders::prepare(&config).unwrap();
        fs::write(dir.path().join("server-id"), "?").unwrap();
        assert!(folders.server_id().is_err());
        assert_eq!(fs::read_to_string(dir.path().join("server-id")).unwrap(), "?");
    }
}
