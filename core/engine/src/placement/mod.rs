//! Where a new container is to be: who has room, what plugins say to them, which is the best.
//!
//! ```text
//!   places of the back end ──▶ those with room ──▶ plugins, one after another ──▶ best sum of scores
//!                                   │ columns of          │ a score each, or a refusal
//!                                   └─ table, by name ────┘
//! ```

mod choose;
mod table;

use crate::plugins::{Bound, Reviewed};
use crate::{Engine, EngineError, Happening};
use bulkhead_model::placement::Placement;
use bulkhead_model::plugin::{Mode, OnFailure, PluginReport, Point, Said};
use bulkhead_model::reason::{PLACEMENT, Rule};
use bulkhead_model::{Reason, Vch};
use bulkhead_plugin::{CallError, Called, Circumstances, Container, Ratings, ToPlace};
use choose::{Scored, choose};
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::Table;
use tokio::sync::OwnedMutexGuard;

/// Held from the look at who is where until the container is written down: two that must be apart are not both put where
/// neither was seen.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// Where a container is to be.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) placement: Placement,
    pub(crate) turn: Option<Turn>,
}

impl Engine {
    /// Chooses a place, and notes in `reviewed` how. Where there is none, that is an objection.
    pub(crate) async fn choose_place(
        &self,
        vch: &Vch,
        circumstances: Circumstances<'_>,
        container: Container<'_>,
        reviewed: &mut Reviewed,
    ) -> Result<Chosen, EngineError> {
        let begun = Instant::now();
        let bound = self.0.plugins.of(vch, Point::Placement);
        let places = self.back_end().machines.places().await?;
        if let ([host], [datastore], true) =
            (places.hosts.as_slice(), places.datastores.as_slice(), bound.is_empty())
            && host.name.is_default()
            && datastore.name.is_default()
        {
            return Ok(Chosen::default());
        }
        let turn = self.0.placing.clone().lock_owned().await;
        let placed = self.store().placed(self.0.fence.server, vch.id).await?;
        let (table, mut refusals) = Table::new(places, &placed, vch.id, &container.spec.resources);
        let table = Arc::new(table);
        let asked = ToPlace::new(circumstances, container, table.clone());
        let mut scored: Vec<Scored> = Vec::new();
        for bound in bound.iter().filter(|_| !table.is_empty()) {
            let (report, ratings) = self.ask_to_rate(vch, bound, &asked).await;
            if bound.binding.mode == Mode::Enforce {
                match ratings {
                    Some(ratings) => scored.push(Scored { binding: bound.binding.name.to_string(), ratings }),
                    None if bound.binding.on_failure == OnFailure::Skip => {}
                    None => reviewed.objections.extend(report.objections()),
                }
            }
            reviewed.reports.push(report);
        }
        let mut report = choose(&table, &scored, &mut refusals);
        report.took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        if report.chosen.is_none() {
            let rule = Rule::Engine(PLACEMENT.into());
            reviewed.objections.push(Reason::new(rule, "place", report.refusal()));
        }
        let placement = report.chosen.clone().unwrap_or_default();
        reviewed.placement = Some(report);
        Ok(Chosen { placement, turn: Some(turn) })
    }

    async fn ask_to_rate(
        &self,
        vch: &Vch,
        bound: &Arc<Bound>,
        asked: &ToPlace,
    ) -> (PluginReport, Option<Ratings>) {
        let limits = self.0.plugins.placement_limits();
        let plugin = match self.plugin_at_hand(vch, bound) {
            Ok(plugin) => plugin,
            Err(said) => return (bound.report(said, Duration::ZERO, 0), None),
        };
        let called = plugin.rate(&bound.binding.settings, asked, &limits).await;
        let Called { result, fuel, took, lines, columns } = called;
        bound.log(lines);
        let (said, ratings) = match result {
            Ok(ratings) => {
                let refused = ratings.scores.iter().filter(|score| **score < 0).count();
                let rated = ratings.scores.len() - refused;
                let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                (Said::Rate { refused: count(refused), rated: count(rated) }, Some(ratings))
            }
            Err(CallError { why, text }) => (self.failed(vch, bound, why, text), None),
        };
        let report = PluginReport { columns, ..bound.report(said, took, fuel) };
        let (binding, said) = (bound.binding.name.to_string(), report.said.as_str());
        self.0.observer.tell(Happening::Reviewed { binding, said, took });
        (report, ratings)
    }
}
