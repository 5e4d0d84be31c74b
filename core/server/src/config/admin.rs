//! `[admin]`: who operates this server.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// Uids that may use the admin socket and every VCH's socket, besides root.
    pub uids: Vec<u32>,
}
