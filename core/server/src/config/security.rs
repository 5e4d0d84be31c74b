//! `[security]`: what the operator takes upon himself.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecuritySection {
    /// Lets `prod` run on emulated machines (TCG), which are not separated by hardware.
    pub accept_emulation: bool,
    /// System user of the private PostgreSQL.
    pub database_user: Option<String>,
}
