//! Images of many layers, and what containers of one image take of the disk together.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::client::Client;
use super::figures::{Row, Unit};
use super::many;
use super::measure::{Bench, medians, row};
use crate::say::Step;
use crate::{first_image, root};

const LAYERS: usize = 100;
const NAME: &str = "bench-hundred:latest";
/// Containers that share an image.
const SHARING: usize = 20;

/// Loads an image of many layers into both: a file in each, and a busybox in the last.
pub fn load(folder: &Path, clients: &[&Client]) -> Result<()> {
    let step = Step::start(format!("an image of {LAYERS} layers"));
    let folder = folder.join("hundred");
    let layers: Vec<_> = (0..LAYERS).map(|number| folder.join(format!("files-{number}"))).collect();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir_all(layer.join("parts"))?;
        fs::write(layer.join(format!("parts/{number}")), format!("{number}\n"))?;
    }
    first_image::fill(layers.last().context("an image without layers")?)?;
    let layers: Vec<&Path> = layers.iter().map(|layer| layer.as_path()).collect();
    let archive = first_image::pack(&folder, &layers, NAME)?;
    let path = archive.to_str().context("the path of the image is no text")?;
    for client in clients {
        client.run(&["load", "--input", path])?;
    }
    fs::remove_dir_all(&folder)?;
    step.done("loaded");
    Ok(())
}

impl Bench<'_> {
    /// Starts of an image of many layers, in a row and at once.
    pub fn layers(&self) -> Result<Vec<Row>> {
        load(self.folder, &[self.bulkhead, self.dockerd])?;
        let one = self.times(&format!("docker run --rm of an image of {LAYERS} layers"), |client| {
            let ran =
                client.run(&["run", "--rm", "--network", "none", NAME, "cat", "/parts/0", "/parts/99"])?;
            anyhow::ensure!(ran.output == "0\n99\n", "{}: {}", client.engine, ran.output);
            Ok(ran.ms())
        })?;
        let step = Step::start(format!("{} of that image at once", many::AT_ONCE));
        let what = format!("{} × docker run -d at once of that image, all run", many::AT_ONCE);
        let mut rows = vec![row(&what, Unit::Milliseconds)];
        for (client, of) in self.both() {
            let took = many::start_at_once(client, NAME)?;
            many::remove(client)?;
            for row in &mut rows {
                of(row).push(took.as_secs_f64() * 1000.0);
            }
        }
        step.done(&medians(&rows));
        rows.insert(0, one);
        Ok(rows)
    }

    /// What the data folder grows by, with containers of one image that run and have each written a little.
    pub fn disk(&self) -> Result<Vec<Row>> {
        let what = format!("disk of {SHARING} running containers of one image of {} MiB", self.pullable.mib);
        let step = Step::start(what.clone());
        let mut rows = vec![row(&what, Unit::Mebibytes)];
        for ((client, of), data) in self.both().into_iter().zip(self.data) {
            client.run(&["pull", "--quiet", &self.pullable.name])?;
            let before = used_mib(data)?;
            let names: Vec<String> = (0..SHARING).map(|number| format!("bench-disk-{number}")).collect();
            for name in &names {
                let words = ["run", "--detach", "--network", "none", "--name", name, &self.pullable.name];
                client.run(&[&words[..], &["sleep", "100000"]].concat())?;
            }
            let grown = used_mib(data)? - before;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            client.run(&[&["rm", "--force"], &names[..]].concat())?;
            client.run(&["rmi", &self.pullable.name])?;
            for row in &mut rows {
                of(row).push(grown);
            }
        }
        step.done(&medians(&rows));
        Ok(rows)
    }
}

/// What the files below a folder have of the disk; holes in them do not count.
fn used_mib(folder: &Path) -> Result<f64> {
    // Work that was put off is done.
    root::run(&mut Command::new("sync"))?;
    let mut du = root::command("du", "to see what a data folder takes")?;
    let answer = du.args(["--summarize", "--block-size=1K", "--one-file-system"]).arg(folder).output()?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let kib = text.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("`du` tells nothing of `{}`", folder.display()))? / 1024.0)
}
