//! `bulkhead decision`.

use super::client::Client;
use super::failure::{Failure, USAGE};
use super::{Format, output};
use bulkhead_admin_api::view::DecisionView;
use bulkhead_model::DecisionId;
use bulkhead_model::plugin::{PluginReport, Said};
use chrono::SecondsFormat;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell the whole story of a decision
    Show { id: String },
    /// List the latest decisions of a VCH
    Ls {
        /// The VCH
        vch: String,
        #[arg(long, short = 'n', default_value_t = 20)]
        limit: u32,
    },
}

pub fn run(command: Command, client: &Client, format: Format) -> Result<(), Failure> {
    match command {
        Command::Show { id } => {
            let id: DecisionId = id.parse().map_err(|error| Failure::new(USAGE, format!("{error}")))?;
            let decision: DecisionView = client.get(&format!("/v1/decisions/{id}"))?;
            match format {
                Format::Json => output::json(&decision)?,
                Format::Table => output::text(&page(&decision)),
            }
        }
        Command::Ls { vch, limit } => {
            let vch: bulkhead_model::vch::VchName =
                vch.parse().map_err(|error| Failure::new(USAGE, format!("{error}")))?;
            let all: Vec<DecisionView> = client.get(&format!("/v1/vchs/{vch}/decisions?limit={limit}"))?;
            match format {
                Format::Json => output::json(&all)?,
                Format::Table => {
                    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
                    output::table(&["ID", "AT", "VERDICT", "ACTION", "CALLER", "REASON"], &rows);
                }
            }
        }
    }
    Ok(())
}

fn row(decision: &DecisionView) -> Vec<String> {
    let reason = decision.reasons.first().map(|reason| reason.text.clone()).unwrap_or_default();
    vec![
        decision.id.clone(),
        decision.at.to_rfc3339_opts(SecondsFormat::Secs, true),
        decision.verdict.clone(),
        decision.action.clone(),
        decision.caller.clone(),
        reason,
    ]
}

fn page(decision: &DecisionView) -> String {
    let lines = [
        ("decision", decision.id.clone()),
        ("verdict", decision.verdict.to_uppercase()),
        ("action", decision.action.clone()),
        ("caller", decision.caller.clone()),
        ("resource", decision.resource.clone()),
        ("VCH", decision.vch.clone()),
        ("at", decision.at.to_rfc3339_opts(SecondsFormat::Millis, true)),
        ("took", format!("{} µs", decision.took_us)),
        ("policy set", decision.policy_set.clone()),
    ];
    let mut page: String = lines.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect();
    page.push_str("\nreasons\n");
    for reason in &decision.reasons {
        for line in reason.page().lines() {
            page.push_str(&format!("  {line}\n"));
        }
    }
    if !decision.plugins.is_empty() {
        page.push_str("\nplugins\n");
    }
    for report in &decision.plugins {
        page.push_str(&plugin(report));
    }
    page.push_str("\ninputs\n");
    // A value always renders.
    for line in serde_json::to_string_pretty(&decision.inputs).unwrap_or_default().lines() {
        page.push_str(&format!("  {line}\n"));
    }
    page
}

/// One plugin's part: who it is, how it was asked, what it said, what that cost.
fn plugin(report: &PluginReport) -> String {
    let mut text = format!(
        "  {} ({} {}, {}): {}, {} µs, {} fuel\n",
        report.binding,
        report.plugin,
        report.version,
        report.mode,
        report.said.as_str(),
        report.took_us,
        report.fuel
    );
    if let Said::Change { changes } = &report.said {
        for (change, why) in changes {
            text.push_str(&format!("    {change}: {why}\n"));
        }
    }
    for reason in report.objections() {
        text.push_str(&format!("    {}\n", reason.text));
        if let Some(advice) = &reason.advice {
            text.push_str(&format!("      would pass: {advice}\n"));
        }
    }
    for warning in &report.warnings {
        text.push_str(&format!("    warning: {warning}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::Reason;
    use bulkhead_model::plugin::{Change, Mode};
    use bulkhead_model::reason::Rule;

    #[test]
    fn the_page_tells_everything() {
        let reason = Reason::new(Rule::Policy("memory-cap".into()), "memory", "test caps memory")
            .number("memory", 900, "MiB")
            .advise("at most 512 MiB");
        let decision = DecisionView {
            id: "d-1".into(),
            vch: "v".into(),
            at: chrono::DateTime::UNIX_EPOCH,
            action: "container.create".into(),
            caller: "uid:1000".into(),
            resource: "Container::\"new\"".into(),
            verdict: "deny".into(),
            reasons: vec![reason],
            policy_set: "sha256:ab".into(),
            inputs: serde_json::json!({ "privileged": false }),
            plugins: vec![PluginReport {
                binding: "caps".parse().unwrap(),
                plugin: "resource-caps".parse().unwrap(),
                version: "1.0.0".into(),
                digest: bulkhead_model::Digest::of(b"x"),
                mode: Mode::Enforce,
                said: Said::Change {
                    changes: vec![(Change::SetMemoryMib { mib: 64 }, "64 MiB is the cap".into())],
                },
                warnings: vec!["memory is lowered".into()],
                took_us: 61,
                fuel: 4711,
            }],
            took_us: 120,
        };
        let page = page(&decision);
        for part in [
            "verdict     DENY",
            "  policy \"memory-cap\": test caps memory",
            "memory = 900 MiB",
            "would pass: at most 512 MiB",
            "\"privileged\": false",
            "caps (resource-caps 1.0.0, enforce): change, 61 µs, 4711 fuel",
            "    64 MiB of memory: 64 MiB is the cap",
            "    warning: memory is lowered",
            "120 µs",
        ] {
            assert!(page.contains(part), "{part}\n---\n{page}");
        }
    }
}
