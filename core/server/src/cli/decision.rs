//! `bulkhead decision`.

use super::client::Client;
use super::failure::{FAILED, Failure};
use super::{Format, output, time};
use bulkhead_admin_api::view::{DecisionView, Page, ReplayView};
use bulkhead_model::DecisionId;
use bulkhead_model::placement::{PlacementReport, RatedPlace, Refusal};
use bulkhead_model::plugin::{PluginReport, Said};
use bulkhead_model::vch::VchName;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell the whole story of a decision
    Show { id: DecisionId },
    /// List decisions, the newest first
    Ls(Ls),
    /// Decide again with the recorded inputs and the policies that were in force; changes nothing
    Replay { id: DecisionId },
}

#[derive(Debug, Args)]
pub struct Ls {
    /// Only those of this VCH
    vch: Option<VchName>,
    #[arg(long, value_parser = ["allow", "deny"])]
    verdict: Option<String>,
    /// As `container.create`
    #[arg(long)]
    action: Option<String>,
    /// As `uid:1000`, `cert:alice`
    #[arg(long)]
    caller: Option<String>,
    /// From this time on, or not older than so long: 12h, 7d
    #[arg(long, value_parser = time::parse)]
    since: Option<DateTime<Utc>>,
    /// Before this time, or older than so long
    #[arg(long, value_parser = time::parse)]
    until: Option<DateTime<Utc>>,
    #[arg(long, short = 'n', default_value_t = 20)]
    limit: u32,
    /// Go on where a list ended, with what it said there
    #[arg(long)]
    cursor: Option<String>,
}

pub fn run(command: Command, client: &Client, format: Format) -> Result<ExitCode, Failure> {
    match command {
        Command::Show { id } => {
            let decision: DecisionView = client.get(&format!("/v1/decisions/{id}"))?;
            match format {
                Format::Json => output::json(&decision)?,
                Format::Table => output::text(&page(&decision)),
            }
        }
        Command::Ls(ls) => list(&ls, client, format)?,
        Command::Replay { id } => {
            let replay: ReplayView =
                client.post(&format!("/v1/decisions/{id}/replay"), &serde_json::json!({}))?;
            match format {
                Format::Json => output::json(&replay)?,
                Format::Table => output::text(&replayed(&replay)),
            }
            return Ok(if replay.same { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(ls: &Ls, client: &Client, format: Format) -> Result<(), Failure> {
    let mut query = vec![("limit", ls.limit.to_string())];
    let vch = ls.vch.as_ref().map(ToString::to_string);
    for (name, value) in [
        ("vch", vch),
        ("verdict", ls.verdict.clone()),
        ("action", ls.action.clone()),
        ("caller", ls.caller.clone()),
        ("since", ls.since.map(time::in_url)),
        ("until", ls.until.map(time::in_url)),
        ("cursor", ls.cursor.clone()),
    ] {
        query.extend(value.map(|value| (name, value)));
    }
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let found: Page<DecisionView> = client.get(&format!("/v1/decisions?{}", query.join("&")))?;
    if format == Format::Json {
        return output::json(&found);
    }
    let rows: Vec<Vec<String>> = found.items.iter().map(row).collect();
    output::table(&["ID", "AT", "VERDICT", "ACTION", "CALLER", "REASON"], &rows);
    if let Some(next) = &found.next {
        eprintln!("there may be more: --cursor {next}");
    }
    Ok(())
}

/// As a part of a URL's query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn replayed(replay: &ReplayView) -> String {
    let mut text = format!(
        "{}: recorded {}, decided again {} by revision {} ({})\n",
        if replay.same { "same" } else { "NOT the same" },
        replay.recorded,
        replay.verdict,
        replay.revision,
        replay.policy_set
    );
    for reason in &replay.reasons {
        for line in reason.page().lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
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
    fn what_is_odd_is_escaped() {
        assert_eq!(escaped("cert:a b&c=+é"), "cert:a%20b%26c%3D%2B%C3%A9");
    }

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
