//! `bulkhead policy`.

mod draft;
mod history;
mod test;
mod what_if;

use super::client::Client;
use super::failure::{FAILED, Failure};
use super::time::shown;
use super::{Format, output};
use bulkhead_admin_api::view::{
    ActivateAsk, ActivationView, DifferenceView, DraftView, PolicyStatusView, RevisionView,
};
use bulkhead_model::{DraftName, PolicyOrigin};
use bulkhead_policy::examine;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a folder of policies as the server would, without a server
    Check { dir: PathBuf },
    /// Show which policies are in force
    Status,
    /// Drafts: sets of policies that are being written
    #[command(subcommand)]
    Draft(draft::Command),
    /// Put a draft in force, if it was begun from what is in force
    Activate {
        draft: DraftName,
        #[command(flatten)]
        how: How,
        /// Whatever is in force by now
        #[arg(long)]
        any_base: bool,
    },
    /// List revisions, the newest first: which policies were in force, since when, and how they came
    History {
        #[arg(long, short = 'n', default_value_t = 20)]
        limit: u32,
    },
    /// Show a revision with its files
    Show { revision: u64 },
    /// Show what differs between two revisions
    Diff { from: u64, to: u64 },
    /// Put the files of a revision in force again
    Rollback {
        revision: u64,
        #[command(flatten)]
        how: How,
        /// Only if this revision is in force now
        #[arg(long, value_name = "REVISION")]
        if_active: Option<u64>,
    },
    /// Run cases: those of a folder, of a draft, or of what is in force
    Test(test::Test),
    /// Ask recorded decisions again of a draft: which would come out the other way
    WhatIf(what_if::WhatIf),
}

#[derive(Debug, Args)]
pub struct How {
    /// Why, for whoever reads the history
    #[arg(long, short, default_value = "")]
    message: String,
    /// Everything but putting it in force
    #[arg(long)]
    dry_run: bool,
}

pub fn run(
    command: Command,
    client: impl Fn() -> Result<Client, Failure>,
    format: Format,
) -> Result<ExitCode, Failure> {
    match command {
        Command::Check { dir } => check(&dir)?,
        Command::Status => status(&client()?, format)?,
        Command::Draft(command) => return draft::run(command, &client()?, format),
        Command::Activate { draft, how, any_base } => {
            let path = format!("/v1/policies/drafts/{draft}/activate");
            put_in_force(&client()?, &path, how, any_base.then(|| "*".to_owned()), format)?;
        }
        Command::History { limit } => history::list(&client()?, limit, format)?,
        Command::Show { revision } => history::show(&client()?, revision, format)?,
        Command::Diff { from, to } => history::diff(&client()?, from, to, format)?,
        Command::Rollback { revision, how, if_active } => {
            let path = format!("/v1/policies/revisions/{revision}/rollback");
            let tag = if_active.map_or("*".to_owned(), |number| format!("\"{number}\""));
            put_in_force(&client()?, &path, how, Some(tag), format)?;
        }
        Command::Test(test) => return test::run(&test, client, format),
        Command::WhatIf(what_if) => what_if::run(&what_if, &client()?, format)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check(dir: &Path) -> Result<(), Failure> {
    let refused = |error: bulkhead_policy::PolicyError| Failure::new(FAILED, error.to_string());
    let files = bulkhead_policy::read_folder(dir).map_err(refused)?;
    let examined = examine(&files, dir).map_err(refused)?;
    let cases = examined.cases.len();
    let set = examined.passed().map_err(refused)?;
    let classes: Vec<String> = set.classes().map(ToString::to_string).collect();
    let cases = if cases == 0 { String::new() } else { format!(", {cases} cases pass") };
    output::line(&format!(
        "good: {} policies for {} ({}){cases}",
        set.len(),
        classes.join(", "),
        set.digest()
    ));
    Ok(())
}

fn status(client: &Client, format: Format) -> Result<(), Failure> {
    let status: PolicyStatusView = client.get("/v1/policies/status")?;
    if format == Format::Json {
        return output::json(&status);
    }
    let classes: Vec<String> = status.classes.iter().map(ToString::to_string).collect();
    let mut page = format!(
        "policy set  {}\nrevision    {}, by {}\npolicies    {}\nclasses     {}\n",
        status.policy_set,
        status.revision,
        status.origin,
        status.policies,
        classes.join(", ")
    );
    match (&status.problem, &status.origin) {
        (Some(problem), _) => {
            page.push_str(&format!("files       NOT in force, the older policies above are:\n{problem}\n"))
        }
        (None, PolicyOrigin::Folder) => page.push_str("files       in force\n"),
        (None, _) => {
            page.push_str("files       not asked for since: the next change in the folder is in force\n")
        }
    }
    output::text(&page);
    Ok(())
}

fn put_in_force(
    client: &Client,
    path: &str,
    how: How,
    tag: Option<String>,
    format: Format,
) -> Result<(), Failure> {
    let ask = ActivateAsk { comment: how.message, dry_run: how.dry_run };
    let done: ActivationView = client.post_if(path, &ask, tag.as_deref())?;
    if format == Format::Json {
        return output::json(&done);
    }
    let RevisionView { revision, origin, digest, .. } = &done.revision;
    let word = if done.dry_run { "would be" } else { "is" };
    output::line(&format!(
        "revision {revision} ({origin}, {digest}) {word} in force; {} cases pass",
        done.cases
    ));
    output::text(&difference(&done.difference));
    Ok(())
}

/// A line for each policy that differs.
fn difference(difference: &DifferenceView) -> String {
    let DifferenceView { added, removed, changed } = difference;
    let lines =
        |sign: &str, ids: &[String]| -> String { ids.iter().map(|id| format!("  {sign} {id}\n")).collect() };
    lines("+", added) + &lines("-", removed) + &lines("~", changed)
}

fn draft_row(draft: &DraftView) -> Vec<String> {
    vec![
        draft.name.clone(),
        draft.revision.to_string(),
        draft.base.to_string(),
        shown(draft.changed_at),
        draft.changed_by.clone(),
    ]
}
