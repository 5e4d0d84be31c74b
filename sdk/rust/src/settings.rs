//! Settings as JSON text, to the plugin's own type.

use crate::bindings::exports::bulkhead::plugin::lifecycle::SettingsProblem;
use serde::de::DeserializeOwned;

/// The settings, or what is wrong with them.
#[doc(hidden)]
pub fn read<S: DeserializeOwned>(text: &str) -> Result<S, Vec<SettingsProblem>> {
    serde_json::from_str(text)
        .map_err(|error| vec![SettingsProblem { path: String::new(), message: error.to_string() }])
}
