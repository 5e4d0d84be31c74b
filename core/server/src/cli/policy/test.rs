//! `bulkhead policy test`: runs cases here, with the very code that the server has.

use crate::cli::client::Client;
use crate::cli::failure::{FAILED, Failure, USAGE};
use crate::cli::{Format, output};
use bulkhead_admin_api::view::{CaseView, DraftView, PolicyStatusView, RevisionView};
use bulkhead_model::{DraftName, PolicyFiles};
use bulkhead_policy::{CaseResult, PolicyError, PolicySet, read_folder};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct Test {
    /// A folder of policies or a draft's name; what is in force if left out
    what: Option<String>,
    /// Run the cases below this folder (TOPIC/{ALLOW,DENY}/SENTENCE.json) instead of the set's own
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
}

pub fn run(
    test: &Test,
    client: impl Fn() -> Result<Client, Failure>,
    format: Format,
) -> Result<ExitCode, Failure> {
    let refused = |error: PolicyError| Failure::new(FAILED, error.to_string());
    let (mut files, root) = files(test.what.as_deref(), client)?;
    let set = PolicySet::from_files(&files, &root).map_err(refused)?;
    if let Some(dir) = &test.cases {
        files = cases(dir)?;
    }
    let results = set.run_cases(&files);
    if results.is_empty() {
        let why = "there are no cases: they are files called cases/TOPIC/{ALLOW,DENY}/SENTENCE.json";
        return Err(Failure::new(FAILED, why).remedy("--cases DIR runs cases of another folder"));
    }
    let failed = results.iter().filter(|result| result.failure.is_some()).count();
    if format == Format::Json {
        let view = |CaseResult { name, failure }| CaseView { name, failure };
        output::json(&results.into_iter().map(view).collect::<Vec<_>>())?;
    } else {
        for result in &results {
            if let Some(failure) = &result.failure {
                output::line(&format!("FAILED  {}\n        {failure}", result.name));
            }
        }
        output::line(&format!("{} of {} cases pass", results.len() - failed, results.len()));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What is to be tested, and where messages say that it is.
fn files(
    what: Option<&str>,
    client: impl Fn() -> Result<Client, Failure>,
) -> Result<(PolicyFiles, PathBuf), Failure> {
    let Some(what) = what else {
        let client = client()?;
        let status: PolicyStatusView = client.get("/v1/policies/status")?;
        let revision: RevisionView = client.get(&format!("/v1/policies/revisions/{}", status.revision))?;
        return Ok((revision.files.unwrap_or_default(), PathBuf::new()));
    };
    if Path::new(what).is_dir() {
        let files = read_folder(Path::new(what)).map_err(|error| Failure::new(FAILED, error.to_string()))?;
        return Ok((files, what.into()));
    }
    let name: DraftName = what.parse().map_err(|_| {
        Failure::new(USAGE, format!("`{what}` is neither a folder that is there nor a draft's name"))
    })?;
    let draft: DraftView = client()?.get(&format!("/v1/policies/drafts/{name}"))?;
    Ok((draft.files.unwrap_or_default(), PathBuf::new()))
}

/// The cases below a folder, as files of a set.
fn cases(dir: &Path) -> Result<PolicyFiles, Failure> {
    bulkhead_policy::read_cases(dir).map_err(|error| Failure::new(FAILED, error.to_string()))
}
