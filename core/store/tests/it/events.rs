use crate::things::{World, at, event, record};
use bulkhead_model::VchId;
use bulkhead_store::{Record, StoreError};
use uuid::Uuid;

#[tokio::test]
async fn numbers_have_no_gaps_under_many_writers_and_failures() {
    let world = World::new().await;
    let (store, vch, settings) = (&world.store, world.vch.id, &world.vch.settings);
    let first = store.last_event_seq(vch).await.unwrap();
    let nobody = VchId(Uuid::new_v4());
    let writers = (0..100).map(|n| async move {
        let record = Record::at(at(100 - n)).event(event("a")).event(event("b"));
        if n % 5 == 0 {
            // Rolled back: its numbers are given to others.
            let missing = bulkhead_model::Digest::sha256([99; 32]);
            let reference = "app:1".parse().unwrap();
            store.tag(vch, &reference, &missing, &record).await.unwrap_err();
            return Vec::new();
        }
        store.update_settings(vch, settings, settings, &record).await.unwrap()
    });
    let outcomes = futures_util::future::join_all(writers).await;
    let mut told: Vec<i64> = outcomes.iter().flatten().map(|event| event.seq).collect();
    for pair in outcomes.iter().filter(|events| !events.is_empty()) {
        assert_eq!(pair[0].seq + 1, pair[1].seq, "the events of one change stay together");
    }
    told.sort_unstable();
    let kept = store.events(vch, first, 1000).await.unwrap();
    let numbers: Vec<i64> = kept.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (first + 1..=first + 160).collect::<Vec<_>>());
    assert_eq!(numbers, told);
    assert!(kept.is_sorted_by_key(|event| event.at), "never dated before the one before");
    assert_eq!(store.last_event_seq(vch).await.unwrap(), first + 160);
    let missing = store.last_event_seq(nobody).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn events_are_read_by_number_and_by_time_and_trimmed() {
    let world = World::new().await;
    let (store, vch) = (&world.store, world.vch.id);
    let settings = &world.vch.settings;
    for n in 10..15 {
        let record = Record::at(at(n)).event(event("x"));
        let told = store.update_settings(vch, settings, settings, &record).await.unwrap();
        assert_eq!(store.events(vch, told[0].seq - 1, 1).await.unwrap(), told, "kept as told");
    }
    let last = store.last_event_seq(vch).await.unwrap();
    let numbers =
        |events: Vec<bulkhead_model::Event>| events.iter().map(|e| last - e.seq).collect::<Vec<_>>();
    assert_eq!(numbers(store.events(vch, last - 3, 2).await.unwrap()), [2, 1]);
    assert_eq!(numbers(store.events_between(vch, at(11), at(13), 10).await.unwrap()), [3, 2, 1]);
    assert_eq!(numbers(store.events_between(vch, at(11), at(13), 2).await.unwrap()), [3, 2]);
    store.trim_events(vch, 2).await.unwrap();
    assert_eq!(numbers(store.events(vch, 0, 100).await.unwrap()), [1, 0]);
    let next = store.update_settings(vch, settings, settings, &record("y")).await.unwrap();
    assert_eq!(next[0].seq, last + 1, "numbers go on");
    assert_eq!(store.trim_events(vch, 100).await.unwrap(), 0);
}
