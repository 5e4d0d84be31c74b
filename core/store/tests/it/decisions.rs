use crate::things::{World, at};
use bulkhead_model::decision::{Decision, Verdict};
use bulkhead_model::placement::{Placement, PlacementReport, RatedPlace};
use bulkhead_model::plugin::{Change, Mode, PluginReport, Said};
use bulkhead_model::reason::{Reason, Rule};
use bulkhead_model::{DecisionId, Digest, VchId};
use bulkhead_store::{AuditEntry, StoreError};
use uuid::Uuid;

pub fn decision(vch: VchId, ms: u64) -> Decision {
    let child = Reason::new(Rule::NotPermitted, "image", "it is from `\0`").number("size", -3, "bytes");
    Decision {
        id: DecisionId::new(ms, 7),
        vch,
        at: at(i64::try_from(ms).unwrap()),
        action: "container.create".into(),
        caller: "uid:1000".into(),
        resource: "Container::\"x\"".into(),
        verdict: if ms.is_multiple_of(2) { Verdict::Allow } else { Verdict::Deny },
        reasons: vec![Reason::new(Rule::Policy("p".into()), "x", "because").advise("ask").child(child)],
        policy_set: "sha256:0".into(),
        inputs: serde_json::json!({ "context": { "privileged": true } }),
        plugins: vec![PluginReport {
            binding: "caps".parse().unwrap(),
            plugin: "resource-caps".parse().unwrap(),
            version: "1.0.0".into(),
            digest: Digest::of(b"x"),
            mode: Mode::Enforce,
            said: Said::Change { changes: vec![(Change::SetMemoryMib { mib: 64 }, "the cap".into())] },
            warnings: vec!["lowered".into()],
            columns: Vec::new(),
            took_us: 60,
            fuel: 4711,
        }],
        placement: Some(PlacementReport {
            candidates: 3,
            eligible: 1,
            chosen: Some(Placement::default()),
            scored_by: vec!["spread".into()],
            best: vec![RatedPlace { place: Placement::default(), score: 7, scores: vec![7] }],
            refusals: Vec::new(),
            took_us: 80,
        }),
        took_us: 12,
    }
}

#[tokio::test]
async fn decisions_are_kept_and_trimmed() {
    let world = World::new().await;
    let (store, vch) = (&world.store, world.vch.id);
    // Also about a VCH that does not exist: its creation may have been refused.
    let elsewhere = decision(VchId(Uuid::new_v4()), 9);
    let all: Vec<Decision> = (1..=4).map(|ms| decision(vch, ms)).collect();
    for decision in all.iter().chain([&elsewhere, &all[0]]) {
        store.insert_decision(decision).await.unwrap();
    }
    assert_eq!(store.decision(&all[1].id).await.unwrap(), all[1]);
    assert_eq!(store.decisions(vch, 2).await.unwrap(), [all[3].clone(), all[2].clone()]);
    assert_eq!(store.trim_decisions(at(3)).await.unwrap(), 2);
    assert!(matches!(store.decision(&all[0].id).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.decisions(vch, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn refusals_leave_an_audit_entry_too() {
    let world = World::new().await;
    let store = &world.store;
    let nowhere = VchId(Uuid::new_v4());
    let entry = AuditEntry {
        caller: "uid:7".into(),
        action: "vch.create".into(),
        resource: "Vch::\"x\"".into(),
        decision: Some(DecisionId::new(1, 1)),
        outcome: "refused".into(),
    };
    store.insert_audit(Some(nowhere), at(50), &entry).await.unwrap();
    let kept = store.audit(Some(nowhere), 10).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!((&kept[0].entry, kept[0].at, kept[0].vch), (&entry, at(50), Some(nowhere)));
    let all = store.audit(None, 10).await.unwrap();
    assert_eq!(all.len(), 2, "and the one of the VCH's creation");
    assert!(all[0].id > all[1].id, "newest first");
    assert_eq!(store.trim_audit(at(10)).await.unwrap(), 1);
}
