//! Where `up` puts things. Without `--data-dir` in the places an operator expects on Debian; with it everything
//! below that one folder, so that a trial leaves nothing elsewhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The name of the VCH that `up` creates.
pub const VCH: &str = "dev";

/// All paths of one installation.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    pub binary: PathBuf,
    pub guest: PathBuf,
    pub config: PathBuf,
    pub data: PathBuf,
    pub run: PathBuf,
    pub log: PathBuf,
}

impl Layout {
    /// The system-wide places.
    pub fn system() -> Self {
        Self {
            binary: "/usr/local/bin/bulkhead".into(),
            guest: "/var/lib/bulkhead/guest".into(),
            config: "/etc/bulkhead/bulkhead.toml".into(),
            data: "/var/lib/bulkhead".into(),
            run: "/run/bulkhead".into(),
            log: "/var/log/bulkhead.log".into(),
        }
    }

    /// Everything below one folder.
    pub fn below(folder: &Path) -> Self {
        Self {
            binary: folder.join("bin/bulkhead"),
            guest: folder.join("data/guest"),
            config: folder.join("bulkhead.toml"),
            data: folder.join("data"),
            run: folder.join("data/run"),
            log: folder.join("server.log"),
        }
    }

    /// From the words after `up` or `down`.
    pub fn parse(data_dir: Option<&str>) -> Result<Self> {
        let Some(folder) = data_dir else { return Ok(Self::system()) };
        let folder = std::path::absolute(folder).with_context(|| format!("`--data-dir {folder}`"))?;
        // A unix socket address has 107 bytes; the longest below the run folder is a VCH's.
        if folder.as_os_str().len() > 40 {
            bail!("`--data-dir` is too long for the sockets below it: take a path of at most 40 bytes");
        }
        Ok(Self::below(&folder))
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.run.join("admin.sock")
    }

    pub fn docker_socket(&self) -> PathBuf {
        self.run.join("vch").join(VCH).join("docker.sock")
    }

    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.docker_socket().display())
    }

    /// How to stop what runs here.
    pub fn down_command(&self, asked: Option<&str>) -> String {
        match asked {
            Some(folder) => format!("cargo xtask down --data-dir {folder}"),
            None => "cargo xtask down".to_owned(),
        }
    }
}

/// The workspace's root folder.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The folder that cargo builds into.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_folder_holds_everything() {
        let layout = Layout::parse(Some("/srv/trial")).unwrap();
        assert_eq!(layout.docker_host(), "unix:///srv/trial/data/run/vch/dev/docker.sock");
        for path in [&layout.binary, &layout.guest, &layout.config, &layout.data, &layout.run, &layout.log] {
            assert!(path.starts_with("/srv/trial"), "{}", path.display());
        }
    }

    #[test]
    fn a_folder_too_deep_for_sockets_is_refused() {
        let error = Layout::parse(Some(&format!("/{}", "x".repeat(80)))).unwrap_err();
        assert!(error.to_string().contains("at most 40 bytes"), "{error}");
    }
}
