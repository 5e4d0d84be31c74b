//! What a plugin answered, checked before it is believed.

use crate::admission::Review;
use crate::admission::bindings::bulkhead::admission::types::{self as wit, Outcome};
use crate::admission::bindings::bulkhead::plugin::types::PluginError;
use crate::call::{CallError, clip};
use bulkhead_model::RestartPolicy;
use bulkhead_model::plugin::{Change, Denied, Said};

const CHANGES_MAX: usize = 64;
const DENIALS_MAX: usize = 16;
const WARNINGS_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 500;
const CHANGE_BYTES_MAX: usize = 4 << 10;

pub(crate) fn read(answer: Result<wit::Verdict, PluginError>, changeable: bool) -> Result<Review, CallError> {
    let verdict = answer.map_err(CallError::from)?;
    let too_many = |what: &str, max: usize| CallError::answer(format!("it has more than {max} {what}"));
    if verdict.warnings.len() > WARNINGS_MAX {
        return Err(too_many("warnings", WARNINGS_MAX));
    }
    let warnings = verdict.warnings.iter().map(|text| clip(text, TEXT_BYTES_MAX)).collect();
    let said = match verdict.outcome {
        Outcome::Allow => Said::Allow,
        Outcome::Change(changes) if changes.is_empty() => Said::Allow,
        Outcome::Change(_) if !changeable => {
            return Err(CallError::answer("only a container that is to be made can be changed"));
        }
        Outcome::Change(changes) if changes.len() > CHANGES_MAX => {
            return Err(too_many("changes", CHANGES_MAX));
        }
        Outcome::Change(changes) => {
            let read = |one: wit::ReasonedChange| Ok((change(one.change)?, clip(&one.why, TEXT_BYTES_MAX)));
            Said::Change { changes: changes.into_iter().map(read).collect::<Result<_, CallError>>()? }
        }
        Outcome::Deny(denials) if denials.is_empty() => {
            return Err(CallError::answer("it denies and does not say why"));
        }
        Outcome::Deny(denials) if denials.len() > DENIALS_MAX => {
            return Err(too_many("reasons", DENIALS_MAX));
        }
        Outcome::Deny(denials) => Said::Deny {
            denials: denials
                .into_iter()
                .map(|denial| Denied {
                    code: clip(&denial.code, 64),
                    message: clip(&denial.message, TEXT_BYTES_MAX),
                    remedy: denial.remedy.map(|remedy| clip(&remedy, TEXT_BYTES_MAX)),
                })
                .collect(),
        },
    };
    Ok(Review { said, warnings })
}

/// A text of a change is done or not done, never cut.
fn text(text: String) -> Result<String, CallError> {
    match text.len() > CHANGE_BYTES_MAX || text.chars().any(char::is_control) {
        true => Err(CallError::answer("a text of a change has 4 KiB at most, and no control characters")),
        false => Ok(text),
    }
}

fn change(change: wit::Change) -> Result<Change, CallError> {
    Ok(match change {
        wit::Change::SetLabel(label) => Change::SetLabel { key: text(label.key)?, value: text(label.value)? },
        wit::Change::RemoveLabel(key) => Change::RemoveLabel { key: text(key)? },
        wit::Change::SetEnv(label) => Change::SetEnv { name: text(label.key)?, value: text(label.value)? },
        wit::Change::RemoveEnv(name) => Change::RemoveEnv { name: text(name)? },
        wit::Change::SetCpuMilli(milli) => Change::SetCpuMilli { milli },
        wit::Change::SetMemoryMib(mib) => Change::SetMemoryMib { mib },
        wit::Change::SetPidsMax(pids) => Change::SetPidsMax { pids },
        wit::Change::SetUser(user) => Change::SetUser { user: text(user)? },
        wit::Change::DropCapability(name) => Change::DropCapability { name: text(name)? },
        wit::Change::DropPrivileged => Change::DropPrivileged,
        wit::Change::MakeReadOnly => Change::MakeReadOnly,
        wit::Change::ForbidNewPrivileges => Change::ForbidNewPrivileges,
        wit::Change::DefaultSeccomp => Change::DefaultSeccomp,
        wit::Change::SetRestartPolicy(text) => Change::SetRestartPolicy { policy: restart(&text)? },
        wit::Change::DemandColdBoot => Change::DemandColdBoot,
    })
}

fn restart(text: &str) -> Result<RestartPolicy, CallError> {
    let (name, retries) = text.split_once(':').unwrap_or((text, "0"));
    match (name, retries.parse()) {
        ("on-failure", Ok(retries_max)) => Ok(RestartPolicy::OnFailure { retries_max }),
        ("no", _) if name == text => Ok(RestartPolicy::No),
        ("always", _) if name == text => Ok(RestartPolicy::Always),
        ("unless-stopped", _) if name == text => Ok(RestartPolicy::UnlessStopped),
        _ => Err(CallError::answer(format!("`{}` is no restart policy", clip(text, 40)))),
    }
}
