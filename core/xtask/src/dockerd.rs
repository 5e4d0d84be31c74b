//! Debian's Docker engine, to compare with: unpacked only, started in network and mount namespaces of its own with
//! data of its own, so that it meets neither an engine of this machine nor its packet filter.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::say::{self, Step};
use crate::{peer, root, setup};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// Below this its containers are in the control groups, so that none is left behind unseen.
const CGROUP: &str = "bulkhead-peer";

/// Waits for nothing but its own words: sets up the namespace it was started in, and becomes the engine.
const SCRIPT: &str = "ip link set lo up && exec dockerd \"$@\"";

/// A running engine; dropped, it ends with all that it holds.
pub struct Dockerd {
    folder: PathBuf,
    child: Child,
}

impl Dockerd {
    /// Starts it with all its files below `folder`. `mirror` is a registry inside of its network, asked instead of
    /// Docker Hub.
    pub fn start(folder: &Path, mirror: Option<&str>) -> Result<Self> {
        let step = Step::start("start the Docker engine to compare with");
        std::fs::create_dir_all(folder).with_context(|| format!("`{}`", folder.display()))?;
        let log = std::fs::File::create(folder.join("dockerd.log"))?;
        // The system's own settings are not for this one.
        std::fs::write(folder.join("daemon.json"), "{}\n")?;
        let mut command = root::command("env", "to start the engine to compare with")?;
        command
            .arg(format!("PATH={}", path()))
            .args(["unshare", "--net", "--mount", "sh", "-c", SCRIPT, "dockerd"])
            .args(["--host", &host(folder)])
            .args(["--cgroup-parent", CGROUP])
            .args([
                "--init-path".into(),
                setup::unpacked("tini").join("usr/bin/tini-static").into_os_string(),
            ]);
        for (option, name) in [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
            ("--config-file", "daemon.json"),
        ] {
            command.arg(option).arg(folder.join(name));
        }
        if let Some(mirror) = mirror {
            command.args(["--registry-mirror", mirror]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the engine")?;
        let mut engine = Self { folder: folder.to_owned(), child };
        engine.wait_until_ready()?;
        step.done(&engine.version()?);
        Ok(engine)
    }

    /// For `DOCKER_HOST`.
    pub fn host(&self) -> String {
        host(&self.folder)
    }

    /// Where it keeps everything.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A command inside of its network.
    pub fn in_its_network(&self, program: &Path) -> Result<Command> {
        let mut command = root::command("nsenter", "to enter the network of the engine to compare with")?;
        command.arg(format!("--net={}", self.network()?.display())).arg(program);
        Ok(command)
    }

    /// Its network, for nsenter(1).
    pub fn network(&self) -> Result<PathBuf> {
        let Some(pid) = self.pid()? else { bail!("the engine to compare with is gone") };
        Ok(format!("/proc/{pid}/ns/net").into())
    }

    /// What it says of itself, in one line.
    pub fn version(&self) -> Result<String> {
        let format = "dockerd {{.ServerVersion}}, {{.Driver}}, cgroup v{{.CgroupVersion}} ({{.CgroupDriver}}), \
                      log driver {{.LoggingDriver}}";
        let answer = Command::new("docker")
            .env("DOCKER_HOST", self.host())
            .args(["info", "--format", format])
            .output()
            .context("cannot start the docker CLI")?;
        if !answer.status.success() {
            bail!("`docker info` at the engine: {}", String::from_utf8_lossy(&answer.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    }

    fn pid(&self) -> Result<Option<u32>> {
        peer::pid_of(&self.folder.join("docker.sock"))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while self.version().is_err() {
            let ended = self.child.try_wait()?.is_some();
            if ended || started.elapsed() > READY_WITHIN {
                let log = std::fs::read_to_string(self.folder.join("dockerd.log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n");
                bail!("the engine to compare with does not answer; the end of its log:\n{end}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// It ends its containers itself, then their empty control groups can go.
    fn stop(&mut self) -> Result<()> {
        if let Some(pid) = self.pid()? {
            peer::terminate(pid)?;
        }
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > STOPS_WITHIN {
                bail!("it did not end within {}", say::seconds(STOPS_WITHIN));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let script = "find /sys/fs/cgroup -depth -type d -path \"*/$1*\" -exec rmdir {} +";
        root::run(
            root::command("sh", "to remove its control groups")?.args(["-c", script, "rmdir", CGROUP]),
        )?;
        root::run(root::command("rm", "to remove its data")?.arg("-rf").arg(&self.folder))
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            let folder = self.folder.display();
            say::note(&format!("the engine to compare with, in `{folder}`, is not wholly gone: {error:#}"));
        }
    }
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

/// Its parts first, since it looks for them by name.
fn path() -> String {
    let own = ["docker.io", "containerd", "runc"]
        .map(setup::unpacked)
        .map(|package| format!("{0}/usr/bin:{0}/usr/sbin", package.display()));
    format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", own.join(":"))
}
