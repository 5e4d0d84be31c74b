//! The placement point: candidates in columns, and what a plugin says to them.

use crate::admission::bindings::bulkhead::plugin::types::{CallInfo, ContainerSpec, PluginError};
use crate::call::{CallError, Called, Guest, Limits, charge, clip};
use crate::host::Plugin;
use crate::question::{Circumstances, Container};
use bulkhead_model::plugin::{Failure, Point};
use std::fmt;
use std::sync::Arc;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};

/// Made from `sdk/wit`.
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../sdk/wit/plugin", "../../sdk/wit/placement"],
        world: "bulkhead:placement/placement",
        with: { "bulkhead:plugin/types": crate::admission::bindings::bulkhead::plugin::types },
    });
}
use bindings::bulkhead::placement::types as wit;

/// Most that can be told apart by codes of one byte, with room for none.
const TEXTS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 200;
const SCORE_MAX: i16 = 1000;
const REFUSED: i16 = -1;
/// In `reasons`: this one has none.
const NO_REASON: u8 = u8::MAX;
/// Columns that a call may ask for, with those that are not there.
const COLUMNS_MAX: usize = 64;
const COLUMN_NAME_BYTES_MAX: usize = 300;
/// A column costs as much fuel, and one for each candidate.
const COLUMN_FUEL: u64 = 1000;

/// What plugins are told of candidates: columns that all have a value for each of them, in one order.
pub trait Candidates: Send + Sync + fmt::Debug {
    fn count(&self) -> u32;
    /// `None`: there is no such column.
    fn numbers(&self, column: &str) -> Option<Vec<u32>>;
    fn texts(&self, column: &str) -> Option<Texts>;
}

/// A column of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct Texts {
    /// Each distinct one.
    pub values: Vec<String>,
    /// Places in `values`; [`Texts::ABSENT`]: none.
    pub codes: Vec<u32>,
}

impl Texts {
    pub const ABSENT: u32 = u32::MAX;
}

/// A placement question in the plugins' own types, to be asked of several.
#[derive(Debug, Clone)]
pub struct ToPlace {
    /// Without settings.
    info: CallInfo,
    container: ContainerSpec,
    candidates: Arc<dyn Candidates>,
}

impl ToPlace {
    pub fn new(
        circumstances: Circumstances<'_>,
        container: Container<'_>,
        candidates: Arc<dyn Candidates>,
    ) -> Self {
        Self { info: circumstances.call_info(), container: container.told(), candidates }
    }
}

/// What a plugin says to candidates, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ratings {
    /// One for each candidate: 0 to 1000, or below 0 for one that is refused.
    pub scores: Vec<i16>,
    /// Places in `texts`; who is refused has one. As many as scores, or none at all.
    reasons: Vec<u8>,
    texts: Vec<String>,
}

impl Ratings {
    /// Why a candidate was refused.
    pub fn refusal(&self, candidate: usize) -> Option<&str> {
        self.scores.get(candidate).filter(|score| **score < 0)?;
        let at = self.reasons.get(candidate)?;
        self.texts.get(usize::from(*at)).map(String::as_str)
    }
}

impl Plugin {
    /// Asks what it says to candidates; waits for its turn where many ask.
    pub async fn rate(
        &self,
        settings: &serde_json::Value,
        asked: &ToPlace,
        limits: &Limits,
    ) -> Called<Ratings> {
        let ToPlace { info, container, candidates } = asked.clone();
        let info = CallInfo { settings: settings.to_string(), ..info };
        let count = candidates.count();
        let asked = self.call(limits, Some(candidates), move |points, store| {
            let place = points.placement.as_ref();
            let place = place.ok_or_else(|| wasmtime::Error::msg("it is not asked about placement"))?;
            let said = place.instantiate(&mut *store).map_err(crate::host::not_started)?;
            said.bulkhead_placement_place().call_rate(store, &info, &container)
        });
        asked.await.and_then(|said| read(said, count))
    }

    /// Whether it has the interface of a point.
    pub fn is_asked_at(&self, point: Point) -> bool {
        self.points().contains(&point)
    }
}

fn read(said: Result<wit::Ratings, PluginError>, count: u32) -> Result<Ratings, CallError> {
    let said = said.map_err(CallError::from)?;
    let (count, wrong) = (count as usize, |text: String| Err(CallError::answer(text)));
    if said.scores.len() != count {
        return wrong(format!("it has {} scores for {count} candidates", said.scores.len()));
    }
    if !said.reasons.is_empty() && said.reasons.len() != count {
        return wrong(format!("it has {} reasons for {count} candidates", said.reasons.len()));
    }
    if said.reason_texts.len() > TEXTS_MAX {
        return wrong(format!(
            "it has {} texts of reasons, {TEXTS_MAX} are the most",
            said.reason_texts.len()
        ));
    }
    if said.reason_texts.iter().any(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
        return wrong(format!("a text of a reason has 1 to {TEXT_BYTES_MAX} bytes"));
    }
    let texts = said.reason_texts.len();
    if let Some(code) = said.reasons.iter().find(|code| **code != NO_REASON && usize::from(**code) >= texts) {
        return wrong(format!("there is no text of reason {code}"));
    }
    for (at, score) in said.scores.iter().enumerate() {
        match *score {
            0..=SCORE_MAX => {}
            REFUSED if said.reasons.get(at).is_some_and(|code| *code != NO_REASON) => {}
            REFUSED => return wrong(format!("it refuses candidate {at} and does not say why")),
            score => return wrong(format!("score {score} is not in -1 to {SCORE_MAX}")),
        }
    }
    let texts = said.reason_texts.iter().map(|text| clip(text, TEXT_BYTES_MAX)).collect();
    Ok(Ratings { scores: said.scores, reasons: said.reasons, texts })
}

