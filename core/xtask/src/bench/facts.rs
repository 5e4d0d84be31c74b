//! Where the figures come from: the machine, and what both engines say about how they are set up. No names of hosts.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::client::Client;
use crate::layout::{self, Layout, VCH};
use crate::server;

/// Above this share of its cores in use before anything is measured, a machine is busy with something else.
const QUIET_LOAD_PER_CORE: f64 = 0.4;

/// The machine, and how busy it was before the measuring began.
#[derive(Debug)]
pub struct Machine {
    pub lines: Vec<String>,
    /// Why the figures are to be doubted.
    pub busy: Option<String>,
}

impl Machine {
    pub fn now() -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let load = load()?;
        let busy = (load > cores as f64 * QUIET_LOAD_PER_CORE).then(|| {
            format!("others worked on the machine (load {load:.1} on {cores} cores before the first run): times are too long, rates too low, both uneven")
        });
        let model = field("/proc/cpuinfo", "model name")?;
        let memory_kib: u64 = field("/proc/meminfo", "MemTotal")?.trim_end_matches(" kB").parse()?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
        let mut lines = vec![
            format!("date: {}", told("date", &["--utc", "+%Y-%m-%d"])?),
            format!("processor: {cores} cores ({model})"),
            format!("memory: {} GiB", memory_kib >> 20),
            format!("system: {}, kernel {}", system.trim_matches('"'), kernel.trim()),
            format!("load before the first run: {load:.1}"),
        ];
        // A source archive has no history.
        if let Ok(commit) = told("git", &["describe", "--always", "--dirty=, changed since"]) {
            lines.insert(1, format!("Bulkhead's commit: {commit}"));
        }
        Ok(Self { lines, busy })
    }
}

/// Processes that wanted to run, over the last minute.
pub fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn field(file: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(file)?;
    let found = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
    found.map(|(_, value)| value.trim().to_owned()).with_context(|| format!("{file} has no `{name}`"))
}

fn told(program: &str, words: &[&str]) -> Result<String> {
    let answer = Command::new(program).args(words).current_dir(layout::workspace()).output()?;
    if !answer.status.success() {
        bail!("`{program}` failed");
    }
    Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

/// What Bulkhead says of itself.
#[derive(Debug)]
pub struct Bulkhead {
    pub accelerator: String,
    pub lines: Vec<String>,
}

impl Bulkhead {
    pub fn of(client: &Client, layout: &Layout) -> Result<Self> {
        let info = info(client)?;
        let accelerator = status(&info, "Accelerator").context("Bulkhead tells no accelerator")?;
        let set = status(&info, "Policy set").context("Bulkhead tells no policies: they are not bound")?;
        let lines = vec![
            format!(
                "version {}, `cargo build --release`, set up as `cargo xtask up` does it",
                text(&info, "ServerVersion")
            ),
            format!(
                "{}, accelerator **{accelerator}**, guest kernel {}",
                status(&info, "Back end").unwrap_or_default(),
                text(&info, "KernelVersion")
            ),
            format!("PostgreSQL of the server's own: {}", durability(layout)?),
            format!("policies of class {}: `{set}`", status(&info, "Class").unwrap_or_default()),
            format!("log driver {}; what each driver does is logged too", text(&info, "LoggingDriver")),
        ];
        Ok(Self { accelerator, lines })
    }
}

/// What its database does before it says that something is stored.
fn durability(layout: &Layout) -> Result<String> {
    let file = layout.data.join("postgres/postgresql.conf");
    let text = fs::read_to_string(&file).with_context(|| format!("`{}`", file.display()))?;
    let settings: Vec<&str> = text
        .lines()
        .filter(|line| {
            ["fsync", "synchronous_commit", "full_page_writes"].iter().any(|name| line.starts_with(name))
        })
        .collect();
    if !settings.contains(&"fsync = on") {
        bail!(
            "the database does not wait for the disk (`fsync = on` is not in its settings): figures would be wrong"
        );
    }
    Ok(settings.join(", "))
}

/// The number of decisions on record; an error if each request of so many runs was not decided and recorded.
pub fn decisions(layout: &Layout, runs: usize) -> Result<usize> {
    let words = ["--output", "json", "decision", "ls", VCH, "--limit", "1000"];
    let answer = server::admin(layout).args(words).output().context("cannot start the bulkhead CLI")?;
    let page: Value = serde_json::from_slice(&answer.stdout)
        .with_context(|| format!("decisions: {}", String::from_utf8_lossy(&answer.stderr).trim()))?;
    let all = page.get("items").and_then(Value::as_array).context("no list of decisions")?;
    // Create, attach and start.
    if all.len() < 3 * runs {
        bail!("only {} decisions are on record: what was measured is not what ships", all.len());
    }
    Ok(all.len())
}

/// What the peer says of itself.
pub fn dockerd(client: &Client) -> Result<Vec<String>> {
    let info = info(client)?;
    let commit = |name: &str| {
        let id = info.pointer(&format!("/{name}/ID")).and_then(Value::as_str).unwrap_or_default();
        if id.is_empty() { "as packaged".to_owned() } else { id.chars().take(20).collect() }
    };
    Ok(vec![
        format!(
            "version {} (the distribution's packages), settings of the package",
            text(&info, "ServerVersion")
        ),
        format!(
            "storage driver {} on {}",
            text(&info, "Driver"),
            status(&info, "Backing Filesystem").unwrap_or_else(|| "an unknown file system".into())
        ),
        format!("cgroup driver {}, cgroup v{}", text(&info, "CgroupDriver"), text(&info, "CgroupVersion")),
        format!(
            "runtime {} (runc {}, containerd {})",
            text(&info, "DefaultRuntime"),
            commit("RuncCommit"),
            commit("ContainerdCommit")
        ),
        format!("log driver {}", text(&info, "LoggingDriver")),
    ])
}

/// The client that both are asked with.
pub fn client_version(client: &Client) -> Result<String> {
    Ok(client.run(&["version", "--format", "{{.Client.Version}}"])?.output.trim().to_owned())
}

fn info(client: &Client) -> Result<Value> {
    let told = client.run(&["info", "--format", "{{json .}}"])?.output;
    serde_json::from_str(&told).with_context(|| format!("`docker info` of {}", client.engine))
}

fn text(info: &Value, name: &str) -> String {
    info.get(name).and_then(Value::as_str).unwrap_or("unknown").to_owned()
}

/// A line of what `docker info` shows below the storage driver.
fn status(info: &Value, name: &str) -> Option<String> {
    let lines = info.get("DriverStatus")?.as_array()?;
    let line = lines.iter().find(|line| line.get(0).and_then(Value::as_str) == Some(name))?;
    line.get(1)?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_told_without_its_name() {
        let machine = Machine::now().unwrap();
        let all = machine.lines.join("\n");
        assert!(all.contains(" cores (") && all.contains(" GiB") && all.contains("kernel "), "{all}");
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert!(!all.contains(name.trim()) || name.trim().len() < 4, "{all}");
    }

    #[test]
    fn lines_below_the_storage_driver() {
        let info: Value = serde_json::json!({ "DriverStatus": [["Back end", "qemu 7"], ["Accelerator", "tcg"]], "Driver": "x" });
        assert_eq!(status(&info, "Accelerator").as_deref(), Some("tcg"));
        assert_eq!(status(&info, "Class"), None);
        assert_eq!((text(&info, "Driver"), text(&info, "Other")), ("x".to_owned(), "unknown".to_owned()));
    }
}
