//! Settings as JSON text, to the plugin's own type.

use crate::bindings::exports::bulkhead::plugin::lifecycle::SettingsProblem;
use serde::de::DeserializeOwned;

/// The settings, or what is wrong with them.
pub(crate) fn read<S: DeserializeOwned>(text: &str) -> Result<S, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// `further`: problems beyond what the type says, by JSON pointer.
pub(crate) fn check<S: DeserializeOwned>(
    text: &str,
    further: impl FnOnce(&S) -> Vec<(String, String)>,
) -> Result<(), Vec<SettingsProblem>> {
    let problem = |(path, message)| SettingsProblem { path, message };
    let settings: S = read(text).map_err(|message| vec![problem((String::new(), message))])?;
    let problems: Vec<_> = further(&settings).into_iter().map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
