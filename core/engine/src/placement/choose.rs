//! The best of what is left.

use super::table::{Refusals, Table};
use bulkhead_model::placement::{BEST_KEPT, PlacementReport, REFUSALS_KEPT, RatedPlace, Refusal};
use bulkhead_plugin::Ratings;
use std::cmp::Reverse;

/// What a plugin that counts said to each candidate.
#[derive(Debug)]
pub(super) struct Scored {
    pub(super) binding: String,
    pub(super) ratings: Ratings,
}

/// The sum of scores decides, and who is refused by one is out; without scores, the engine's own preference. `refusals`: of
/// those that are no candidates at all.
pub(super) fn choose(table: &Table, scored: &[Scored], refusals: &mut Vec<Refusal>) -> PlacementReport {
    let mut refused = Refusals::default();
    let mut left: Vec<(i64, usize)> = Vec::with_capacity(table.len());
    for candidate in 0..table.len() {
        let score = |one: &Scored| one.ratings.scores.get(candidate).copied().unwrap_or(-1);
        match scored.iter().find(|one| score(one) < 0) {
            Some(one) => {
                let why = one.ratings.refusal(candidate).unwrap_or("it does not say why");
                refused.add(Some(&one.binding), why, || table.place(candidate).unwrap_or_default());
            }
            None => left.push((scored.iter().map(|one| i64::from(score(one))).sum(), candidate)),
        }
    }
    let eligible = u32::try_from(left.len()).unwrap_or(u32::MAX);
    // Of the best, all that are kept; the others need no order. A tie is for who is first by name.
    if scored.is_empty() {
        best(&mut left, |(_, candidate)| (Reverse(table.room(*candidate)), *candidate));
    } else {
        best(&mut left, |(score, candidate)| (Reverse(*score), *candidate));
    }
    let rated = |(score, candidate): &(i64, usize)| {
        let scores = scored.iter().filter_map(|one| one.ratings.scores.get(*candidate).copied());
        Some(RatedPlace { place: table.place(*candidate)?, score: *score, scores: scores.collect() })
    };
    let best: Vec<RatedPlace> = left.iter().filter_map(rated).collect();
    refusals.extend(Vec::from(refused));
    refusals.sort_by_key(|refusal| Reverse(refusal.count));
    refusals.truncate(REFUSALS_KEPT);
    PlacementReport {
        candidates: table.all,
        eligible,
        chosen: best.first().map(|best| best.place.clone()),
        scored_by: scored.iter().map(|one| one.binding.clone()).collect(),
        best,
        refusals: std::mem::take(refusals),
        took_us: 0,
    }
}

fn best<K: Ord>(left: &mut Vec<(i64, usize)>, key: impl Fn(&(i64, usize)) -> K) {
    if left.len() > BEST_KEPT {
        left.select_nth_unstable_by_key(BEST_KEPT, &key);
        left.truncate(BEST_KEPT);
    }
    left.sort_by_key(key);
}
