//! An image registry on this machine for the length of a command: the distribution's, its files below a given folder.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::dockerd::Dockerd;
use crate::{root, setup};

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A process that ends when dropped.
#[derive(Debug)]
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends when dropped, and its files go.
#[derive(Debug)]
pub struct Registry {
    folder: PathBuf,
    port: u16,
    _process: Ends,
}

impl Registry {
    pub fn start(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("`{}`", folder.display()))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        fs::write(folder.join("config.yml"), config(folder, port))?;
        let process = serve(Command::new(program()?), folder)?;
        let registry = Self { folder: folder.to_owned(), port, _process: process };
        registry.wait_until_ready()?;
        Ok(registry)
    }

    /// A second process with the same files, inside of the engine's network, where the first cannot be reached.
    pub fn also_inside(&self, engine: &Dockerd) -> Result<impl Drop + use<>> {
        serve(engine.in_its_network(&program()?)?, &self.folder)
    }

    /// For names of images, from both networks.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts the image of an archive there, as `name`, which has a tag.
    pub fn push(&self, archive: &Path, name: &str) -> Result<()> {
        root::run(
            Command::new("skopeo")
                .args(["copy", "--quiet", "--dest-tls-verify=false", "--insecure-policy"])
                .arg(format!("docker-archive:{}", archive.display()))
                .arg(format!("docker://{}/{name}", self.host())),
        )
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

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
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
