//! What plugins cost those who ask: containers that are made with and without two that have a say.

use anyhow::{Result, bail};

use super::client::Client;
use super::figures::Row;
use super::measure::Bench;
use crate::{layout, plugins, server};

/// Each allows what is asked for here, so that both are asked to the end.
const BOUND: [(&str, &str); 2] =
    [("resource-caps", r#"{"memory-mib-max": 1024}"#), ("image-sources", r#"{"deny": ["nowhere.example"]}"#)];

impl Bench<'_> {
    /// `docker create`, and the same when plugins are asked at Bulkhead.
    pub fn decisions(&self) -> Result<Vec<Row>> {
        let create = |client: &Client| {
            let made = client.run(&["create", "--network", "none", self.image, "true"])?;
            client.run(&["rm", made.output.trim()])?;
            Ok(made.ms())
        };
        let plain = self.times("docker create", create)?;
        plugins::build(&self.layout.binary)?;
        for (name, settings) in BOUND {
            let component = layout::target().join("plugins").join(name).with_extension("wasm");
            self.operator(&["plugin", "install", &component.display().to_string()])?;
            self.operator(&["binding", "set", name, "--settings", settings])?;
        }
        let asked = self.times("docker create; at Bulkhead, two plugins have a say", create)?;
        for (name, _) in BOUND {
            self.operator(&["binding", "rm", name])?;
        }
        Ok(vec![plain, asked])
    }

    fn operator(&self, words: &[&str]) -> Result<()> {
        let answer = server::admin(self.layout).args(words).output()?;
        match answer.status.success() {
            true => Ok(()),
            false => {
                bail!("bulkhead {}: {}", words.join(" "), String::from_utf8_lossy(&answer.stderr).trim())
            }
        }
    }
}
