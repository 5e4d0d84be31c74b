//! `[registry]`: how images are fetched, and from where production may run them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySection {
    /// Hosts (`HOST` or `HOST:PORT`) that may be spoken to over plain HTTP, or with a certificate that nobody checks.
    pub insecure: Vec<String>,
    /// Certificates of private authorities, by host.
    pub ca_files: BTreeMap<String, PathBuf>,
    /// URLs to try before the registry itself, by host.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts that may lie at private and loopback addresses; `*` for all. Hosts named in another key may as well.
    pub private: Vec<String>,
    /// Hosts whose images the policies of `prod` accept.
    pub trusted: Vec<String>,
}

impl RegistrySection {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let hosts = self
            .insecure
            .iter()
            .chain(self.ca_files.keys())
            .chain(self.mirrors.keys())
            .chain(&self.private)
            .chain(&self.trusted);
        for host in hosts {
            if host.is_empty() || host.contains('/') || host.contains(char::is_whitespace) {
                problems.push(format!("[registry] `{host}` is not a registry: expected HOST or HOST:PORT"));
            }
        }
        for (host, path) in &self.ca_files {
            if let Err(error) = std::fs::metadata(path) {
                problems.push(format!(
                    "[registry] ca_files of `{host}`: cannot read `{}`: {error}",
                    path.display()
                ));
            }
        }
        for url in self.mirrors.values().flatten() {
            if !(url.starts_with("https://") || url.starts_with("http://")) {
                problems.push(format!("[registry] the mirror `{url}` is not a URL: expected https://HOST"));
            }
        }
    }
}
