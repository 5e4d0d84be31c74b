//! Roll back while requests are under way: each is decided by one set, and says by which.

use super::desk::{Desk, NO_VOLUMES};
use crate::world::within;
use bulkhead_engine::{EngineError, Expected, Happening};
use bulkhead_model::volume::VolumeAsk;
use bulkhead_model::{Verdict, VolumeName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const ASKERS: usize = 4;
const FLIPS: u64 = 8;

fn volume(name: String) -> VolumeAsk {
    let name: VolumeName = name.parse().unwrap();
    VolumeAsk { name: Some(name), ..VolumeAsk::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_roll_back_under_load_leaves_no_decision_that_its_policies_did_not_make() {
    let mut desk = Desk::new("dev").await;
    desk.draft("none", &[("dev/volumes.cedar", Some(NO_VOLUMES))]).await;
    desk.activate("none", Expected::Base).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut askers = tokio::task::JoinSet::new();
    for asker in 0..ASKERS {
        let (engine, session, done) = (desk.world.engine.clone(), desk.world.session.clone(), done.clone());
        askers.spawn(async move {
            let (mut made, mut refused) = (0, 0);
            while !done.load(Ordering::SeqCst) {
                match engine.create_volume(&session, &volume(format!("v{asker}-{made}-{refused}"))).await {
                    Ok(_) => made += 1,
                    Err(EngineError::Denied { .. }) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            (made, refused)
        });
    }
    for flip in 0..FLIPS {
        // 1 permits, 2 refuses; each is a revision of its own again.
        let to = 1 + flip % 2;
        desk.roll_back(to, Expected::Revision(2 + flip)).await.unwrap();
        let decided = desk.happened.lock().unwrap().len();
        let moved = || desk.happened.lock().unwrap().len() > decided + 2 * ASKERS;
        super::desk::until("requests under each set", moved).await;
    }
    done.store(true, Ordering::SeqCst);
    let (mut made, mut refused) = (0, 0);
    while let Some(counts) = within("the askers end", askers.join_next()).await {
        let counts = counts.unwrap();
        (made, refused) = (made + counts.0, refused + counts.1);
    }
    let permits = desk.world.store.policy_revision(1).await.unwrap().digest.to_string();
    let refuses = desk.world.store.policy_revision(2).await.unwrap().digest.to_string();
    let decisions = desk.world.store.decisions(desk.world.vch.id, 100_000).await.unwrap();
    let mut counts = BTreeMap::new();
    for decision in decisions.iter().filter(|decision| decision.action == "volume.create") {
        *counts.entry((decision.policy_set.clone(), decision.verdict.as_str())).or_insert(0) += 1;
    }
    let of =
        |set: &String, verdict: Verdict| counts.get(&(set.clone(), verdict.as_str())).copied().unwrap_or(0);
    assert_eq!((of(&permits, Verdict::Deny), of(&refuses, Verdict::Allow)), (0, 0), "{counts:?}");
    // And what was decided is what was done.
    assert_eq!((of(&permits, Verdict::Allow), of(&refuses, Verdict::Deny)), (made, refused), "{counts:?}");
    assert!(made > 0 && refused > 0, "{counts:?}");
    assert_eq!(desk.world.engine.volumes(&desk.world.session).await.unwrap().len(), made);
    assert_eq!(desk.active(), 2 + FLIPS);
    desk.shut().await;
}

/// A policy that only some requests make fail: it denies those, is told, and others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_fails_denies_and_is_told() {
    let mut desk = Desk::new("dev").await;
    let guard = r#"@id("shares")
forbid (principal, action == Bulkhead::Action::"container.create", resource)
when { resource.cpuMilli * 9223372036854775 > 9223372036854775807 };"#;
    desk.draft("shares", &[("dev/shares.cedar", Some(guard))]).await;
    desk.activate("shares", Expected::Base).await.unwrap();
    let ask =
        |cpu_milli| bulkhead_model::ContainerAsk { cpu_milli: Some(cpu_milli), ..crate::world::ask("sleep") };
    desk.world.create_as(None, ask(1000)).await.unwrap();
    let error = desk.world.create_as(None, ask(2000)).await.unwrap_err();
    assert!(error.to_string().contains("policy \"shares\" failed, which denies"), "{error}");
    let failed = Happening::PolicyFailed { policy: "shares".into() };
    let told = desk.happened.lock().unwrap().iter().filter(|it| **it == failed).count();
    assert_eq!(told, 1);
    desk.shut().await;
}
