//! A registry that has the images of the suites under their names of Docker Hub, once for each of the two networks.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::dockerd::Dockerd;
use crate::say::Step;
use crate::{first_image, root, setup};

const READY_WITHIN: Duration = Duration::from_secs(20);

/// What the suites pull, each an image of its own. These are this machine's busybox.
const SMALL: &[&str] = &["alpine:3.10", "alpine:latest", "busybox:latest", "hello-world:latest"];

/// These have the distribution's Python as well.
const WITH_PYTHON: &[&str] = &["python:3.13-alpine", "python:3.14-alpine"];

/// A process that ends when dropped.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends when dropped, and its files go.
pub struct Mirror {
    folder: PathBuf,
    port: u16,
    _process: Ends,
}

impl Mirror {
    pub fn start(folder: &Path) -> Result<Self> {
        let step = Step::start("a registry with the images of the suites");
        fs::create_dir_all(folder).with_context(|| format!("`{}`", folder.display()))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        fs::write(folder.join("config.yml"), config(folder, port))?;
        let process = serve(Command::new(program()?), folder)?;
        let mirror = Self { folder: folder.to_owned(), port, _process: process };
        mirror.wait_until_ready()?;
        let (small, with_python) = (folder.join("small"), folder.join("python"));
        unpack_python(folder, &with_python)?;
        for files in [&small, &with_python] {
            first_image::fill(files)?;
        }
        for (names, files) in [(SMALL, small), (WITH_PYTHON, with_python)] {
            for name in names {
                mirror.push(&files, name).with_context(|| format!("image `{name}`"))?;
            }
        }
        step.done(&[SMALL, WITH_PYTHON].concat().join(", "));
        Ok(mirror)
    }

    /// A second process with the same files, inside of the engine's network, where the first cannot be reached.
    pub fn also_inside(&self, engine: &Dockerd) -> Result<impl Drop + use<>> {
        serve(engine.in_its_network(&program()?)?, &self.folder)
    }

    /// From both networks.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What Bulkhead's config says of it.
    pub fn config(&self) -> String {
        let host = format!("127.0.0.1:{}", self.port);
        format!("[registry]\ninsecure = ['{host}']\n[registry.mirrors]\n'docker.io' = ['http://{host}']\n")
    }

    fn push(&self, files: &Path, name: &str) -> Result<()> {
        let draft = self.folder.join("draft");
        fs::create_dir_all(&draft)?;
        let archive = first_image::pack(&draft, files, name)?;
        root::run(
            Command::new("skopeo")
                .args(["copy", "--quiet", "--dest-tls-verify=false", "--insecure-policy"])
                .arg(format!("docker-archive:{}", archive.display()))
                .arg(format!("docker://127.0.0.1:{}/library/{name}", self.port)),
        )?;
        fs::remove_dir_all(&draft).map_err(Into::into)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if started.elapsed() > READY_WITHIN {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("the registry does not answer; its log:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Its files only: nothing in the packages runs.
fn unpack_python(folder: &Path, into: &Path) -> Result<()> {
    let archive = folder.join("python.tar");
    root::run(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=extract", "--include=python3-minimal,libpython3-stdlib", "bookworm"])
            .arg(&archive),
    )?;
    fs::create_dir_all(into)?;
    root::run(
        Command::new("tar").arg("-xf").arg(&archive).arg("--directory").arg(into).arg("--exclude=./dev/*"),
    )?;
    std::os::unix::fs::symlink("python3", into.join("usr/bin/python"))?;
    fs::remove_file(&archive).map_err(Into::into)
}

fn program() -> Result<PathBuf> {
    let unpacked = setup::tools().join("docker-registry");
    if unpacked.is_file() {
        return Ok(unpacked);
    }
    root::find_program("docker-registry").context("there is no docker-registry")
}

fn serve(mut command: Command, folder: &Path) -> Result<Ends> {
    let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
    let child = command
        .arg("serve")
        .arg(folder.join("config.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the registry")?;
    Ok(Ends(child))
}

fn config(folder: &Path, port: u16) -> String {
    let data = folder.join("data");
    format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
         http: {{addr: '127.0.0.1:{port}'}}\n",
        data
    )
}
