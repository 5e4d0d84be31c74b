//! An image with the programs that measure, made of the distribution's packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::client::Client;
use crate::root;
use crate::say::Step;

pub const IMAGE: &str = "bench-tools";

/// The same for all; gives its archive, in `folder`.
pub fn import(folder: &Path, clients: &[&Client]) -> Result<PathBuf> {
    let step = Step::start("an image with fio and iperf3");
    let archive = folder.join("tools.tar");
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", "--include=fio,iperf3", "bookworm"]).arg(&archive);
    root::run(&mut make)?;
    let path = archive.to_str().context("the path of the image is no text")?;
    for client in clients {
        client.run(&["import", path, IMAGE])?;
    }
    step.done("imported");
    Ok(archive)
}
