//! `cargo xtask bench`: figures of Bulkhead beside a Docker engine, from one run on one machine.
//!
//! Bulkhead is the release build, set up as `up` does it, in a folder of its own; the engine is the distribution's, in
//! one of its own too. Both go with this command, and neither meets what else runs here.

mod acts;
mod bare;
mod client;
mod crowd;
mod decisions;
mod events;
mod facts;
mod figures;
mod large;
mod layers;
mod many;
mod measure;
mod networks;
mod pulls;
mod report;
mod segments;
mod tools;
mod volumes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::dockerd::Dockerd;
use crate::private::Private;
use crate::registry::Registry;
use crate::server::{self, Profile};
use crate::{first_image, layout, say, setup};
use client::Client;
use measure::Bench;
use report::Report;

const IMAGE: &str = "busybox";
const RUNS: usize = 7;
const RUNS_MAX: usize = 200;
/// Where `--write` puts the figures.
const DOCUMENT: &str = "core/PERFORMANCE.md";

/// Measures something at both engines.
type Measure<'a> = fn(&Bench<'a>) -> Result<Vec<figures::Row>>;

/// What can be measured alone, after the start of a container.
const fn parts<'a>() -> [(&'static str, Measure<'a>); 14] {
    [
        ("starts", Bench::other_starts),
        ("decisions", Bench::decisions),
        ("many", Bench::many),
        ("exec", Bench::in_a_running_container),
        ("logs", Bench::logs),
        ("layers", Bench::layers),
        ("pulls", Bench::pulls),
        ("large", Bench::large),
        ("disk", Bench::disk),
        ("networks", Bench::networks),
        ("volumes", Bench::volume_io),
        ("many-networks", Bench::many_networks),
        ("many-volumes", Bench::many_volumes),
        ("crowd", Bench::crowd),
    ]
}

