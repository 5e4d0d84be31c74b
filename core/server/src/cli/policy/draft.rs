//! `bulkhead policy draft`.

use super::{difference, draft_row};
use crate::cli::client::Client;
use crate::cli::failure::{FAILED, Failure, USAGE};
use crate::cli::{Format, output};
use bulkhead_admin_api::view::{DraftAsk, DraftCheckView, DraftView};
use bulkhead_model::DraftName;
use bulkhead_policy::read_folder;
use clap::{Args, Subcommand};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a draft, or put another in its place: a whole folder, or single files on top of what is in force
    Put(Put),
    /// List drafts
    Ls,
    /// Show a draft with its files
    Show { name: DraftName },
    /// Tell all that speaks against putting a draft in force
    Check { name: DraftName },
    /// Remove a draft
    Rm { name: DraftName },
}

#[derive(Debug, Args)]
pub struct Put {
    name: DraftName,
    /// A folder of policies, or files, whose last two names (`test/memory.cedar`) say which they are; a case's last four
    #[arg(required_unless_present = "remove")]
    paths: Vec<PathBuf>,
    /// A file that is to go, as `test/memory.cedar`
    #[arg(long, value_name = "FILE")]
    remove: Vec<String>,
    /// The revision that it is begun from; the one in force if left out
    #[arg(long, value_name = "REVISION")]
    base: Option<u64>,
}

pub fn run(command: Command, client: &Client, format: Format) -> Result<ExitCode, Failure> {
    match command {
        Command::Put(put) => {
            let draft: DraftView = client.put(&path(&put.name), &ask(&put)?)?;
            match format {
                Format::Json => output::json(&draft)?,
                Format::Table => output::line(&format!(
                    "draft {}, revision {}, begun from revision {} of the policies; `bulkhead policy draft check {}` checks it",
                    draft.name, draft.revision, draft.base, draft.name
                )),
            }
        }
        Command::Ls => {
            let all: Vec<DraftView> = client.get("/v1/policies/drafts")?;
            match format {
                Format::Json => output::json(&all)?,
                Format::Table => {
                    let rows: Vec<_> = all.iter().map(draft_row).collect();
                    output::table(&["NAME", "REVISION", "BASE", "CHANGED", "BY"], &rows);
                }
            }
        }
        Command::Show { name } => {
            let draft: DraftView = client.get(&path(&name))?;
            match format {
                Format::Json => output::json(&draft)?,
                Format::Table => {
                    output::table(&["NAME", "REVISION", "BASE", "CHANGED", "BY"], &[draft_row(&draft)]);
                    output::text(&super::history::files(draft.files.unwrap_or_default()));
                }
            }
        }
        Command::Check { name } => return check(client, &name, format),
        Command::Rm { name } => client.delete(&path(&name))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn path(name: &DraftName) -> String {
    format!("/v1/policies/drafts/{name}")
}

fn check(client: &Client, name: &DraftName, format: Format) -> Result<ExitCode, Failure> {
    let none = serde_json::json!({});
    let check: DraftCheckView = client.post(&format!("{}/check", path(name)), &none)?;
    if format == Format::Json {
        output::json(&check)?;
    } else if let Some(problem) = &check.problem {
        return Err(Failure::new(FAILED, problem.clone()));
    } else {
        output::text(&page(&check));
    }
    Ok(if check.good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn page(check: &DraftCheckView) -> String {
    let failed: Vec<_> = check.cases.iter().filter(|case| case.failure.is_some()).collect();
    let mut page = format!(
        "{}: {} policies ({}); {} of {} cases pass\n{}",
        if check.good { "good" } else { "NOT good" },
        check.policies,
        check.digest.as_deref().unwrap_or_default(),
        check.cases.len() - failed.len(),
        check.cases.len(),
        difference(&check.difference)
    );
    for warning in &check.warnings {
        let help = warning.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        page.push_str(&format!("warning: {}:{}: {}{help}\n", warning.file, warning.line, warning.message));
    }
    for case in failed {
        page.push_str(&format!("case {}: {}\n", case.name, case.failure.as_deref().unwrap_or_default()));
    }
    page
}

fn ask(put: &Put) -> Result<DraftAsk, Failure> {
    if let ([dir], []) = (put.paths.as_slice(), put.remove.as_slice())
        && dir.is_dir()
    {
        let files = read_folder(dir).map_err(|error| Failure::new(FAILED, error.to_string()))?;
        return Ok(DraftAsk { base: put.base, files: Some(files), patch: None });
    }
    let mut patch: BTreeMap<String, Option<String>> =
        put.remove.iter().map(|name| (name.clone(), None)).collect();
    for path in &put.paths {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(FAILED, format!("{}: {error}", path.display())))?;
        patch.insert(name_of(path)?, Some(text));
    }
    Ok(DraftAsk { base: put.base, files: None, patch: Some(patch) })
}

/// `test/memory.cedar` of `/etc/policies/test/memory.cedar`, `cases/a/DENY/b.json` of a case.
fn name_of(path: &Path) -> Result<String, Failure> {
    let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let wanted = if path.extension().is_some_and(|ending| ending == "json") { 4 } else { 2 };
    match parts.len().checked_sub(wanted).and_then(|from| parts.get(from..)) {
        Some(last) => Ok(last.join("/")),
        None => Err(Failure::new(
            USAGE,
            format!(
                "`{}` does not say in which folder it belongs: write it as FOLDER/NAME.cedar",
                path.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_last_folders() {
        let name = |text: &str| name_of(Path::new(text)).ok();
        assert_eq!(name("/etc/p/test/memory.cedar").as_deref(), Some("test/memory.cedar"));
        assert_eq!(name("p/cases/m/DENY/a b.json").as_deref(), Some("cases/m/DENY/a b.json"));
        assert_eq!(name("memory.cedar"), None);
        assert_eq!(name("DENY/a.json"), None);
    }
}
