//! Decisions asked again: of the policies that made them, and of others.

use super::desk::Desk;
use crate::world::{ask, operator, within};
use bulkhead_engine::{DecisionFilter, EngineError, Expected, WhatIfQuery};
use bulkhead_model::reason::{PLACEMENT, Rule};
use bulkhead_model::{Action, ContainerAsk, Decision, DecisionId, Reason, VchId, Verdict};
use bulkhead_policy::{Scene, Settings};
use chrono::{DateTime, TimeDelta};
use futures_util::{StreamExt as _, TryStreamExt as _};

const DECISIONS: u64 = 10_000;

fn asking(memory_mib: u64) -> ContainerAsk {
    ContainerAsk { memory_bytes: Some(memory_mib << 20), ..ask("sleep") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_replayed_by_the_policies_that_made_it() {
    let mut desk = Desk::new("test").await;
    let engine = desk.world.engine.clone();
    desk.world.create_as(None, asking(64)).await.unwrap();
    desk.world.create_as(None, asking(4096)).await.unwrap_err();
    // Others are in force by now.
    desk.draft("open", &[("test/memory.cedar", None)]).await;
    desk.activate("open", Expected::Base).await.unwrap();
    desk.world.create_as(None, asking(4096)).await.unwrap();
    let filter = DecisionFilter { action: Some("container.create".into()), ..DecisionFilter::default() };
    let all = engine.decisions_matching(&operator(), Some("test"), filter, 10).await.unwrap();
    let verdicts: Vec<_> = all.iter().map(|decision| decision.verdict).collect();
    assert_eq!(verdicts, [Verdict::Allow, Verdict::Deny, Verdict::Allow]);
    for (decision, revision) in all.iter().zip([2, 1, 1]) {
        let once = within("replay", engine.decision_replay(&operator(), decision.id.as_str())).await.unwrap();
        assert_eq!((once.same, once.revision, once.verdict), (true, revision, decision.verdict));
        assert_eq!(once.reasons, decision.reasons);
        let twice =
            within("replay", engine.decision_replay(&operator(), decision.id.as_str())).await.unwrap();
        assert_eq!(once, twice);
    }
    // One that was tampered with is not the same, and one whose policies are gone cannot be asked.
    let mut forged = Decision { id: DecisionId::new(1, 1), verdict: Verdict::Allow, ..all[1].clone() };
    desk.world.store.insert_decision(&forged).await.unwrap();
    assert!(!engine.decision_replay(&operator(), forged.id.as_str()).await.unwrap().same);
    forged =
        Decision { id: DecisionId::new(1, 2), policy_set: format!("sha256:{}", "0".repeat(64)), ..forged };
    desk.world.store.insert_decision(&forged).await.unwrap();
    // What had no place was permitted by the policies all the same.
    let nowhere = Reason::new(Rule::Engine(PLACEMENT.into()), "place", "0 of 1 candidates");
    let nowhere = Decision {
        id: DecisionId::new(1, 3),
        verdict: Verdict::Deny,
        reasons: vec![nowhere],
        ..all[0].clone()
    };
    desk.world.store.insert_decision(&nowhere).await.unwrap();
    assert!(engine.decision_replay(&operator(), nowhere.id.as_str()).await.unwrap().same);
    let gone = engine.decision_replay(&operator(), forged.id.as_str()).await;
    assert!(matches!(gone, Err(EngineError::NotReplayable { .. })), "{gone:?}");
    desk.shut().await;
}

/// What was asked for on the test's day, number by number: 200 sizes, over and over.
fn memory_mib(number: u64) -> u64 {
    64 + number % 200 * 20
}

/// As the set in force decides it.
async fn record(desk: &Desk) -> Vec<Decision> {
    let set = desk.decider.set();
    let mut scene = Scene::new("test").unwrap();
    let mut sizes = Vec::new();
    for number in 0..200 {
        scene.spec.resources.memory_bytes = memory_mib(number) << 20;
        sizes.push(set.decide(&Settings::default(), &scene.query(Action::ContainerCreate)));
    }
    let decisions: Vec<Decision> = (0..DECISIONS)
        .zip(sizes.iter().cycle())
        .map(|(number, outcome)| {
            let at = 1_764_000_000_000 + number;
            Decision {
                id: DecisionId::new(at, number),
                vch: VchId(uuid::Uuid::nil()),
                at: DateTime::from_timestamp_millis(i64::try_from(at).unwrap()).unwrap(),
                action: Action::ContainerCreate.name().into(),
                caller: "uid:1000".into(),
                resource: outcome.resource.clone(),
                verdict: outcome.verdict,
                reasons: outcome.reasons.clone(),
                policy_set: outcome.policy_set.clone(),
                inputs: outcome.inputs.clone(),
                plugins: Vec::new(),
                placement: None,
                took_us: 1,
            }
        })
        .collect();
    let store = &desk.world.store;
    let inserts = futures_util::stream::iter(&decisions).map(|decision| store.insert_decision(decision));
    inserts.buffer_unordered(8).try_collect::<Vec<()>>().await.unwrap();
    decisions
}

#[tokio::test(flavor = "multi_thread")]
async fn what_if_over_ten_thousand_decisions_lists_exactly_those_that_flip() {
    let mut desk = Desk::new("test").await;
    let decisions = record(&desk).await;
    // The cap is lower for most, and gone for the largest.
    let memory = std::fs::read_to_string(desk.folder().join("test/memory.cedar")).unwrap();
    let changed =
        memory.replace("resource.memoryMib > 2048", "resource.memoryMib > 1024 && resource.memoryMib < 3000");
    assert_ne!(changed, memory);
    desk.draft("caps", &[("test/memory.cedar", Some(&changed))]).await;
    let query = WhatIfQuery { since: Some(decisions[0].at), limit: 10_000 };
    // The decisions of this test's own drafts are newer than these.
    let engine = &desk.world.engine;
    let all = within("what-if", engine.policy_what_if(&operator(), "caps", query.clone())).await.unwrap();
    eprintln!("what-if over {} decisions took {:?}", all.decisions, all.took);
    assert_eq!(all.decisions, 10_000);
    assert!(all.not_replayed.is_empty(), "{:?}", all.not_replayed);

    let edits = desk
        .world
        .store
        .recorded_decisions(
            &DecisionFilter {
                since: Some(decisions[9999].at + TimeDelta::milliseconds(1)),
                ..DecisionFilter::default()
            },
            100,
        )
        .await
        .unwrap()
        .len();
    let asked = decisions.iter().enumerate().skip(edits).rev();
    let flips = |wanted: std::ops::RangeInclusive<u64>, after: Verdict| {
        let within = move |number: usize| wanted.contains(&memory_mib(u64::try_from(number).unwrap()));
        asked.clone().filter(move |(number, _)| within(*number)).map(move |(_, it)| (it.id.clone(), after))
    };
    let expected: Vec<_> =
        flips(3000..=u64::MAX, Verdict::Allow).chain(flips(1025..=2048, Verdict::Deny)).collect();
    let found: Vec<_> = all.flips.iter().map(|flip| (flip.id.clone(), flip.after)).collect();
    assert!(expected.len() > 4000, "{}", expected.len());
    assert_eq!(found, expected);
    assert!(all.flips.iter().all(|flip| flip.before != flip.after && !flip.reasons.is_empty()));
    // And again the same; a part of it, for the time's sake.
    let query = WhatIfQuery { limit: 1000, ..query.clone() };
    let again = within("what-if", engine.policy_what_if(&operator(), "caps", query)).await.unwrap();
    let newest = decisions[decisions.len() + edits - 1000].at;
    assert!(again.flips.iter().eq(all.flips.iter().filter(|flip| flip.at >= newest)));
    assert!(again.flips.len() > 400, "{}", again.flips.len());

    // What cannot be read is counted, and nothing else is lost by it.
    let odd = Decision {
        id: DecisionId::new(1_999_000_000_000, 0),
        inputs: serde_json::json!({}),
        at: chrono::Utc::now(),
        ..decisions[0].clone()
    };
    desk.world.store.insert_decision(&odd).await.unwrap();
    let query = WhatIfQuery { since: None, limit: 3 };
    let few = engine.policy_what_if(&operator(), "caps", query).await.unwrap();
    assert_eq!((few.decisions, few.not_replayed.values().sum::<u64>()), (3, 1), "{few:?}");
    desk.shut().await;
}