impl From<PluginError> for CallError {
    fn from(error: PluginError) -> Self {
        match error {
            PluginError::Settings(text) => CallError::new(Failure::Error, format!("its settings: {text}")),
            PluginError::Internal(text) => CallError::new(Failure::Error, text),
        }
    }
}

/// What a component may import to read candidates.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("bulkhead:placement/candidates@0.1.0")?;
    instance.func_wrap("count", |store: StoreContextMut<'_, Guest>, (): ()| {
        Ok((store.data().candidates().map_or(0, |all| all.count()),))
    })?;
    instance.func_wrap("numbers", |mut store: StoreContextMut<'_, Guest>, (column,): (String,)| {
        let Some(all) = begin(&mut store, &column)? else { return Ok((None,)) };
        Ok((all.numbers(&column),))
    })?;
    instance.func_wrap("texts", |mut store: StoreContextMut<'_, Guest>, (column,): (String,)| {
        let Some(all) = begin(&mut store, &column)? else { return Ok((None,)) };
        let texts = all.texts(&column);
        let bytes = texts.iter().flat_map(|texts| &texts.values).map(|text| text.len() as u64 + 8);
        charge(&mut store, bytes.sum())?;
        Ok((texts,))
    })
}

/// Before a column is made: it is paid for, and noted.
fn begin(
    store: &mut StoreContextMut<'_, Guest>,
    column: &str,
) -> wasmtime::Result<Option<Arc<dyn Candidates>>> {
    let all = store.data().candidates().cloned();
    charge(store, COLUMN_FUEL + u64::from(all.as_ref().map_or(0, |all| all.count())))?;
    if column.len() > COLUMN_NAME_BYTES_MAX {
        return Err(wasmtime::Error::msg(format!(
            "a column's name has {COLUMN_NAME_BYTES_MAX} bytes at most"
        )));
    }
    if !store.data_mut().reads(column, COLUMNS_MAX) {
        return Err(wasmtime::Error::msg(format!("it asks for more than {COLUMNS_MAX} columns")));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(scores: &[i16], reasons: &[u8], texts: &[&str]) -> Result<Ratings, String> {
        let reason_texts = texts.iter().map(ToString::to_string).collect();
        let said = wit::Ratings { scores: scores.to_vec(), reasons: reasons.to_vec(), reason_texts };
        read(Ok(said), 3).map_err(|error| error.text)
    }

    #[test]
    fn what_is_as_it_should_be_is_believed() {
        let ratings = said(&[0, 1000, -1], &[255, 255, 0], &["no\x1b[2J fast disk"]).unwrap();
        assert_eq!(ratings.scores, [0, 1000, -1]);
        assert_eq!(ratings.refusal(2), Some("no [2J fast disk"), "nothing in it moves a cursor");
        assert_eq!((ratings.refusal(0), ratings.refusal(7)), (None, None));
        assert_eq!(said(&[1, 2, 3], &[], &[]).unwrap().refusal(0), None);
    }

    #[test]
    fn what_is_not_says_what_is_wrong() {
        let long = "x".repeat(201);
        let many: Vec<&str> = (0..65).map(|_| "x").collect();
        for (answer, why) in [
            (said(&[1, 2], &[], &[]), "it has 2 scores for 3 candidates"),
            (said(&[1, 2, 3, 4], &[], &[]), "it has 4 scores for 3 candidates"),
            (said(&[1, 2, 3], &[255], &[]), "it has 1 reasons for 3 candidates"),
            (said(&[1, 2, 1001], &[], &[]), "score 1001 is not in -1 to 1000"),
            (said(&[1, 2, -2], &[], &[]), "score -2 is not in -1 to 1000"),
            (said(&[1, 2, -1], &[], &["why"]), "it refuses candidate 2 and does not say why"),
            (said(&[1, 2, -1], &[0, 0, 255], &["why"]), "it refuses candidate 2 and does not say why"),
            (said(&[1, 2, -1], &[0, 0, 1], &["why"]), "there is no text of reason 1"),
            (said(&[1, 2, 3], &[], &many), "it has 65 texts of reasons, 64 are the most"),
            (said(&[1, 2, 3], &[], &[&long]), "a text of a reason has 1 to 200 bytes"),
            (said(&[1, 2, 3], &[], &[""]), "a text of a reason has 1 to 200 bytes"),
        ] {
            assert_eq!(answer.unwrap_err(), why);
        }
    }
}
