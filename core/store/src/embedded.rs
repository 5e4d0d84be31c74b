//! The private PostgreSQL cluster: what holds the state when the operator names no database.
//!
//! ```text
//!   DATA/postgres/            of the server's own user, so that the database's user cannot plant links in it
//!     data/                   the cluster, of the database's user
//!     data.new-*/             one being made; renamed to `data` when whole, removed by the next start when not
//!     run/                    the socket: this folder's mode (0700) is who may connect
//!     postgresql.conf pg_hba.conf postgres.log
//! ```
//!
//! The postmaster outlives the server: it runs in its own process group, and a server that starts adopts it. It is found by
//! what no crash can fake: a process whose working folder is the cluster's.

mod files;
mod process;

use crate::Database;
use files::{Layout, Owner};
use process::Postmaster;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Role and database name.
const NAME: &str = "bulkhead";
/// Releases that the SQL of this crate was written for.
const MAJORS: std::ops::RangeInclusive<u32> = 15..=18;
const INITDB_TIMEOUT: Duration = Duration::from_secs(180);
/// After a crash, PostgreSQL replays its log before it answers.
const START_TIMEOUT: Duration = Duration::from_secs(180);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(25);

/// A running cluster. Dropping this leaves it running; [`EmbeddedPostgres::stop`] ends it.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    layout: Layout,
    database: Database,
    postmaster: Postmaster,
}

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "no PostgreSQL {} to {} was found in /usr/lib/postgresql/*/bin or PATH (install the package `postgresql-15` or newer, or set `database_url`)",
        MAJORS.start(), MAJORS.end()
    )]
    NoBinaries,
    #[error(
        "the database in `{}` was made by PostgreSQL {data}, but only PostgreSQL {found} is installed (install {data}, or move the data with pg_upgrade)",
        dir.display()
    )]
    Version { dir: PathBuf, data: String, found: String },
    #[error("PostgreSQL does not run as root, and there is no user `{0}` to run it as")]
    NoUser(String),
    #[error("the user `{user}`, as which PostgreSQL runs, cannot reach `{}`: its folder `{}` lacks the permission to pass (o+x)", path.display(), closed.display())]
    Unreachable { user: String, path: PathBuf, closed: PathBuf },
    #[error("`{}` belongs to uid {uid}, expected uid {expected}", path.display())]
    ForeignFolder { path: PathBuf, uid: u32, expected: u32 },
    #[error("`{program}` failed: {output}")]
    Failed { program: &'static str, output: String },
    #[error("PostgreSQL did not {what} within {} s: {output}", limit.as_secs())]
    Late { what: &'static str, limit: Duration, output: String },
    #[error("cannot {what} `{}`", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the private database cannot be set up")]
    Setup(#[source] sqlx::Error),
}

impl EmbeddedError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }
}

impl EmbeddedPostgres {
    /// Makes the cluster if there is none, starts it if it does not run, and waits until it answers. The caller holds the
    /// [`crate::DataDirLock`] of `data_dir`.
    ///
    /// `user` is the system user to run as when this process is root (PostgreSQL refuses root): by default `postgres`
    /// where it exists, else `nobody`. Ignored when this process is not root.
    pub async fn start(data_dir: &Path, user: Option<&str>) -> Result<Self, EmbeddedError> {
        let owner = Owner::choose(user)?;
        let layout = files::prepare(data_dir, &owner)?;
        let binaries = files::find_binaries(&layout)?;
        if !layout.data.exists() {
            process::initdb(&layout, &binaries, &owner).await?;
        }
        let postmaster = match process::find_postmaster(&layout) {
            Some(pid) => {
                tracing::info!(pid, "the database still runs and is adopted");
                Postmaster::Adopted(pid)
            }
            None => {
                process::clear_stale_files(&layout).await?;
                process::spawn(&layout, &binaries, &owner)?
            }
        };
        // Each of these said outright: libpq's variables (PGHOST, PGPASSWORD …) are not meant for this cluster.
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&layout.socket_dir)
            .port(files::PORT)
            .username(NAME)
            .password("")
            .database(NAME)
            .ssl_mode(PgSslMode::Disable);
        let mut cluster = Self { layout, database: Database(options), postmaster };
        cluster.wait_until_ready().await?;
        cluster.create_database().await?;
        Ok(cluster)
    }

    /// How to connect; see [`crate::Store::connect`].
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.postmaster.pid()
    }

    /// Whether it was already running when this server started.
    pub fn is_adopted(&self) -> bool {
        matches!(self.postmaster, Postmaster::Adopted(_))
    }

    /// Ends the cluster: open transactions are rolled back, everything committed is on disk.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        self.postmaster.signal(nix::sys::signal::Signal::SIGINT, &self.layout);
        let late = Instant::now() + STOP_TIMEOUT;
        while self.postmaster.is_alive(&self.layout) {
            if Instant::now() > late {
                let output = files::log_tail(&self.layout);
                return Err(EmbeddedError::Late { what: "stop", limit: STOP_TIMEOUT, output });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Empties the cluster's log if it has grown large. To be called now and then; each start does it too.
    pub fn trim_log(&self) -> Result<(), EmbeddedError> {
        files::trim_log(&self.layout)
    }

    async fn wait_until_ready(&mut self) -> Result<(), EmbeddedError> {
        let late = Instant::now() + START_TIMEOUT;
        loop {
            // Every cluster has the database `postgres`.
            let error = match connect(&self.database.named("postgres")).await {
                Ok(connection) => {
                    connection.close().await.map_err(EmbeddedError::Setup)?;
                    return Ok(());
                }
                Err(error) => error,
            };
            if !self.postmaster.is_alive(&self.layout) {
                return Err(EmbeddedError::Failed {
                    program: "postgres",
                    output: files::log_tail(&self.layout),
                });
            }
            if Instant::now() > late {
                let output = format!("{error}; {}", files::log_tail(&self.layout));
                return Err(EmbeddedError::Late { what: "answer", limit: START_TIMEOUT, output });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Also after a crash between `initdb` and this.
    async fn create_database(&self) -> Result<(), EmbeddedError> {
        let mut connection = connect(&self.database.named("postgres")).await.map_err(EmbeddedError::Setup)?;
        let there: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(NAME)
            .fetch_one(&mut connection)
            .await
            .map_err(EmbeddedError::Setup)?;
        if !there {
            sqlx::query("create database bulkhead")
                .execute(&mut connection)
                .await
                .map_err(EmbeddedError::Setup)?;
        }
        connection.close().await.map_err(EmbeddedError::Setup)
    }
}

async fn connect(database: &Database) -> Result<PgConnection, sqlx::Error> {
    let connecting = PgConnection::connect_with(&database.0);
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}
