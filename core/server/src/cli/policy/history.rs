//! Revisions on the command line.

use super::difference;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::time::shown;
use crate::cli::{Format, output};
use bulkhead_admin_api::view::{Page, PolicyStatusView, RevisionDifferenceView, RevisionView};
use bulkhead_model::PolicyFiles;

pub fn list(client: &Client, limit: u32, format: Format) -> Result<(), Failure> {
    let status: PolicyStatusView = client.get("/v1/policies/status")?;
    let mut all: Vec<RevisionView> = Vec::new();
    let mut cursor = String::new();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    while all.len() < limit {
        let path = format!("/v1/policies/revisions?limit={}{cursor}", (limit - all.len()).min(500));
        let page: Page<RevisionView> = client.get(&path)?;
        all.extend(page.items);
        match page.next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    if format == Format::Json {
        return output::json(&all);
    }
    let rows: Vec<_> = all.iter().map(|revision| row(revision, status.revision)).collect();
    output::table(&["REVISION", "IN FORCE SINCE", "HOW", "BY", "DIGEST", "COMMENT"], &rows);
    Ok(())
}

fn row(revision: &RevisionView, active: u64) -> Vec<String> {
    let mark = if revision.revision == active { " *" } else { "" };
    vec![
        format!("{}{mark}", revision.revision),
        shown(revision.at),
        revision.origin.to_string(),
        revision.by.clone(),
        revision.digest.chars().take(19).collect(),
        revision.comment.clone(),
    ]
}

pub fn show(client: &Client, number: u64, format: Format) -> Result<(), Failure> {
    let revision: RevisionView = client.get(&format!("/v1/policies/revisions/{number}"))?;
    if format == Format::Json {
        return output::json(&revision);
    }
    let mut page = format!(
        "revision  {}\ndigest    {}\nsince     {}\nhow       {}, by {}\n",
        revision.revision,
        revision.digest,
        shown(revision.at),
        revision.origin,
        revision.by
    );
    if !revision.comment.is_empty() {
        page.push_str(&format!("comment   {}\n", revision.comment));
    }
    page.push_str(&files(revision.files.unwrap_or_default()));
    output::text(&page);
    Ok(())
}

/// Each file below its name.
pub fn files(files: PolicyFiles) -> String {
    let mut page = String::new();
    for (name, text) in files {
        page.push_str(&format!("\n=== {name}\n{}\n", text.trim_end()));
    }
    page
}

pub fn diff(client: &Client, from: u64, to: u64, format: Format) -> Result<(), Failure> {
    let found: RevisionDifferenceView = client.get(&format!("/v1/policies/revisions/{from}/diff/{to}"))?;
    if format == Format::Json {
        return output::json(&found);
    }
    output::text(&difference(&found.policies));
    for file in found.files {
        output::text(&format!("--- {from}/{}\n+++ {to}/{}\n{}", file.name, file.name, file.diff));
    }
    Ok(())
}
