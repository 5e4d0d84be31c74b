//! The plugins of a VCH, asked one after another about one request.

use super::Bound;
use crate::{Engine, Happening};
use bulkhead_model::placement::PlacementReport;
use bulkhead_model::plugin::{Change, Failure, Mode, OnFailure, PluginReport, Point, Said};
use bulkhead_model::{Reason, Vch};
use bulkhead_plugin::{Asked, CallError, Called, LogLine, Plugin, Review};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Level;

/// What plugins said about a request.
#[derive(Debug, Default)]
pub(crate) struct Reviewed {
    pub(crate) reports: Vec<PluginReport>,
    /// Why it may not be done; none: they have nothing against it.
    pub(crate) objections: Vec<Reason>,
    /// For whoever asked.
    pub(crate) warnings: Vec<String>,
    /// That were made of what was asked for.
    pub(crate) changes: Vec<Change>,
    /// How a place was chosen, where one was to be.
    pub(crate) placement: Option<PlacementReport>,
}

impl Engine {
    /// Asks the plugins of a VCH. `question` makes the question for the next one; `change` makes its changes, or says
    /// why they cannot be and leaves everything as it was.
    pub(crate) async fn review<T>(
        &self,
        vch: &Vch,
        subject: &mut T,
        question: impl Fn(&T) -> Asked,
        change: impl Fn(&mut T, &[(Change, String)]) -> Result<(), String>,
    ) -> Reviewed {
        let mut reviewed = Reviewed::default();
        for bound in self.0.plugins.of(vch, Point::Admission) {
            let mut report = self.ask(vch, &bound, &question(subject)).await;
            let enforced = bound.binding.mode == Mode::Enforce;
            if enforced && let Said::Change { changes } = &report.said {
                match change(subject, changes) {
                    Ok(()) => reviewed.changes.extend(changes.iter().map(|(change, _)| change.clone())),
                    Err(text) => {
                        self.count_failure(vch, &bound);
                        let text = bulkhead_plugin::clip(&text, 500);
                        report.said = Said::Failed { why: Failure::Answer, text };
                    }
                }
            }
            self.0.observer.tell(Happening::Reviewed {
                binding: bound.binding.name.to_string(),
                said: report.said.as_str(),
                took: Duration::from_micros(report.took_us),
            });
            if enforced {
                let failed = matches!(report.said, Said::Failed { .. } | Said::Quarantined);
                if !(failed && bound.binding.on_failure == OnFailure::Skip) {
                    reviewed.objections.extend(report.objections());
                }
                let named = |text: &String| format!("{}: {text}", bound.binding.name);
                reviewed.warnings.extend(report.warnings.iter().map(named));
            }
            reviewed.reports.push(report);
        }
        reviewed
    }

    async fn ask(&self, vch: &Vch, bound: &Arc<Bound>, asked: &Asked) -> PluginReport {
        let plugin = match self.plugin_at_hand(vch, bound) {
            Ok(plugin) => plugin,
            Err(said) => return bound.report(said, Duration::ZERO, 0),
        };
        let Called { result, fuel, took, lines, .. } =
            plugin.review(&bound.binding.settings, asked, self.0.plugins.host.limits()).await;
        bound.log(lines);
        let (said, warnings) = match result {
            Ok(Review { said, warnings }) => (said, warnings),
            Err(CallError { why, text }) => (self.failed(vch, bound, why, text), Vec::new()),
        };
        PluginReport { warnings, ..bound.report(said, took, fuel) }
    }

    /// The plugin of a binding, or what is said in its place.
    pub(crate) fn plugin_at_hand<'a>(&self, vch: &Vch, bound: &'a Bound) -> Result<&'a Plugin, Said> {
        if bound.quarantine.holds(vch.id, Instant::now()) {
            return Err(Said::Quarantined);
        }
        let failed = |text: &String| Said::Failed { why: Failure::Load, text: text.clone() };
        bound.plugin.as_ref().map_err(failed)
    }

    /// What becomes of a call without a usable answer.
    pub(crate) fn failed(&self, vch: &Vch, bound: &Bound, why: Failure, text: String) -> Said {
        let binding = &bound.binding;
        tracing::warn!(binding = %binding.name, plugin = %binding.plugin, why = why.as_str(), text, "a plugin failed");
        // What the engine could not do says nothing about the plugin.
        if why != Failure::Host {
            self.count_failure(vch, bound);
        }
        Said::Failed { why, text }
    }

    fn count_failure(&self, vch: &Vch, bound: &Bound) {
        if bound.quarantine.failed(vch.id, Instant::now()) {
            tracing::error!(
                binding = %bound.binding.name,
                plugin = %bound.binding.plugin,
                vch = %vch.name,
                seconds = super::quarantine::PAUSE.as_secs(),
                "a plugin failed too often and is not asked for a while; its failure policy stays in force"
            );
        }
    }
}

impl Bound {
    pub(crate) fn report(&self, said: Said, took: Duration, fuel: u64) -> PluginReport {
        let binding = &self.binding;
        PluginReport {
            binding: binding.name.clone(),
            plugin: binding.plugin.clone(),
            version: self.version.clone(),
            digest: binding.digest.clone(),
            mode: binding.mode,
            said,
            warnings: Vec::new(),
            columns: Vec::new(),
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            fuel,
        }
    }

    /// What it wrote, for the operator.
    pub(crate) fn log(&self, lines: Vec<LogLine>) {
        for LogLine { level, text } in lines {
            log(level, &self.binding.name, &text);
        }
    }
}

/// A level of `tracing` is fixed where it is written.
fn log(level: Level, binding: &bulkhead_model::plugin::PluginName, text: &str) {
    match level {
        Level::ERROR => tracing::error!(target: "bulkhead::plugin", %binding, "{text}"),
        Level::WARN => tracing::warn!(target: "bulkhead::plugin", %binding, "{text}"),
        Level::INFO => tracing::info!(target: "bulkhead::plugin", %binding, "{text}"),
        _ => tracing::debug!(target: "bulkhead::plugin", %binding, "{text}"),
    }
}
