//! An image of a gibibyte that is not there yet, run at once.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::figures::{Row, Unit};
use super::measure::{Bench, medians, row};
use crate::first_image;
use crate::registry::Registry;
use crate::say::Step;

const NAME: &str = "bench-large:latest";
const LAYERS: u64 = 8;
const LAYER_BYTES: u64 = 128 << 20;

/// Puts an image of noise, which does not compress, and a busybox into the registry.
fn push(folder: &Path, registry: &Registry) -> Result<String> {
    let step = Step::start("an image of 1 GiB in a registry");
    let folder = folder.join("large");
    let layers: Vec<_> = (0..LAYERS).map(|number| folder.join(format!("files-{number}"))).collect();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir_all(layer.join("noise"))?;
        let mut source = fs::File::open("/dev/urandom").context("/dev/urandom")?;
        let mut file = fs::File::create(layer.join(format!("noise/{number}")))?;
        std::io::copy(&mut std::io::Read::take(&mut source, LAYER_BYTES), &mut file)?;
        file.flush()?;
    }
    first_image::fill(layers.last().context("an image without layers")?)?;
    let layers: Vec<&Path> = layers.iter().map(|layer| layer.as_path()).collect();
    registry.push(&first_image::pack(&folder, &layers, NAME)?, NAME)?;
    fs::remove_dir_all(&folder)?;
    step.done("pushed");
    Ok(format!("{}/{NAME}", registry.host()))
}

impl Bench<'_> {
    /// Until the first output of a process whose image has to be fetched first.
    pub fn large(&self) -> Result<Vec<Row>> {
        let name = push(self.folder, self.registry)?;
        let what =
            format!("docker run --rm of an image of {} MiB, not there yet", (LAYERS * LAYER_BYTES) >> 20);
        let step = Step::start(what.clone());
        let mut rows = vec![row(&what, Unit::Milliseconds)];
        for _ in 0..self.runs.div_ceil(3) {
            for (client, of) in self.both() {
                let ran = client.run(&["run", "--rm", "--network", "none", &name, "echo", "here"])?;
                ensure!(ran.output == "here\n", "{}: {}", client.engine, ran.output);
                client.run(&["rmi", &name])?;
                for row in &mut rows {
                    of(row).push(ran.ms());
                }
            }
        }
        step.done(&medians(&rows));
        Ok(rows)
    }
}
