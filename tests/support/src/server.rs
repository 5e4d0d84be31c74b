//! A real `bulkhead serve`, in a data folder of its own.
//!
//! The server of a test shares nothing with another one, nor with one that is installed: folders, sockets, PostgreSQL
//! and ports are its own.

use crate::docker::Docker;
use crate::process::{Output, run};
use crate::wait_for;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How machines of VCHs come to life in tests that do not say so: `cold`, or the product's default.
pub const BOOT: &str = "BULKHEAD_TEST_BOOT";
/// Until a server is ready: initdb and migrations at first, on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// Until a server that was asked to stop has ended.
const STOP: Duration = Duration::from_secs(45);
/// Deadline of one `bulkhead` command.
const COMMAND: Duration = Duration::from_secs(60);

/// What carries the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackEnd {
    /// Simulated machines: fast, nothing boots.
    #[default]
    Sim,
    /// Real machines; needs a guest image.
    Qemu,
}

#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    pub back_end: BackEnd,
    /// Kernel and initramfs of the guests.
    pub guest_dir: Option<PathBuf>,
    /// More lines of the configuration file; whole sections, except `[telemetry]` and `[security]`, which are set.
    pub config: String,
    /// A PostgreSQL that somebody else runs; else the server runs one of its own.
    pub database_url: Option<String>,
    /// The program; else the one that was built beside the test.
    pub binary: Option<PathBuf>,
}

/// A running server. Dropping it removes what it made: VCHs, machines, PostgreSQL, the folder.
#[derive(Debug)]
pub struct Server {
    dir: tempfile::TempDir,
    binary: PathBuf,
    telemetry_port: u16,
    child: Option<Child>,
    /// Whether it was ready once: only then is there anything to clean up by its own means.
    was_ready: bool,
}