/// The words after `bench`.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let options = Options::parse(arguments)?;
    setup::ensure(setup::For::Comparing)?;
    server::build(Profile::Release)?;
    let machine = facts::Machine::now()?;
    if let Some(busy) = &machine.busy {
        say::note(&format!("note: {busy}"));
    }
    let folder = Folder::new()?;
    let registry = Registry::start(&folder.0.join("r"))?;
    let insecure = format!("[registry]\ninsecure = ['{}']\n", registry.host());
    let more = format!("{insecure}[telemetry]\nlisten = \"\"\n{}", acts::CONFIG);
    let bulkhead = Private::start(Profile::Release, &folder.0.join("b"), &more)?;
    let dockerd = Dockerd::start(&folder.0.join("d"), None)?;
    let _inside = registry.also_inside(&dockerd)?;
    let report = compare(machine, &options, &folder.0, &registry, &bulkhead, &dockerd)?;
    let text = report.markdown();
    println!("{}", if options.json { report.json() } else { text.clone() });
    if options.write {
        let document = layout::workspace().join(DOCUMENT);
        fs::write(&document, &text).with_context(|| format!("cannot write `{}`", document.display()))?;
        say::note(&format!("wrote {DOCUMENT}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(
    machine: facts::Machine,
    options: &Options,
    folder: &Path,
    registry: &Registry,
    bulkhead: &Private,
    dockerd: &Dockerd,
) -> Result<Report> {
    let config = folder.join("docker-config");
    fs::create_dir(&config)?;
    let ours = Client::new("Bulkhead", bulkhead.host(), &config, Path::new("/proc/self/ns/net"));
    let theirs = Client::new("dockerd", dockerd.host(), &config, &dockerd.network()?);
    load_image(folder, &[&ours, &theirs])?;
    let archive = tools::import(folder, &[&ours, &theirs])?;
    let pullable = pulls::push(folder, &archive, registry)?;
    let bench = Bench {
        bulkhead: &ours,
        dockerd: &theirs,
        image: IMAGE,
        pullable: &pullable,
        folder,
        registry,
        layout: bulkhead.layout(),
        data: [&bulkhead.layout().data, &dockerd.data()],
        runs: options.runs,
    };
    let timed = bench.run_true()?;
    let mut rows = timed.rows;
    let whole = rows.first().context("nothing was timed")?;
    rows.push(bare::beside_runc(folder, whole, options.runs)?);
    for (_, measure) in parts().into_iter().filter(|(name, _)| options.only.is_none_or(|only| only == *name))
    {
        rows.extend(measure(&bench)?);
    }
    let layout = bulkhead.layout();
    let log = fs::read_to_string(&layout.log).with_context(|| format!("`{}`", layout.log.display()))?;
    Ok(Report {
        machine,
        load_after: facts::load()?,
        client_version: facts::client_version(&theirs)?,
        bulkhead: facts::Bulkhead::of(&ours, layout)?,
        dockerd: facts::dockerd(&theirs)?,
        decisions: facts::decisions(layout, options.runs)?,
        runs: options.runs,
        rows,
        acts: measure::acts(&log, &timed.ids)?,
    })
}

/// The same archive for both.
fn load_image(folder: &Path, clients: &[&Client]) -> Result<()> {
    let image = folder.join("image");
    fs::create_dir(&image)?;
    let archive = first_image::build(&image, &format!("{IMAGE}:latest"))?;
    let archive = archive.to_str().context("the path of the image is no text")?;
    for client in clients {
        client.run(&["load", "--input", archive])?;
    }
    Ok(())
}

/// A short one, since sockets are below it; gone when this goes.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let folder = PathBuf::from(format!("/tmp/bulkhead-bench-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            say::note(&format!("`{}` could not be removed: {error}", self.0.display()));
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    runs: usize,
    write: bool,
    /// Every number to stdout, for programs.
    json: bool,
    /// One of the parts.
    only: Option<&'static str>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self { runs: RUNS, write: false, json: false, only: None };
        let mut words = arguments.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value))) {
                ("--write", None) => options.write = true,
                ("--json", None) => options.json = true,
                ("--runs", value) => options.runs = runs(value.or_else(|| words.next()))?,
                ("--only", value) => options.only = Some(part(value.or_else(|| words.next()))?),
                _ => bail!("`bench` takes `--runs N`, `--only PART`, `--json` and `--write`, not `{word}`"),
            }
        }
        if options.write && options.only.is_some() {
            bail!("`--write` is for the whole: leave `--only` out");
        }
        Ok(options)
    }
}

fn runs(word: Option<&str>) -> Result<usize> {
    match word.and_then(|word| word.parse().ok()) {
        Some(runs) if (1..=RUNS_MAX).contains(&runs) => Ok(runs),
        _ => bail!("`--runs` takes a number from 1 to {RUNS_MAX}"),
    }
}

fn part(word: Option<&str>) -> Result<&'static str> {
    let names = parts().map(|(name, _)| name);
    let found = names.into_iter().find(|name| word == Some(name));
    found.with_context(|| format!("`--only` takes one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_after_bench() {
        let parse = |words: &[&str]| {
            Options::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).ok()
        };
        let options = |runs, write, json| Some(Options { runs, write, json, only: None });
        assert_eq!(parse(&[]), options(RUNS, false, false));
        assert_eq!(parse(&["--runs", "3", "--write"]), options(3, true, false));
        assert_eq!(parse(&["--runs=12", "--json"]), options(12, false, true));
        let only = Options { runs: RUNS, write: false, json: false, only: Some("many") };
        assert_eq!(parse(&["--only", "many"]), Some(only));
        for wrong in [
            "--runs",
            "--runs 0",
            "--runs=201",
            "--write=1",
            "fast",
            "--only",
            "--only all",
            "--only many --write",
        ] {
            assert_eq!(parse(&wrong.split(' ').collect::<Vec<_>>()), None, "{wrong}");
        }
    }
}
