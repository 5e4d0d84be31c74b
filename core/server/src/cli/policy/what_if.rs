//! `bulkhead policy what-if`.

use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::time::{parse, shown};
use crate::cli::{Format, output};
use bulkhead_admin_api::view::{FlipView, WhatIfAsk, WhatIfView};
use bulkhead_model::DraftName;
use chrono::{DateTime, Utc};
use clap::Args;

#[derive(Debug, Args)]
pub struct WhatIf {
    draft: DraftName,
    /// Only decisions from this time on, or not older than so long: 12h, 7d
    #[arg(long, value_parser = parse)]
    since: Option<DateTime<Utc>>,
    /// The newest so many, 10000 at most
    #[arg(long, short = 'n', default_value_t = 10_000)]
    limit: u32,
}

pub fn run(what_if: &WhatIf, client: &Client, format: Format) -> Result<(), Failure> {
    let WhatIf { draft, since, limit } = what_if;
    let ask = WhatIfAsk { since: *since, limit: Some(*limit) };
    let answer: WhatIfView = client.post(&format!("/v1/policies/drafts/{draft}/what-if"), &ask)?;
    if format == Format::Json {
        return output::json(&answer);
    }
    let rows: Vec<_> = answer.flips.iter().map(row).collect();
    if !rows.is_empty() {
        output::table(&["WOULD", "DECISION", "AT", "ACTION", "CALLER", "RESOURCE", "BY"], &rows);
    }
    output::text(&summary(&answer));
    Ok(())
}

fn row(flip: &FlipView) -> Vec<String> {
    let by = flip.reasons.first().map(|reason| reason.rule.to_string()).unwrap_or_default();
    vec![
        flip.after.to_uppercase(),
        flip.id.clone(),
        shown(flip.at),
        flip.action.clone(),
        flip.caller.clone(),
        // Ids are long, and their beginnings tell them apart.
        flip.resource.chars().take(40).collect(),
        by,
    ]
}

fn summary(answer: &WhatIfView) -> String {
    let mut text = format!(
        "{} decisions asked again in {} ms: {} newly allowed, {} newly denied\n",
        answer.decisions, answer.took_ms, answer.newly_allowed, answer.newly_denied
    );
    for (why, count) in &answer.not_replayed {
        text.push_str(&format!("{count} could not be asked again: {why}\n"));
    }
    text
}
