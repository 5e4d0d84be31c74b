//! The placement point: where may this be, and where best.

use crate::bindings::bulkhead::plugin::types::ContainerSpec as Container;
use crate::placement_bindings::bulkhead::placement::{candidates, types as wit};
use crate::{About, Call};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A plugin that is asked where a container is to be, when it is made.
pub trait Placement {
    /// How it is set. `deny_unknown_fields` tells an operator of a wrong name.
    type Settings: DeserializeOwned;
    const ABOUT: About;

    /// Beyond what the type says of settings: a problem each, by JSON pointer.
    fn check(_settings: &Self::Settings) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Says something to each candidate: they are in the same order in every column and in the ratings.
    fn rate(settings: &Self::Settings, call: &Call, container: &Container, all: &dyn Candidates) -> Ratings;
}

/// Candidates, told in columns by name. Which there are is in `sdk/wit/placement`.
pub trait Candidates {
    fn count(&self) -> usize;
    /// `None`: there is no such column.
    fn numbers(&self, column: &str) -> Option<Vec<u32>>;
    fn texts(&self, column: &str) -> Option<Texts>;
}

/// A column of texts, each distinct one told once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    pub values: Vec<String>,
    /// Places in `values`; beyond its end: the candidate has none.
    pub codes: Vec<u32>,
}

impl Texts {
    pub fn of(&self, candidate: usize) -> Option<&str> {
        let at = usize::try_from(*self.codes.get(candidate)?).ok()?;
        self.values.get(at).map(String::as_str)
    }

    /// For each candidate, whether it has that text: compared once for all.
    pub fn are(&self, text: &str) -> Vec<bool> {
        let code = self.values.iter().position(|value| value == text).and_then(|at| u32::try_from(at).ok());
        self.codes.iter().map(|one| Some(*one) == code).collect()
    }
}

/// Best score.
pub const SCORE_MAX: i16 = 1000;
const TEXTS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 200;
const NO_REASON: u8 = u8::MAX;

/// What a plugin says to all candidates. Who has no score has 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ratings {
    scores: Vec<i16>,
    /// Empty as long as nobody is refused.
    reasons: Vec<u8>,
    texts: Vec<String>,
}

impl Ratings {
    /// A score for each, in order; what is beyond 0 to 1000 is cut to that.
    pub fn new(scores: impl IntoIterator<Item = i16>) -> Self {
        let scores = scores.into_iter().map(|score| score.clamp(0, SCORE_MAX)).collect();
        Self { scores, reasons: Vec::new(), texts: Vec::new() }
    }

    /// The same for all.
    pub fn all(count: usize, score: i16) -> Self {
        Self::new(std::iter::repeat_n(score, count))
    }

    /// A candidate that it must not be. The reason follows "refused by NAME:"; lower case, no full stop. Of more than 64
    /// distinct ones, the last is kept for the rest.
    pub fn refuse(&mut self, candidate: usize, reason: &str) {
        let Some(score) = self.scores.get_mut(candidate) else { return };
        *score = -1;
        if self.reasons.is_empty() {
            self.reasons = vec![NO_REASON; self.scores.len()];
        }
        let mut reason = reason.to_owned();
        while reason.len() > TEXT_BYTES_MAX {
            reason.pop();
        }
        let there = self.texts.iter().position(|text| *text == reason);
        let at = there.unwrap_or_else(|| {
            if self.texts.len() < TEXTS_MAX {
                self.texts.push(reason);
            }
            self.texts.len() - 1
        });
        if let (Some(code), Ok(at)) = (self.reasons.get_mut(candidate), u8::try_from(at)) {
            *code = at;
        }
    }

    pub fn scores(&self) -> &[i16] {
        &self.scores
    }

    /// Why a candidate is refused, if it is.
    pub fn refusal(&self, candidate: usize) -> Option<&str> {
        self.scores.get(candidate).filter(|score| **score < 0)?;
        self.texts.get(usize::from(*self.reasons.get(candidate)?)).map(String::as_str)
    }
}

/// Candidates to test with.
#[derive(Debug, Clone, Default)]
pub struct TestCandidates {
    pub count: usize,
    pub numbers: BTreeMap<String, Vec<u32>>,
    pub texts: BTreeMap<String, Texts>,
}

impl TestCandidates {
    /// An empty text: it has none.
    #[must_use]
    pub fn with_texts(mut self, column: &str, texts: &[&str]) -> Self {
        let mut column_of = Texts::default();
        for text in texts {
            let there = column_of.values.iter().position(|value| value == text);
            let at = there.unwrap_or_else(|| {
                column_of.values.push((*text).to_owned());
                column_of.values.len() - 1
            });
            let code = u32::try_from(at).ok().filter(|_| !text.is_empty());
            column_of.codes.push(code.unwrap_or(u32::MAX));
        }
        self.count = texts.len();
        self.texts.insert(column.to_owned(), column_of);
        self
    }

    #[must_use]
    pub fn with_numbers(mut self, column: &str, numbers: &[u32]) -> Self {
        self.count = numbers.len();
        self.numbers.insert(column.to_owned(), numbers.to_vec());
        self
    }
}

impl Candidates for TestCandidates {
    fn count(&self) -> usize {
        self.count
    }

    fn numbers(&self, column: &str) -> Option<Vec<u32>> {
        self.numbers.get(column).cloned()
    }

    fn texts(&self, column: &str) -> Option<Texts> {
        self.texts.get(column).cloned()
    }
}

/// Those that the engine offers.
#[derive(Debug)]
struct Offered;

impl Candidates for Offered {
    fn count(&self) -> usize {
        usize::try_from(candidates::count()).unwrap_or(usize::MAX)
    }

    fn numbers(&self, column: &str) -> Option<Vec<u32>> {
        candidates::numbers(column)
    }

    fn texts(&self, column: &str) -> Option<Texts> {
        candidates::texts(column).map(|wit::TextColumn { values, codes }| Texts { values, codes })
    }
}

/// What the macro calls.
#[doc(hidden)]
pub mod glue {
    use super::*;
    use crate::bindings::bulkhead::plugin::types::PluginError;
    use crate::bindings::exports::bulkhead::plugin::lifecycle::SettingsProblem;
    use crate::settings;

    pub fn check_settings<P: Placement>(text: &str) -> Result<(), Vec<SettingsProblem>> {
        settings::check(text, P::check)
    }

    pub fn rate<P: Placement>(call: &Call, container: &Container) -> Result<wit::Ratings, PluginError> {
        let settings: P::Settings = settings::read(&call.settings).map_err(PluginError::Settings)?;
        let Ratings { scores, reasons, texts } = P::rate(&settings, call, container, &Offered);
        Ok(wit::Ratings { scores, reasons, reason_texts: texts })
    }
}
