//! The gates that a set passes before it is in force, whichever way it came: validation, a probe of each policy, and the
//! set's own cases.

use crate::cases::CaseResult;
use crate::error::PolicyError;
use crate::set::PolicySet;
use bulkhead_model::PolicyFiles;
use std::path::Path;

/// A set that passed validation and probe.
#[derive(Debug)]
pub struct Examined {
    pub set: PolicySet,
    /// All of its cases.
    pub cases: Vec<CaseResult>,
}

/// Reads a set and runs its cases. Some milliseconds to a second of computing.
pub fn examine(files: &PolicyFiles, root: &Path) -> Result<Examined, PolicyError> {
    let set = PolicySet::from_files(files, root)?;
    set.probe()?;
    let cases = set.run_cases(files);
    Ok(Examined { set, cases })
}

impl Examined {
    /// The set, if no case speaks against it.
    pub fn passed(self) -> Result<PolicySet, PolicyError> {
        let failed = self.cases.into_iter().filter_map(|case| Some((case.name, case.failure?)));
        let failed: Vec<_> = failed.collect();
        if failed.is_empty() { Ok(self.set) } else { Err(PolicyError::Cases(failed)) }
    }
}
