//! `bulkhead machine`.

use super::client::Client;
use super::failure::USAGE;
use super::{Failure, Format, output};
use bulkhead_admin_api::view::MachineView;
use bulkhead_model::Boot;
use clap::Subcommand;

const ID_DIGITS: usize = 12;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List machines that run, of all VCHs, with what each takes of the host
    Ls,
    /// Show one machine, and how long each part of its container's start took
    Inspect {
        /// Its container: id, an id's beginning, or name
        container: String,
    },
}

pub fn run(command: Command, client: &Client, format: Format) -> Result<(), Failure> {
    match command {
        Command::Ls => {
            let all: Vec<MachineView> = client.get("/v1/machines")?;
            list(&all, format)
        }
        Command::Inspect { container } => {
            let found: MachineView = client.get(&path(&container)?)?;
            show(&found, format)
        }
    }
}

/// Docker's names have no other characters.
fn path(container: &str) -> Result<String, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    match !container.is_empty() && container.bytes().all(plain) {
        true => Ok(format!("/v1/machines/{container}")),
        false => Err(Failure::new(USAGE, format!("`{container}` is not the id or name of a container"))),
    }
}

fn list(all: &[MachineView], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(&all);
    }
    let row = |machine: &MachineView| {
        let cost = machine.cost.as_ref();
        let bytes = |pick: fn(&bulkhead_admin_api::view::MachineCostView) -> u64| {
            cost.map(|cost| output::bytes(pick(cost))).unwrap_or_default()
        };
        vec![
            machine.id.get(..ID_DIGITS).unwrap_or(&machine.id).to_owned(),
            machine.name.clone(),
            machine.vch.clone(),
            machine.host.clone(),
            machine.datastore.clone(),
            boot(machine.boot).to_owned(),
            machine.vcpus.to_string(),
            output::bytes(machine.memory_bytes),
            bytes(|cost| cost.proportional_bytes),
            bytes(|cost| cost.private_bytes),
            cost.map(|cost| milliseconds(cost.cpu_ms * 1000)).unwrap_or_default(),
            cost.map(|cost| cost.wake_ups.to_string()).unwrap_or_default(),
            milliseconds(machine.start.iter().map(|phase| phase.took_us).sum()),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let header = [
        "CONTAINER",
        "NAME",
        "VCH",
        "HOST",
        "DATASTORE",
        "BOOT",
        "CPUS",
        "LIMIT",
        "PSS",
        "PRIVATE",
        "CPU TIME",
        "WAKE-UPS",
        "START",
    ];
    output::table(&header, &rows);
    Ok(())
}

fn show(machine: &MachineView, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(machine);
    }
    let mut lines = vec![
        ("container", machine.id.clone()),
        ("name", machine.name.clone()),
        ("vch", machine.vch.clone()),
        ("host", machine.host.clone()),
        ("datastore", machine.datastore.clone()),
        ("boot", boot(machine.boot).to_owned()),
        ("template", machine.template.clone().unwrap_or_default()),
        ("pid", machine.pid.map(|pid| pid.to_string()).unwrap_or_default()),
        ("since", machine.since.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
        ("paused", machine.paused.to_string()),
        ("cpus", machine.vcpus.to_string()),
        ("memory limit", output::bytes(machine.memory_bytes)),
    ];
    if let Some(cost) = &machine.cost {
        lines.extend([
            ("pss", output::bytes(cost.proportional_bytes)),
            ("private", output::bytes(cost.private_bytes)),
            ("cpu time", milliseconds(cost.cpu_ms * 1000)),
            ("wake-ups", cost.wake_ups.to_string()),
        ]);
    }
    for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        output::line(&format!("{name:<14}{value}"));
    }
    if machine.start.is_empty() {
        output::line("start         not by this server");
        return Ok(());
    }
    output::line(&format!(
        "start         {}",
        milliseconds(machine.start.iter().map(|phase| phase.took_us).sum())
    ));
    for phase in &machine.start {
        output::line(&format!("  {:<18}{}", phase.name, milliseconds(phase.took_us)));
    }
    Ok(())
}

fn boot(boot: Boot) -> &'static str {
    match boot {
        Boot::Clone => "clone",
        Boot::Cold => "cold",
    }
}

/// `0.4 ms`, `1250 ms`.
fn milliseconds(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_and_names_become_paths() {
        assert_eq!(path("web_1.a-b").unwrap(), "/v1/machines/web_1.a-b");
        for bad in ["", "a/b", "a?b", "a b"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_times_have_a_digit_more() {
        assert_eq!([0, 940, 9_940, 12_345].map(milliseconds), ["0.0 ms", "0.9 ms", "9.9 ms", "12 ms"]);
    }
}
