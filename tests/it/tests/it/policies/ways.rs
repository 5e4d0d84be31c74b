//! Ways in: the folder, drafts, roll back, a start; and what is refused on each.

use super::desk::{Desk, GUARD, NO_VOLUMES, until};
use crate::world::{operator, within};
use bulkhead_engine::{DraftFiles, EngineError, Expected, NewDraft};
use bulkhead_model::{Action, Caller, PolicyFiles, VchId};
use bulkhead_policy::{Scene, write_defaults};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_folder_is_in_force_within_a_second_and_a_wrong_one_never() {
    let mut desk = Desk::new("dev").await;
    let decider = desk.decider.clone();
    let mut scene = Scene::new("dev").unwrap();
    scene.spec.privileged = true;
    let allowed = || decider.decide(&scene.query(Action::ContainerCreate)).is_allowed();
    assert!(allowed());

    desk.write("dev/privileged.cedar", GUARD);
    let took = until("the new policy denies", || !allowed()).await;
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert_eq!(desk.active(), 2);

    // Wrong: the guard stays, and the place is told.
    for (wrong, expected) in [
        (GUARD.replace("resource.privileged", "resource.privileged &&"), "privileged.cedar:2:"),
        (GUARD.replace("resource.privileged", "resource.priviledged"), "did you mean `privileged`?"),
        (GUARD.replace("resource.privileged", "resource.cpuMilli"), "expected Bool but saw Long"),
        (GUARD.replace("resource.privileged", "principal.uid == 7"), "uid"),
        (
            GUARD.replace("resource.privileged", "9223372036854775807 + resource.cpuMilli < 0"),
            "this policy fails",
        ),
        // As an editor that empties first: nothing comes through the gap.
        (String::new(), "no policy in this file"),
    ] {
        desk.write("dev/privileged.cedar", &wrong);
        until(expected, || desk.problem().contains(expected)).await;
        assert!(desk.problem().contains("dev/privileged.cedar:"), "{}", desk.problem());
        assert!(!allowed());
    }
    assert_eq!(desk.active(), 2);

    // As an editor that writes beside and renames.
    desk.write("dev/.privileged.tmp", &GUARD.replace("resource.privileged", "resource.autoRemove"));
    let path = desk.folder().join("dev");
    std::fs::rename(path.join(".privileged.tmp"), path.join("privileged.cedar")).unwrap();
    let took = until("the corrected policy allows", allowed).await;
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert_eq!(desk.problem(), "");

    // The whole folder is replaced, and gone in between.
    let old = desk.folder().with_file_name("old");
    std::fs::rename(desk.folder(), &old).unwrap();
    until("the lost folder is told", || !desk.problem().is_empty()).await;
    assert_eq!(desk.active(), 3);
    write_defaults(&desk.folder()).unwrap();
    until("the defaults are back", || desk.active() == 4).await;
    assert_eq!(desk.problem(), "");
    assert_eq!(desk.history().await, ["4 folder", "3 folder", "2 folder", "1 folder"]);
    desk.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_last_is_in_force_and_a_folder_that_stays_wishes_nothing() {
    let mut desk = Desk::new("dev").await;
    desk.draft("guard", &[("dev/privileged.cedar", Some(GUARD))]).await;
    let activation = desk.activate("guard", Expected::Base).await.unwrap();
    assert_eq!(
        (activation.revision.number, activation.difference.added),
        (2, vec!["no-privileged-in-dev".to_owned()])
    );

    // A restart and a look at the folder change nothing.
    desk.shut().await;
    desk.open().await.unwrap();
    within("read", desk.world.engine.read_policies(&desk.folder())).await.unwrap();
    assert_eq!(desk.history().await, ["2 draft guard", "1 folder"]);
    assert!(desk.decider.set().text("no-privileged-in-dev").is_some());

    // A change of the folder is a wish, whatever is in force.
    desk.write("dev/volumes.cedar", NO_VOLUMES);
    until("the folder is in force", || desk.active() == 3).await;
    assert!(desk.decider.set().text("no-privileged-in-dev").is_none());

    // While no server runs, a wrong folder keeps the newest revision; what is put right then is in force.
    desk.roll_back(2, Expected::Revision(3)).await.unwrap();
    desk.shut().await;
    desk.write("dev/volumes.cedar", "permit (");
    desk.open().await.unwrap();
    assert_eq!(desk.active(), 4);
    assert!(desk.problem().contains("dev/volumes.cedar:1:"), "{}", desk.problem());
    desk.write("dev/volumes.cedar", &NO_VOLUMES.replace("no-volumes", "none"));
    until("the folder is in force", || desk.active() == 5 && desk.problem().is_empty()).await;
    assert_eq!(
        desk.history().await,
        ["5 folder", "4 rollback of 2", "3 folder", "2 draft guard", "1 folder"]
    );
    let diff = within("diff", desk.world.engine.policy_diff(&operator(), 3, 5)).await.unwrap();
    assert_eq!(
        (diff.policies.added, diff.policies.removed),
        (vec!["none".to_owned()], vec!["no-volumes".to_owned()])
    );
    assert_eq!(diff.files.len(), 1);
    assert!(diff.files[0].diff.contains("-@id(\"no-volumes\")\n+@id(\"none\")\n"), "{}", diff.files[0].diff);
    desk.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_needs_a_good_folder() {
    let mut desk = Desk::new("dev").await;
    desk.shut().await;
    let other = crate::world::World::new().await;
    let wrong = desk.folder().join("dev/wrong.cedar");
    std::fs::write(&wrong, "permit (").unwrap();
    let open =
        || bulkhead_engine::open_policies(&other.store, &wrong, Default::default(), chrono::Utc::now());
    assert!(matches!(open().await, Err(EngineError::PoliciesRefused(_))));
    assert!(other.store.newest_policy_revision().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_go_through_the_same_gates_and_only_from_the_revision_that_they_know() {
    let mut desk = Desk::new("dev").await;
    let engine = desk.world.engine.clone();
    let refused = async |draft: &str| match desk.activate(draft, Expected::Any).await {
        Err(EngineError::PoliciesRefused(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    desk.draft(
        "wrong",
        &[("dev/a.cedar", Some("@id(\"a\")\npermit (principal, action, resource)\nwhen { 1 < };"))],
    )
    .await;
    assert!(refused("wrong").await.starts_with("dev/a.cedar:3:12: "));
    let checked = within("check", engine.policy_draft_check(&operator(), "wrong")).await;
    assert!(matches!(checked, Err(EngineError::PoliciesRefused(_))));
    desk.draft(
        "open",
        &[
            ("test/memory.cedar", None),
            (
                "cases/memory/DENY/too much.json",
                Some(r#"{"class":"test","action":"container.create","memory_mib":4096}"#),
            ),
        ],
    )
    .await;
    let said = refused("open").await;
    assert!(said.starts_with("case `memory/DENY/too much` fails: allow instead of deny"), "{said}");
    let whole = NewDraft { base: None, files: DraftFiles::Whole(PolicyFiles::new()) };
    within("put", engine.policy_draft_put(&operator(), "empty".parse().unwrap(), whole, None)).await.unwrap();
    assert!(refused("empty").await.starts_with("there is no `base` folder"));
    assert_eq!(desk.history().await, ["1 folder"]);

    // Two drafts from the same revision: the second must be looked at again.
    desk.draft("one", &[("dev/privileged.cedar", Some(GUARD))]).await;
    desk.draft("two", &[("dev/volumes.cedar", Some(NO_VOLUMES))]).await;
    let dry = engine.policy_activate(&operator(), "one", Expected::Base, "", true).await.unwrap();
    assert_eq!((dry.revision.number, desk.active()), (2, 1));
    let (one, two) = tokio::join!(desk.activate("one", Expected::Base), desk.activate("two", Expected::Base));
    let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
    assert_eq!(won.unwrap().revision.comment, "because");
    assert!(matches!(lost, Err(EngineError::PoliciesChanged { expected: 1, active: 2 })), "{lost:?}");
    let stale = desk.roll_back(1, Expected::Revision(1)).await;
    assert!(matches!(stale, Err(EngineError::PoliciesChanged { expected: 1, active: 2 })), "{stale:?}");
    assert!(matches!(desk.roll_back(9, Expected::Any).await, Err(EngineError::NoSuchRevision(9))));

    // A draft has revisions of its own, and only operators touch any of it.
    let root = operator();
    let put = |before| {
        let new = NewDraft {
            base: Some(1),
            files: DraftFiles::Patch([("dev/users.cedar".to_owned(), None)].into()),
        };
        engine.policy_draft_put(&root, "one".parse().unwrap(), new, Some(before))
    };
    assert!(matches!(put(7).await, Err(EngineError::DraftChanged(_))));
    assert_eq!(put(1).await.unwrap().revision, 2);
    let user = Caller::unix(1000);
    let denied = [
        engine.policy_activate(&user, "one", Expected::Any, "", false).await.err(),
        engine.policy_rollback(&user, 1, Expected::Any, "", false).await.err(),
        engine.policy_draft(&user, "one").await.err(),
        engine.policy_draft_remove(&user, "one").await.err(),
        engine.policy_revision(&user, 1).await.err(),
    ];
    for error in denied {
        assert!(matches!(error, Some(EngineError::Denied { .. })), "{error:?}");
    }
    engine.policy_draft_remove(&operator(), "one").await.unwrap();
    assert!(matches!(engine.policy_draft(&operator(), "one").await, Err(EngineError::NoSuchDraft(_))));
    // Who put what in force is in the audit trail.
    let audit = desk.world.store.audit(None, 100).await.unwrap();
    let of = |action: &str| {
        audit.iter().filter(|row| row.entry.action == action && row.entry.outcome == "done").count()
    };
    assert_eq!(of("policy.activate"), 1);
    assert!(of("policy.edit") >= 6, "{audit:?}");
    assert!(audit.iter().all(|row| row.vch.is_none_or(|vch| vch != VchId(uuid::Uuid::nil()))));
    desk.shut().await;
}
