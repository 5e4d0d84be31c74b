//! `bulkhead policy`.

use super::client::Client;
use super::failure::{FAILED, Failure};
use super::{Format, output};
use bulkhead_admin_api::view::PolicyStatusView;
use bulkhead_policy::PolicySet;
use clap::Subcommand;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a folder of policies as the server would, without a server
    Check { dir: PathBuf },
    /// Show which policies are in force
    Status,
}

pub fn check(dir: &Path) -> Result<(), Failure> {
    let set = PolicySet::load(dir).map_err(|error| Failure::new(FAILED, error.to_string()))?;
    let classes: Vec<String> = set.classes().map(ToString::to_string).collect();
    output::line(&format!("good: {} policies for {} ({})", set.len(), classes.join(", "), set.digest()));
    Ok(())
}

pub fn status(client: &Client, format: Format) -> Result<(), Failure> {
    let status: PolicyStatusView = client.get("/v1/policies/status")?;
    if format == Format::Json {
        return output::json(&status);
    }
    let classes: Vec<String> = status.classes.iter().map(ToString::to_string).collect();
    let mut page = format!(
        "policy set  {}\npolicies    {}\nclasses     {}\n",
        status.policy_set,
        status.policies,
        classes.join(", ")
    );
    match &status.problem {
        None => page.push_str("files       in force\n"),
        Some(problem) => {
            page.push_str(&format!("files       NOT in force, the older policies above are:\n{problem}\n"))
        }
    }
    output::text(&page);
    Ok(())
}
