//! Many starts and ends, one after the other, leave nothing behind.
//!
//! Every run makes a few; `cargo xtask test --full` makes a thousand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::{run, wait_for};

use crate::harness::Case;
use crate::network::{WITHIN, inside, namespace};
use crate::world::{World, code, same};

pub const CASES: &[Case] = &[("soak::what_has_run_is_gone", what_has_run_is_gone)];

const FEW: usize = 15;
const MANY: usize = 1000;
/// After these, what is made once is there.
const WARM_UP: usize = 5;
/// Spares are made and given away while this looks.
const SETTLES_WITHIN: Duration = Duration::from_secs(120);
/// What the server may have grown by: its allocator keeps some, and each start is in the log and the history.
const GROWTH_MAX_KIB: u64 = 24 << 10;
/// Connections to the database that come and go.
const CONNECTIONS_MAX: usize = 10;
/// Tables that tell what was done: they are to grow, up to a limit of their own.
const HISTORY: [&str; 3] = ["audit", "decisions", "events"];

fn what_has_run_is_gone(world: &mut World) -> Result<()> {
    let many = std::env::var_os("BULKHEAD_TEST_FULL").is_some();
    start_and_end(world, WARM_UP)?;
    let before = Inventory::of(world)?;
    let (memory, open) = (memory_kib(world)?, descriptors(world)?);
    start_and_end(world, if many { MANY } else { FEW })?;
    let mut last = None;
    let settled = wait_for("all is as it was", SETTLES_WITHIN, || {
        last = Inventory::of(world).ok();
        last.as_ref().is_some_and(|now| *now == before).then_some(())
    });
    settled.with_context(|| format!("before: {before:#?}\nafter: {last:#?}"))?;
    let grown = memory_kib(world)?.saturating_sub(memory);
    ensure!(grown <= GROWTH_MAX_KIB, "the server takes {grown} KiB more than before");
    let more = descriptors(world)?.saturating_sub(open);
    ensure!(more <= CONNECTIONS_MAX, "the server has {more} descriptors more than before");
    code(&world.server.bulkhead(&["debug", "fsck"])?, 0)
}

/// Each has a network, a port, a volume, and a word to say.
fn start_and_end(world: &World, times: usize) -> Result<()> {
    let image = world.busybox();
    for turn in 0..times {
        let word = format!("turn {turn}");
        let said =
            world.dev.ok(&["run", "--rm", "--publish", "80", "--volume", "/data", &image, "echo", &word])?;
        same(said.trim(), word)?;
    }
    Ok(())
}

/// How much there is of what a start makes.
#[derive(Debug, PartialEq)]
struct Inventory(BTreeMap<String, u64>);

impl Inventory {
    fn of(world: &World) -> Result<Self> {
        let mut all = rows(world)?;
        let mut put = |name: &str, number: usize| all.insert(name.to_owned(), number as u64);
        let namespace = namespace(world, "dev-a")?;
        let lines = |words: &[&str]| -> Result<usize> {
            Ok(run(&mut inside(&namespace, words), WITHIN)?.ok()?.lines().count())
        };
        put("interfaces", lines(&["ip", "-oneline", "link"])?);
        put("lines of rules", lines(&["nft", "list", "ruleset"])?);
        for folder in ["machines", "journals", "vchs"] {
            put(folder, files(&world.server.data_dir().join(folder))?);
        }
        Ok(Self(all))
    }
}

/// Of each table of the embedded database, but for those of the past.
fn rows(world: &World) -> Result<BTreeMap<String, u64>> {
    let socket = world.server.data_dir().join("postgres/run");
    let ask = |words: &str| -> Result<String> {
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "-At", "-U", "bulkhead", "-d", "bulkhead", "-c", words])
            .arg("-h")
            .arg(&socket);
        run(&mut psql, WITHIN)?.ok()
    };
    let tables = ask("select tablename from pg_tables where schemaname = 'public'")?;
    let mut rows = BTreeMap::new();
    for table in tables.lines().filter(|table| !HISTORY.contains(table)) {
        rows.insert(
            format!("rows of {table}"),
            ask(&format!("select count(*) from \"{table}\""))?.trim().parse()?,
        );
    }
    ensure!(rows.keys().any(|name| name.contains("container")), "no table of containers: {rows:?}");
    Ok(rows)
}

fn files(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

fn descriptors(world: &World) -> Result<usize> {
    let pid = world.server.pid().context("the server does not run")?;
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn memory_kib(world: &World) -> Result<u64> {
    let pid = world.server.pid().context("the server does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
