//! Folders, configuration and programs of the private cluster.

use super::{EmbeddedError, MAJORS};
use nix::unistd::{Gid, Uid, User};
use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Only part of the socket's name: no TCP port is opened.
pub(super) const PORT: u16 = 5432;
/// Longest path of a unix socket (`sun_path` without its closing NUL, unix(7)).
const SOCKET_PATH_MAX: usize = 107;
const LOG_BYTES_MAX: u64 = 4 << 20;
const LOG_TAIL_BYTES: i64 = 2000;

#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub root: PathBuf,
    pub data: PathBuf,
    pub socket_dir: PathBuf,
    pub config: PathBuf,
    pub hba: PathBuf,
    pub log: PathBuf,
}

/// The user as which PostgreSQL runs.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    /// This process is root and has to become that user.
    pub switch: bool,
}

#[derive(Debug)]
pub(super) struct Binaries {
    pub postgres: PathBuf,
    pub initdb: PathBuf,
}

impl Owner {
    pub(super) fn choose(user: Option<&str>) -> Result<Self, EmbeddedError> {
        let uid = Uid::effective();
        if !uid.is_root() {
            return Ok(Self { name: uid.to_string(), uid, gid: Gid::effective(), switch: false });
        }
        let candidates = user.map_or_else(|| vec!["postgres", "nobody"], |user| vec![user]);
        // By name only: initdb wants a passwd entry.
        let found = candidates.iter().find_map(|name| User::from_name(name).ok().flatten());
        match found {
            Some(user) if !user.uid.is_root() => {
                Ok(Self { name: user.name, uid: user.uid, gid: user.gid, switch: true })
            }
            _ => Err(EmbeddedError::NoUser(candidates.join("` or `"))),
        }
    }
}

/// Makes the folders and writes the configuration. Can be repeated.
pub(super) fn prepare(data_dir: &Path, owner: &Owner) -> Result<Layout, EmbeddedError> {
    let data_dir = fs::canonicalize(data_dir).map_err(EmbeddedError::io("find", data_dir))?;
    let root = data_dir.join("postgres");
    make_dir(&root, 0o711)?;
    check_reachable(&root, owner)?;
    let socket_dir = socket_dir(&root);
    make_dir(&socket_dir, 0o700)?;
    hand_over(&socket_dir, owner)?;
    let layout = Layout {
        data: root.join("data"),
        config: root.join("postgresql.conf"),
        hba: root.join("pg_hba.conf"),
        log: root.join("postgres.log"),
        socket_dir,
        root,
    };
    write_file(&layout.config, &config(&layout.socket_dir))?;
    // Who may connect is who may pass the socket's folder: that user, and root.
    write_file(&layout.hba, "local all all trust\n")?;
    trim_log(&layout)?;
    Ok(layout)
}

fn config(socket_dir: &Path) -> String {
    let socket_dir = socket_dir.display().to_string().replace('\'', "''");
    format!(
        "# Written by Bulkhead at each start; changes are lost.\n\
         listen_addresses = ''\n\
         port = {PORT}\n\
         unix_socket_directories = '{socket_dir}'\n\
         unix_socket_permissions = 0700\n\
         max_connections = 100\n\
         shared_buffers = 32MB\n\
         max_wal_size = 256MB\n\
         min_wal_size = 32MB\n\
         max_wal_senders = 2\n\
         jit = off\n\
         max_parallel_workers_per_gather = 0\n\
         # What was acknowledged survives a loss of power.\n\
         fsync = on\n\
         full_page_writes = on\n\
         synchronous_commit = on\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         # To stderr, which is postgres.log. Errors of statements are the client's to report, and texts of statements\n\
         # may hold what is nobody's business; so the log stays small.\n\
         logging_collector = off\n\
         log_min_messages = log\n\
         log_min_error_statement = panic\n\
         log_checkpoints = off\n\
         cluster_name = 'bulkhead'\n"
    )
}

/// Below the cluster's folder; somewhere short if that is too deep for a socket.
fn socket_dir(root: &Path) -> PathBuf {
    let near = root.join("run");
    // `/.s.PGSQL.5432.lock` is the longest name in it.
    if near.as_os_str().len() + "/.s.PGSQL.5432.lock".len() <= SOCKET_PATH_MAX {
        return near;
    }
    let digest = bulkhead_model::Digest::of(root.as_os_str().as_bytes());
    let base = if Uid::effective().is_root() { "/run" } else { "/tmp" };
    Path::new(base).join(format!("bulkhead-{}", digest.short()))
}

/// A folder of ours with this mode. One that is there must not be a link, nor another user's: it may lie in /tmp.
fn make_dir(path: &Path, mode: u32) -> Result<(), EmbeddedError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(path).map_err(EmbeddedError::io("look at", path))?;
            if !meta.is_dir() {
                return Err(EmbeddedError::io("use as a folder", path)(io::ErrorKind::NotADirectory.into()));
            }
            let ours = Uid::effective();
            // Root may have handed it over already.
            if meta.uid() != ours.as_raw() && !ours.is_root() {
                return Err(EmbeddedError::ForeignFolder {
                    path: path.into(),
                    uid: meta.uid(),
                    expected: ours.as_raw(),
                });
            }
        }
        Err(error) => return Err(EmbeddedError::io("make", path)(error)),
    }
    // Whatever the umask took away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(EmbeddedError::io("set the mode of", path))
}

