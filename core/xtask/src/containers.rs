//! The docker CLI at the new endpoint: bring an image, run a first container VM.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::layout::{self, Layout};
use crate::say::{self, Step};
use crate::{first_image, root};

const HUB_IMAGE: &str = "busybox:latest";
const HUB: &str = "registry-1.docker.io:443";
const HUB_ANSWERS_WITHIN: Duration = Duration::from_secs(4);
const PULL_WITHIN: Duration = Duration::from_secs(120);
const RUN_WITHIN: Duration = Duration::from_secs(120);

/// The docker CLI with nothing of the user's environment that would lead it elsewhere.
pub fn docker(layout: &Layout) -> Command {
    let mut command = Command::new("docker");
    for name in
        ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"]
    {
        command.env_remove(name);
    }
    command.env("DOCKER_HOST", layout.docker_host());
    command
}

/// Makes sure that an image is there; gives its name.
pub fn ensure_image(layout: &Layout) -> Result<&'static str> {
    for name in [HUB_IMAGE, first_image::NAME] {
        if docker(layout).args(["image", "inspect", name]).output()?.status.success() {
            say::note(&format!("image `{name}` already there"));
            return Ok(name);
        }
    }
    if hub_can_be_reached() {
        let step = Step::start(format!("pull `{HUB_IMAGE}` from Docker Hub"));
        match run_within(docker(layout).args(["pull", HUB_IMAGE]), PULL_WITHIN) {
            Ok(()) => {
                step.done("pulled");
                return Ok(HUB_IMAGE);
            }
            Err(error) => say::note(&format!("that did not work ({error:#})")),
        }
    } else {
        say::note("Docker Hub does not answer from here");
    }
    let step = Step::start("make an image on the spot from this machine's busybox");
    let folder = layout::target().join("first-image");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let archive = first_image::build(&folder, first_image::NAME)?;
    run_within(docker(layout).args(["load", "--input"]).arg(&archive), PULL_WITHIN)
        .context("the image could not be loaded")?;
    fs::remove_dir_all(&folder)?;
    step.done(first_image::NAME);
    Ok(first_image::NAME)
}

/// With a proxy in the environment only a pull can tell.
fn hub_can_be_reached() -> bool {
    let has_proxy = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].iter().any(has_proxy) {
        return true;
    }
    // A name look-up has no deadline of its own, so it gets a thread that may be left behind.
    let (tell, hear) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let reached = HUB
            .to_socket_addrs()
            .is_ok_and(|mut all| all.any(|one| TcpStream::connect_timeout(&one, HUB_ANSWERS_WITHIN).is_ok()));
        let _ = tell.send(reached);
    });
    hear.recv_timeout(HUB_ANSWERS_WITHIN).unwrap_or(false)
}

/// Runs the first container VM; gives what it printed.
pub fn run_first(layout: &Layout, image: &str) -> Result<()> {
    let step = Step::start(format!("docker run --rm {image} uname -a"));
    run_within(docker(layout).args(["run", "--rm", image, "uname", "-a"]), RUN_WITHIN)
        .context("the first container VM did not run")?;
    step.done("a machine of its own booted, ran that, and is gone");
    Ok(())
}

/// Runs a command with output on stderr, and ends it when its time is over.
fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let name = root::display(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()))
        .spawn()
        .with_context(|| format!("cannot start `{name}`"))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!("`{name}` failed ({status}); its own words are above");
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("`{name}` did not end within {}", say::seconds(limit));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_ended() {
        let error = run_within(Command::new("sleep").arg("60"), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }
}
