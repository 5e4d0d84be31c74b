//! A server with a PostgreSQL that somebody else runs. Machines are simulated: the database is what is looked at.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::run;
use bulkhead_test_support::wait_for;
use bulkhead_test_support::{BackEnd, Server, ServerOptions};

use crate::harness::Case;
use crate::world::{World, has};

pub const CASES: &[Case] = &[("own_database::state_is_kept_there", state_is_kept_there)];

const STARTS_WITHIN: Duration = Duration::from_secs(120);

fn state_is_kept_there(_: &mut World) -> Result<()> {
    let database = Database::start()?;
    let url = format!("postgres://owner@127.0.0.1:{}/postgres", database.port);
    let options =
        ServerOptions { back_end: BackEnd::Sim, database_url: Some(url), ..ServerOptions::default() };
    let mut server = Server::start(&options)?;
    server.bulkhead(&["vch", "create", "kept", "--class", "dev", "--tenant", "acme"])?.ok()?;
    ensure!(!server.data_dir().join("postgres/data").exists(), "it made a cluster of its own nevertheless");
    server.kill_9()?;
    server.restart()?;
    has(&server.bulkhead(&["vch", "ls"])?.ok()?, "kept")?;
    ensure!(database.tables()?.contains("vch"), "nothing is in the database");
    drop(server);
    drop(database);
    Ok(())
}

/// A cluster as an operator would run it. It is ended before its folder goes.
struct Database {
    folder: PathBuf,
    port: u16,
    child: Child,
}

impl Database {
    fn start() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("bulkhead-database-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let data = folder.join("data");
        let mut initdb = as_nobody(&program("initdb")?);
        initdb.args([
            "--auth=trust",
            "--username=owner",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "--pgdata",
        ]);
        run(initdb.arg(&data), STARTS_WITHIN)?.ok()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = as_nobody(&program("postgres")?)
            .arg("-F")
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "unix_socket_directories=",
                "-c",
                "listen_addresses=127.0.0.1",
                "-p",
                &port.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let database = Self { folder, port, child };
        wait_for("the database answers", STARTS_WITHIN, || database.tables().ok())?;
        Ok(database)
    }

    fn tables(&self) -> Result<String> {
        let mut command = Command::new("psql");
        command.args([
            "--host=127.0.0.1",
            "--username=owner",
            "--no-psqlrc",
            "--tuples-only",
            "--dbname=postgres",
        ]);
        command.args([&format!("--port={}", self.port), "--command=select tablename from pg_tables"]);
        run(&mut command, STARTS_WITHIN)?.ok()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SIGINT: a fast stop (postgres(1)).
        let mut command = Command::new("kill");
        command.args(["-INT", &self.child.id().to_string()]);
        run(&mut command, Duration::from_secs(5)).ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// PostgreSQL refuses to run as root.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("there is no PostgreSQL here")?;
    let found = versions
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.is_file())
        .max();
    found.with_context(|| format!("no `{name}`"))
}
