//! A registry that has the images of the suites under their names of Docker Hub, once for each of the two networks.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::dockerd::Dockerd;
use crate::registry::Registry;
use crate::say::Step;
use crate::{first_image, root};

/// What the suites pull, each an image of its own. These are this machine's busybox.
const SMALL: &[&str] = &["alpine:3.10", "alpine:latest", "busybox:latest", "hello-world:latest"];

/// These have the distribution's Python as well.
const WITH_PYTHON: &[&str] = &["python:3.13-alpine", "python:3.14-alpine"];

/// Ends when dropped, and its files go.
pub struct Mirror(Registry);

impl Mirror {
    pub fn start(folder: &Path) -> Result<Self> {
        let step = Step::start("a registry with the images of the suites");
        let mirror = Self(Registry::start(folder)?);
        let (small, with_python) = (folder.join("small"), folder.join("python"));
        unpack_python(folder, &with_python)?;
        for files in [&small, &with_python] {
            first_image::fill(files)?;
        }
        for (names, files) in [(SMALL, small), (WITH_PYTHON, with_python)] {
            for name in names {
                mirror.push(folder, &files, name).with_context(|| format!("image `{name}`"))?;
            }
        }
        step.done(&[SMALL, WITH_PYTHON].concat().join(", "));
        Ok(mirror)
    }

    /// A second process with the same files, inside of the engine's network, where the first cannot be reached.
    pub fn also_inside(&self, engine: &Dockerd) -> Result<impl Drop + use<>> {
        self.0.also_inside(engine)
    }

    /// From both networks.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.host())
    }

    /// What Bulkhead's config says of it.
    pub fn config(&self) -> String {
        let host = self.0.host();
        format!("[registry]\ninsecure = ['{host}']\n[registry.mirrors]\n'docker.io' = ['http://{host}']\n")
    }

    fn push(&self, folder: &Path, files: &Path, name: &str) -> Result<()> {
        let draft = folder.join("draft");
        fs::create_dir_all(&draft)?;
        let archive = first_image::pack(&draft, &[files], name)?;
        self.0.push(&archive, &format!("library/{name}"))?;
        fs::remove_dir_all(&draft).map_err(Into::into)
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
