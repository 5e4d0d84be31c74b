use crate::things::{World, at};
use bulkhead_model::{Digest, PolicyDraft, PolicyFiles, PolicyOrigin, PolicyRevision};
use bulkhead_store::{AuditEntry, DecisionFilter, Record, StoreError};

fn revision(number: u64, origin: PolicyOrigin) -> PolicyRevision {
    PolicyRevision {
        number,
        digest: Digest::of(number.min(2).to_string().as_bytes()),
        schema: "entity X;".into(),
        // What JSON has to escape comes back, too.
        files: PolicyFiles::from([("base/a.cedar".into(), "permit\0\n\"ä\u{202e}".into())]),
        origin,
        at: at(i64::try_from(number).unwrap()),
        by: "uid:0".into(),
        comment: "because".into(),
    }
}

#[tokio::test]
async fn revisions_are_numbered_one_after_another() {
    let world = World::new().await;
    let store = &world.store;
    assert_eq!(store.newest_policy_revision().await.unwrap(), None);
    let record = Record::at(at(1)).audit(AuditEntry {
        caller: "uid:0".into(),
        action: "policy.activate".into(),
        resource: "Platform::\"bulkhead\"".into(),
        decision: None,
        outcome: "done".into(),
    });
    let folder = revision(1, PolicyOrigin::Folder);
    store.insert_policy_revision(&folder, &record).await.unwrap();
    let (one, other) = (revision(2, PolicyOrigin::Draft("a".into())), revision(2, PolicyOrigin::Rollback(1)));
    let (first, second) = tokio::join!(
        store.insert_policy_revision(&one, &record),
        store.insert_policy_revision(&other, &record)
    );
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    for number in [1, 2, 4] {
        let late = store.insert_policy_revision(&revision(number, PolicyOrigin::Folder), &record).await;
        assert!(matches!(late, Err(StoreError::Conflict { .. })), "{number}: {late:?}");
    }
    let third = revision(3, PolicyOrigin::Rollback(2));
    store.insert_policy_revision(&third, &record).await.unwrap();
    assert_eq!(store.newest_policy_revision().await.unwrap(), Some(third.clone()));
    assert_eq!(store.newest_folder_revision().await.unwrap(), Some(folder.clone()));
    assert_eq!(store.policy_revision(1).await.unwrap(), folder);
    assert_eq!(store.policy_revision_of(&third.digest).await.unwrap(), third);
    let listed = store.policy_revisions(Some(3), 10).await.unwrap();
    let numbers: Vec<_> = listed.iter().map(|revision| revision.number).collect();
    assert_eq!(numbers, [2, 1]);
    assert!(listed.iter().all(|revision| revision.files.is_empty()));
    // What was refused left no trace.
    assert_eq!(
        store
            .audit(None, 10)
            .await
            .unwrap()
            .iter()
            .filter(|row| row.entry.action == "policy.activate")
            .count(),
        3
    );
}

#[tokio::test]
async fn old_revisions_go_but_for_the_folder_s_newest() {
    let world = World::new().await;
    let store = &world.store;
    for number in 1..=105 {
        let origin = if number == 2 { PolicyOrigin::Folder } else { PolicyOrigin::Draft("a".into()) };
        store.insert_policy_revision(&revision(number, origin), &Record::at(at(1))).await.unwrap();
    }
    assert_eq!(store.trim_policy_revisions(at(4)).await.unwrap(), 1, "1; 2 is the folder's, 3 went at 4");
    assert_eq!(store.trim_policy_revisions(at(1000)).await.unwrap(), 3, "3 to 5; a hundred are kept");
    assert!(matches!(store.policy_revision(3).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.newest_folder_revision().await.unwrap().unwrap().number, 2);
}

#[tokio::test]
async fn drafts_change_one_revision_at_a_time() {
    let world = World::new().await;
    let (store, record) = (&world.store, Record::at(at(1)));
    let draft = |revision| PolicyDraft {
        name: "memory".parse().unwrap(),
        revision,
        base: 7,
        files: PolicyFiles::from([("base/a.cedar".into(), revision.to_string())]),
        changed_at: at(5),
        changed_by: "uid:0".into(),
    };
    store.put_policy_draft(&draft(1), &record).await.unwrap();
    store.put_policy_draft(&draft(2), &record).await.unwrap();
    for stale in [1, 2, 4] {
        let refused = store.put_policy_draft(&draft(stale), &record).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{stale}: {refused:?}");
    }
    assert_eq!(store.policy_drafts().await.unwrap(), [draft(2)]);
    let name = "memory".parse().unwrap();
    assert_eq!(store.policy_draft(&name).await.unwrap(), draft(2));
    store.delete_policy_draft(&name, &record).await.unwrap();
    assert!(matches!(store.policy_draft(&name).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.delete_policy_draft(&name, &record).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn decisions_are_found_by_what_they_are_about_page_by_page() {
    use crate::decisions::decision;
    use bulkhead_model::Verdict;
    let world = World::new().await;
    let (store, vch) = (&world.store, world.vch.id);
    for ms in 1..=9 {
        // Three at a time have the same time.
        let mut decision = decision(vch, ms);
        decision.at = at(i64::try_from(ms / 3).unwrap());
        decision.caller = if ms == 4 { "cert:alice".into() } else { decision.caller };
        store.insert_decision(&decision).await.unwrap();
    }
    let all = DecisionFilter { vch: Some(vch), ..DecisionFilter::default() };
    let whole = store.decisions_matching(&all, 100).await.unwrap();
    assert_eq!(whole.len(), 9);
    let (mut paged, mut filter) = (Vec::new(), all.clone());
    loop {
        let page = store.decisions_matching(&filter, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some((last.at, last.id.clone()));
        paged.extend(page);
    }
    assert_eq!(paged, whole);
    let count = async |filter: DecisionFilter| store.decisions_matching(&filter, 100).await.unwrap().len();
    assert_eq!(count(DecisionFilter { verdict: Some(Verdict::Deny), ..all.clone() }).await, 5);
    assert_eq!(count(DecisionFilter { caller: Some("cert:alice".into()), ..all.clone() }).await, 1);
    assert_eq!(count(DecisionFilter { action: Some("image.pull".into()), ..all.clone() }).await, 0);
    assert_eq!(count(DecisionFilter { since: Some(at(1)), until: Some(at(2)), ..all.clone() }).await, 3);
    let recorded = store.recorded_decisions(&all, 1).await.unwrap();
    assert_eq!((&recorded[0].id, recorded[0].verdict), (&whole[0].id, whole[0].verdict));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&recorded[0].inputs).unwrap(), whole[0].inputs);
}
