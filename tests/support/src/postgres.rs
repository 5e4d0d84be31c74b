//! A real PostgreSQL for tests: one private cluster per test program, a fresh database per test.
//!
//! A guard process holds the other end of a pipe. However the test program ends, a panic or SIGKILL included, the pipe
//! closes, and the guard ends the cluster and removes its folder.

use anyhow::{Context as _, Result};
use bulkhead_store::{Database, EmbeddedPostgres, Store};
use sqlx::{Connection as _, PgConnection};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::sync::OnceCell;

/// A fresh, empty database. It goes with its cluster, when the test program ends.
#[derive(Debug)]
pub struct Postgres {
    database: Database,
}

/// A folder for a cluster, with its guard: dropping this ends the cluster in it, if any, and removes the folder.
#[derive(Debug)]
pub struct ClusterDir {
    path: PathBuf,
    guard: Child,
}

#[derive(Debug)]
struct Cluster {
    postgres: EmbeddedPostgres,
    // Last: the guard must outlive the use of the cluster. In a static it is never dropped; the pipe closes at exit.
    _dir: ClusterDir,
}

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

impl Postgres {
    /// A new database on this program's cluster, which the first call starts.
    pub async fn start() -> Result<Self> {
        let cluster = CLUSTER.get_or_try_init(Cluster::start).await?;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut connection = admin(&cluster.postgres).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(Self { database: cluster.postgres.database().named(&name) })
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The store on this database, its schema up to date.
    pub async fn store(&self) -> Result<Store> {
        let store = Store::connect(&self.database, 8).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// For statements that the store does not offer.
    pub async fn connection(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect_with(&self.database.connect_options()).await?)
    }
}

impl Cluster {
    async fn start() -> Result<Self> {
        let dir = ClusterDir::new()?;
        let postgres = EmbeddedPostgres::start(dir.path(), None).await?;
        let mut connection = admin(&postgres).await?;
        // Nothing here has to survive a loss of power.
        sqlx::raw_sql("alter system set fsync = off").execute(&mut connection).await?;
        sqlx::raw_sql("alter system set full_page_writes = off").execute(&mut connection).await?;
        sqlx::raw_sql("select pg_reload_conf()").execute(&mut connection).await?;
        connection.close().await?;
        Ok(Self { postgres, _dir: dir })
    }
}

async fn admin(postgres: &EmbeddedPostgres) -> Result<PgConnection> {
    Ok(PgConnection::connect_with(&postgres.database().connect_options()).await?)
}

impl ClusterDir {
    pub fn new() -> Result<Self> {
        let path = tempfile::Builder::new().prefix("bulkhead-test-").tempdir()?.keep();
        // The database's user has to pass.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711))?;
        // The loop is bounded: where nobody reaps orphans, an ended process keeps its number.
        let script = "cat >/dev/null
            pid=$(head -n 1 \"$1/postgres/data/postmaster.pid\" 2>/dev/null)
            if [ -n \"$pid\" ] && [ \"$(readlink \"/proc/$pid/cwd\")\" = \"$1/postgres/data\" ]; then
                kill -QUIT \"$pid\"
                n=0
                while [ -e \"/proc/$pid/cwd\" ] && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done
            fi
            rm -rf \"$1\"";
        let guard = Command::new("sh")
            .args(["-c", script, "guard"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .context("cannot start the guard of a test cluster")?;
        Ok(Self { path, guard })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ClusterDir {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It ends by itself; this only reaps it.
        let _ = self.guard.wait();
    }
}
