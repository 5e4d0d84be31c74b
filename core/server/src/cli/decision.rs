//! `bulkhead decision`.

use super::client::Client;
use super::failure::{Failure, USAGE};
use super::{Format, output};
use bulkhead_admin_api::view::DecisionView;
use bulkhead_model::DecisionId;
use bulkhead_model::placement::{PlacementReport, RatedPlace, Refusal};
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
    if let Some(report) = &decision.placement {
        page.push_str(&placement(report));
    }
    page.push_str("\ninputs\n");
    // A value always renders.
    for line in serde_json::to_string_pretty(&decision.inputs).unwrap_or_default().lines() {
        page.push_str(&format!("  {line}\n"));
    }
    page
}

/// Which places there were, and what became of each.
fn placement(report: &PlacementReport) -> String {
    let mut text = format!(
        "\nplacement\n  {} of {} candidates, {} µs\n",
        report.eligible, report.candidates, report.took_us
    );
    match (&report.chosen, report.scored_by.is_empty()) {
        (Some(chosen), true) => text.push_str(&format!("  chosen: {chosen}, by free memory\n")),
        (Some(chosen), false) => {
            text.push_str(&format!("  chosen: {chosen}, by {}\n", report.scored_by.join(" + ")));
        }
        (None, _) => text.push_str("  chosen: none\n"),
    }
    for RatedPlace { place, score, scores } in &report.best {
        let parts: Vec<String> = scores.iter().map(ToString::to_string).collect();
        let sum = if parts.is_empty() { String::new() } else { format!("  {score} = {}", parts.join(" + ")) };
        text.push_str(&format!("    {place}{sum}\n"));
    }
    for Refusal { by, why, count, example } in &report.refusals {
        let by = by.as_ref().map(|by| format!(" refused by {by}:")).unwrap_or_default();
        text.push_str(&format!("    {count}{by} {why}, as {example}\n"));
    }
    text
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
    if let Said::Rate { refused, rated } = &report.said {
        let read = report.columns.join(", ");
        text.push_str(&format!("    {rated} rated, {refused} refused; it read {read}\n"));
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
    use bulkhead_model::placement::Placement;
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
                columns: Vec::new(),
                took_us: 61,
                fuel: 4711,
            }],
            placement: Some(PlacementReport {
                candidates: 4,
                eligible: 1,
                chosen: Some(Placement::default()),
                scored_by: vec!["tiers".into(), "spread".into()],
                best: vec![RatedPlace { place: Placement::default(), score: 1200, scores: vec![1000, 200] }],
                refusals: vec![Refusal {
                    by: Some("tiers".into()),
                    why: "no datastore with tier=fast".into(),
                    count: 3,
                    example: Placement { host: "left".parse().unwrap(), ..Placement::default() },
                }],
                took_us: 90,
            }),
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
            "  1 of 4 candidates, 90 µs",
            "  chosen: default/default, by tiers + spread",
            "    default/default  1200 = 1000 + 200",
            "    3 refused by tiers: no datastore with tier=fast, as left/default",
        ] {
            assert!(page.contains(part), "{part}\n---\n{page}");
        }
    }
}