/// The `bulkhead` that was built beside the running test.
pub fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe().context("cannot tell where this test is")?;
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join("bulkhead")).find(|path| path.is_file());
    found.context("no `bulkhead` beside this test; build it first: cargo build -p bulkhead-server")
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub fn start(options: &ServerOptions) -> Result<Self> {
        let binary = match &options.binary {
            Some(path) => path.clone(),
            None => binary()?,
        };
        let dir = tempfile::Builder::new().prefix("bulkhead-test-").tempdir()?;
        // PostgreSQL's user must get through to its own folder.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        std::fs::create_dir(dir.path().join("docker-config"))?;
        let mut server = Self { dir, binary, telemetry_port: free_port()?, child: None, was_ready: false };
        std::fs::write(server.config_file(), server.config(options))?;
        server.launch()?;
        server.wait_ready()?;
        server.was_ready = true;
        Ok(server)
    }

    fn config(&self, options: &ServerOptions) -> String {
        let mut top = format!("data_dir = {:?}\n", self.data_dir());
        if let Some(guest_dir) = &options.guest_dir {
            top.push_str(&format!("guest_dir = {guest_dir:?}\n"));
        }
        if let Some(url) = &options.database_url {
            top.push_str(&format!("database_url = {url:?}\n"));
        }
        top.push_str(match options.back_end {
            BackEnd::Sim => "back_end = \"sim\"\n",
            BackEnd::Qemu => "back_end = \"qemu\"\n",
        });
        format!(
            "{top}\n[telemetry]\nlisten = \"127.0.0.1:{}\"\n\n[security]\naccept_emulation = true\n\n{}",
            self.telemetry_port, options.config
        )
    }

    /// Starts the process again, after [`Self::kill_9`] or [`Self::terminate`], and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("the server still runs");
        }
        self.launch()?;
        self.wait_ready()
    }

    fn launch(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(self.config_file());
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(File::try_clone(&log)?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run `{}`", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `/readyz` says so; an early end of the server is an error with its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let address = self.telemetry_address();
        let log = self.log_file();
        let Some(child) = &mut self.child else { bail!("no server runs") };
        let answer = wait_for("the server is ready", READY, || match child.try_wait() {
            Ok(None) => ready(&address).then_some(None),
            Ok(Some(status)) => Some(Some(status)),
            Err(_) => None,
        });
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        match answer {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                self.child = None;
                bail!("the server ended with {status}:\n{}", log())
            }
            Err(late) => Err(late.context(log())),
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.data_dir().join("run")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir().join("admin.sock")
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("bulkhead.toml")
    }

    /// Scratch space that goes with the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `127.0.0.1:PORT` of `/metrics`, `/healthz` and `/readyz`.
    pub fn telemetry_address(&self) -> String {
        format!("127.0.0.1:{}", self.telemetry_port)
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Everything that the server logged so far, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The process, while one runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `bulkhead ARGS` against this server, run to its end.
    pub fn bulkhead(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.binary);
        command.args(args).env("BULKHEAD_ADMIN_SOCKET", self.admin_socket()).env_remove("RUST_LOG");
        run(&mut command, COMMAND)
    }

    /// Creates a VCH (`args` as for `bulkhead vch create NAME`) and gives the docker CLI for it.
    pub fn create_vch(&self, name: &str, args: &[&str]) -> Result<Docker> {
        let boot = std::env::var(BOOT).ok();
        let boot: &[&str] = match &boot {
            Some(boot) if !args.contains(&"--boot") => &["--boot", boot],
            _ => &[],
        };
        let created = self.bulkhead(&[&["vch", "create", name], args, boot].concat())?;
        created.ok().with_context(|| self.log())?;
        Ok(self.docker(name))
    }

    /// The docker CLI for a VCH's unix socket.
    pub fn docker(&self, vch: &str) -> Docker {
        let socket = self.run_dir().join("vch").join(vch).join("docker.sock");
        Docker::new(format!("unix://{}", socket.display()), &self.dir.path().join("docker-config"))
    }

    /// Ends the server as if the power of this process alone was cut. Machines and PostgreSQL go on.
    pub fn kill_9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no server runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end. Machines go on, PostgreSQL does not.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("no server runs")?;
        self.signal_to(child.id(), Signal::SIGTERM)?;
        let ended = wait_for("the server has stopped", STOP, || child.try_wait().transpose());
        match ended {
            Ok(status) => Ok(status?),
            Err(late) => {
                child.kill().ok();
                child.wait().ok();
                Err(late.context(self.log()))
            }
        }
    }

    /// Sends a signal to the running server.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.signal_to(self.pid().context("no server runs")?, signal)
    }

    fn signal_to(&self, pid: u32, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(pid)?), signal).context("cannot signal the server")
    }

    fn clean_up(&mut self) -> Result<()> {
        if self.child.is_none() && self.was_ready {
            // Only a server can end the machines that outlived another one.
            self.restart()?;
        }
        if self.child.is_some() && self.was_ready {
            let list = self.bulkhead(&["vch", "ls", "-o", "json"])?.ok()?;
            let list: serde_json::Value = serde_json::from_str(&list)?;
            for vch in list.as_array().into_iter().flatten() {
                if let Some(name) = vch.get("name").and_then(serde_json::Value::as_str) {
                    self.bulkhead(&["vch", "rm", "--force", name])?.ok()?;
                }
            }
        }
        if self.child.is_some() {
            self.terminate()?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            // A test that fails for another reason keeps its own message; this one is for the reader of its output.
            eprintln!("cleaning up after the test server: {error:#}");
            if let Some(mut child) = self.child.take() {
                child.kill().ok();
                child.wait().ok();
            }
        }
    }
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn ready(address: &str) -> bool {
    get(address, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The whole answer to a plain GET.
fn get(address: &str, path: &str) -> Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Server {
    /// The answer of the telemetry listener to `GET PATH`, with its status line and headers.
    pub fn telemetry(&self, path: &str) -> Result<String> {
        get(&self.telemetry_address(), path)
    }
}
