//! An image that is not there yet: pulled, and run at once.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::client::Client;
use super::figures::{Row, Unit};
use super::measure::{Bench, medians, row};
use crate::registry::Registry;
use crate::say::Step;
use crate::{first_image, root};

const NAME: &str = "bench-layers:latest";
const LAYERS: u64 = 8;

/// A name by which both engines can pull an image, and what it is.
#[derive(Debug)]
pub struct Pullable {
    pub name: String,
    /// Of the files in it.
    pub mib: u64,
}

/// Spreads the files of an archive over the layers of an image, and puts it into a registry. Works below `folder`.
pub fn push(folder: &Path, archive: &Path, registry: &Registry) -> Result<Pullable> {
    let step = Step::start(format!("an image of {LAYERS} layers in a registry"));
    let folder = folder.join("pullable");
    let (whole, layers) = (folder.join("files"), folder.join("layers"));
    fs::create_dir_all(&whole)?;
    let words = ["--exclude=./dev/*", "--directory"];
    root::run(Command::new("tar").arg("-xf").arg(archive).args(words).arg(&whole))?;
    let mut files = Vec::new();
    list(&whole, &mut files)?;
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let mut before = 0;
    for (file, size) in &files {
        let layer = layers.join((before * LAYERS / bytes.max(1)).to_string());
        before += size;
        let place = layer.join(file.strip_prefix(&whole)?);
        fs::create_dir_all(place.parent().context("a file in no folder")?)?;
        fs::hard_link(file, &place).with_context(|| format!("cannot link `{}`", place.display()))?;
    }
    let layers: Vec<_> = (0..LAYERS).map(|number| layers.join(number.to_string())).collect();
    let layers: Vec<&Path> = layers.iter().map(|layer| layer.as_path()).collect();
    first_image::fill(layers.last().context("an image without layers")?)?;
    registry.push(&first_image::pack(&folder, &layers, NAME)?, NAME)?;
    fs::remove_dir_all(&folder)?;
    let mib = bytes >> 20;
    step.done(&format!("{mib} MiB of files"));
    Ok(Pullable { name: format!("{}/{NAME}", registry.host()), mib })
}

/// Each regular file below a folder with its bytes, in the order of their names.
fn list(folder: &Path, files: &mut Vec<(std::path::PathBuf, u64)>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(())
}

impl Bench<'_> {
    /// Until an image is there, and until a process of it ran that was asked for without waiting for that.
    pub fn pulls(&self) -> Result<Vec<Row>> {
        let Pullable { name, mib } = self.pullable;
        let what = format!("{mib} MiB of files in {LAYERS} layers, from a registry on this machine");
        let step = Step::start(what.clone());
        let mut rows = vec![
            row(&format!("docker pull of {what}"), Unit::Milliseconds),
            row("docker run --rm of that image, not there yet", Unit::Milliseconds),
        ];
        let ways: [fn(&Client, &str) -> Result<f64>; 2] = [
            |client, name| Ok(client.run(&["pull", "--quiet", name])?.ms()),
            |client, name| Ok(client.run(&["run", "--rm", "--network", "none", name, "echo", "here"])?.ms()),
        ];
        for turn in 0..=self.runs {
            for (client, of) in self.both() {
                for (row, way) in rows.iter_mut().zip(ways) {
                    let ms = way(client, name)?;
                    client.run(&["rmi", name])?;
                    if turn > 0 {
                        of(row).push(ms);
                    }
                }
            }
        }
        step.done(&medians(&rows));
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_by_name_and_links_are_none() {
        let folder = std::env::temp_dir().join(format!("bulkhead-pulls-{}", std::process::id()));
        fs::create_dir_all(folder.join("b")).unwrap();
        fs::write(folder.join("b/two"), "22").unwrap();
        fs::write(folder.join("a"), "1").unwrap();
        std::os::unix::fs::symlink("a", folder.join("c")).unwrap();
        let mut files = Vec::new();
        list(&folder, &mut files).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(files, [(folder.join("a"), 1), (folder.join("b/two"), 2)]);
    }
}
