//! A small image made on the spot from the distribution's busybox, in the format that `docker load` reads.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::root;

/// Its name, once loaded.
pub const NAME: &str = "bulkhead/first:latest";

/// Writes `folder/image.tar`, an image that is called `name` once loaded.
pub fn build(folder: &Path, name: &str) -> Result<PathBuf> {
    let files = folder.join("root");
    fill(&files)?;
    pack(folder, &[&files], name)
}

/// Puts a busybox with all its commands and the least of a system into a folder; what is there already stays.
pub fn fill(files: &Path) -> Result<()> {
    let busybox = root::find_program("busybox").context("there is no busybox to make an image of")?;
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "var"] {
        fs::create_dir_all(files.join(name))?;
    }
    fs::copy(&busybox, files.join("bin/busybox")).context("cannot copy busybox")?;
    for applet in applets(&busybox)? {
        let link = files.join("bin").join(applet);
        if fs::symlink_metadata(&link).is_err() {
            symlink("busybox", link)?;
        }
    }
    fs::write(
        files.join("etc/passwd"),
        // The suites of `cargo xtask peers` run as the second, which the image that they expect has.
        "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    fs::write(files.join("etc/group"), "root:x:0:\npostgres:x:70:\nnogroup:x:65534:\n")?;
    Ok(())
}

/// Makes an image, each layer of a folder's files, the lowest first; gives its archive, in `folder`.
pub fn pack(folder: &Path, layers: &[&Path], name: &str) -> Result<PathBuf> {
    let image = folder.join("image");
    fs::create_dir_all(&image)?;
    let (mut names, mut digests) = (Vec::new(), Vec::new());
    for (number, files) in layers.iter().enumerate() {
        let layer = format!("layer-{number}.tar");
        tar(files, &image.join(&layer), &["."])?;
        digests.push(format!("sha256:{}", sha256(&image.join(&layer))?));
        names.push(layer);
    }
    let made = json!({"created": "1970-01-01T00:00:00Z", "created_by": format!("programs of this machine, as {name}")});
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin"]},
        "history": vec![made; layers.len()],
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    let draft = image.join("config");
    fs::write(&draft, config.to_string())?;
    let config_name = format!("{}.json", sha256(&draft)?);
    fs::rename(&draft, image.join(&config_name))?;
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]);
    fs::write(image.join("manifest.json"), manifest.to_string())?;

    let archive = folder.join("image.tar");
    let members = ["manifest.json", &config_name].into_iter().chain(names.iter().map(String::as_str));
    tar(&image, &archive, &members.collect::<Vec<_>>())?;
    Ok(archive)
}

/// The commands that a busybox has, each of which gets a name of its own.
fn applets(busybox: &Path) -> Result<Vec<String>> {
    let answer = Command::new(busybox).arg("--list").output().context("cannot start busybox")?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    Ok(text.lines().filter(|&name| name != "busybox").map(str::to_owned).collect())
}

fn tar(folder: &Path, into: &Path, members: &[&str]) -> Result<()> {
    root::run(
        Command::new("tar")
            .args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["--mtime=@0", "--mode=u+rwX,go+rX,go-w", "--file"])
            .arg(into)
            .arg("--directory")
            .arg(folder)
            .args(members),
    )
}

fn sha256(file: &Path) -> Result<String> {
    let answer = Command::new("sha256sum")
        .stdin(Stdio::from(fs::File::open(file)?))
        .output()
        .context("cannot start sha256sum")?;
    let text = String::from_utf8_lossy(&answer.stdout);
    match text.split_whitespace().next() {
        Some(digest) if digest.len() == 64 => Ok(digest.to_owned()),
        _ => bail!("sha256sum gave no digest for `{}`", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_what_docker_load_expects() {
        let folder = std::env::temp_dir().join(format!("bulkhead-first-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let archive = build(&folder, NAME).unwrap();
        let list = Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
        let names = String::from_utf8(list.stdout).unwrap();
        assert!(names.starts_with("manifest.json\n") && names.ends_with("layer-0.tar\n"), "{names}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
