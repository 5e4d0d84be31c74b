//! What plugins cost those who ask: containers that are made with and without two that have a say.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::client::Client;
use super::figures::{Row, Unit};
use super::measure::Bench;
use crate::say::Step;
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
        let mut rows = vec![plain, asked];
        rows.extend(self.placement()?);
        Ok(rows)
    }

    /// A plugin that scores candidates, and where dockerd stands the same plugin as native code.
    fn placement(&self) -> Result<Vec<Row>> {
        let step = Step::start("candidates scored by a plugin, and by the same code natively");
        let component = layout::target().join("plugins/spread.wasm");
        let mut command = server::cargo(&["bench", "--workspace", "--bench", "placement", "--"]);
        let output = command.arg(&self.layout.binary).arg(component).output()?;
        if !output.status.success() {
            bail!("the scoring of candidates: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let lines = String::from_utf8_lossy(&output.stdout);
        let rows: Result<Vec<Row>> = lines.lines().map(scored).collect();
        let rows = rows?;
        step.done(&super::measure::medians(&rows));
        Ok(rows)
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

/// A line of `core/plugin/benches/placement.rs`.
fn scored(line: &str) -> Result<Row> {
    let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let numbers = |key: &str| -> Result<Vec<f64>> {
        let all = line.get(key).and_then(Value::as_array).with_context(|| format!("no {key}"))?;
        Ok(all.iter().filter_map(Value::as_f64).collect())
    };
    let candidates = line.get("candidates").and_then(Value::as_u64).context("no count")?;
    let what = match candidates {
        0 => {
            "a plugin that scores nothing, in a fresh instance; where dockerd stands: native code".to_owned()
        }
        count => {
            format!("{count} candidates scored by a plugin; where dockerd stands: by the same native code")
        }
    };
    let unit = Unit::Microseconds;
    Ok(Row { what, unit, bulkhead: numbers("call_us")?, dockerd: numbers("native_us")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_row() {
        let row = scored(r#"{"candidates": 10, "call_us": [50.0, 60.0], "native_us": [0.5]}"#).unwrap();
        assert_eq!((row.bulkhead, row.dockerd), (vec![50.0, 60.0], vec![0.5]));
        assert!(row.what.starts_with("10 candidates"));
        assert!(scored("{}").is_err() && scored("x").is_err());
    }
}