pub(super) fn hand_over(path: &Path, owner: &Owner) -> Result<(), EmbeddedError> {
    if !owner.switch {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
        .map_err(EmbeddedError::io("hand over", path))
}

/// PostgreSQL would only say "permission denied"; say which folder is closed.
fn check_reachable(root: &Path, owner: &Owner) -> Result<(), EmbeddedError> {
    if !owner.switch {
        return Ok(());
    }
    for folder in root.ancestors() {
        let meta = fs::metadata(folder).map_err(EmbeddedError::io("look at", folder))?;
        let bit = match () {
            () if meta.uid() == owner.uid.as_raw() => 0o100,
            () if meta.gid() == owner.gid.as_raw() => 0o010,
            () => 0o001,
        };
        if meta.mode() & bit == 0 {
            let user = owner.name.clone();
            return Err(EmbeddedError::Unreachable { user, path: root.into(), closed: folder.into() });
        }
    }
    Ok(())
}

/// Whole or not at all, so that a cluster never starts on half a configuration.
fn write_file(path: &Path, text: &str) -> Result<(), EmbeddedError> {
    let new = path.with_extension("conf.new");
    let write = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(EmbeddedError::io("write", path))
}

/// The programs that fit the cluster's data; the newest of the known releases for a new cluster.
pub(super) fn find_binaries(layout: &Layout) -> Result<Binaries, EmbeddedError> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for major in MAJORS.rev() {
        let dir = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        if has_programs(&dir) {
            found.push((major, dir));
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for dir in std::env::split_paths(&path).filter(|dir| dir.is_absolute() && has_programs(dir)) {
        // Programs in PATH are mostly links into a folder of the release's own.
        if let Some(major) = major_of(&dir.join("postgres"))
            && MAJORS.contains(&major)
        {
            found.push((major, dir));
        }
    }
    let version_file = layout.data.join("PG_VERSION");
    let chosen = match fs::read_to_string(&version_file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            found.first().ok_or(EmbeddedError::NoBinaries)?
        }
        Err(error) => return Err(EmbeddedError::io("read", &version_file)(error)),
        Ok(data) => {
            if found.is_empty() {
                return Err(EmbeddedError::NoBinaries);
            }
            let data = data.trim().to_owned();
            found.iter().find(|(major, _)| major.to_string() == data).ok_or_else(|| {
                let mut majors: Vec<String> = found.iter().map(|(major, _)| major.to_string()).collect();
                majors.dedup();
                EmbeddedError::Version { dir: layout.data.clone(), data, found: majors.join(", ") }
            })?
        }
    };
    Ok(Binaries { postgres: chosen.1.join("postgres"), initdb: chosen.1.join("initdb") })
}

fn has_programs(dir: &Path) -> bool {
    dir.join("postgres").is_file() && dir.join("initdb").is_file()
}

/// `postgres (PostgreSQL) 15.14 (Debian …)`
fn major_of(postgres: &Path) -> Option<u32> {
    let output = std::process::Command::new(postgres).arg("--version").env_clear().output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_whitespace().nth(2)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Opened to append: after [`trim_log`] the postmaster goes on at the beginning.
pub(super) fn open_log(layout: &Layout) -> Result<fs::File, EmbeddedError> {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&layout.log)
        .map_err(EmbeddedError::io("open", &layout.log))
}

pub(super) fn trim_log(layout: &Layout) -> Result<(), EmbeddedError> {
    let log = open_log(layout)?;
    let trim = || if log.metadata()?.len() > LOG_BYTES_MAX { log.set_len(0) } else { Ok(()) };
    trim().map_err(EmbeddedError::io("trim", &layout.log))
}

/// The last lines, for error messages.
pub(super) fn log_tail(layout: &Layout) -> String {
    let read = || -> io::Result<String> {
        let mut log = fs::File::open(&layout.log)?;
        let back = LOG_TAIL_BYTES.min(i64::try_from(log.metadata()?.len()).unwrap_or(0));
        log.seek(io::SeekFrom::End(-back))?;
        let mut tail = Vec::new();
        log.take(LOG_TAIL_BYTES.unsigned_abs()).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_folder_gets_a_short_socket() {
        let near = Path::new("/var/lib/bulkhead/postgres");
        assert_eq!(socket_dir(near), near.join("run"));
        let deep = PathBuf::from(format!("/{}", "deep/".repeat(20)));
        let socket = socket_dir(&deep);
        assert!(socket.as_os_str().len() < 40, "{}", socket.display());
        assert_ne!(socket, socket_dir(&deep.join("other")));
    }

    #[test]
    fn quotes_in_paths_stay_inside_the_setting() {
        assert!(config(Path::new("/a'b")).contains("unix_socket_directories = '/a''b'\n"));
    }
}
