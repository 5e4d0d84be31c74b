//! Events: in order, without gaps, none twice.

use crate::world::{World, within};
use bulkhead_engine::{EngineError, EventQuery};
use bulkhead_model::VchSettings;
use chrono::{TimeDelta, Utc};
use futures_util::StreamExt as _;

#[tokio::test]
async fn events_are_numbered_without_gaps_while_many_write() {
    let world = World::new().await;
    let live = world.engine.events(&world.session, EventQuery::default()).await.unwrap();
    let lives = futures_util::future::join_all((0..6).map(|code| {
        let world = &world;
        async move {
            let id = world.run(&format!("exit {code}")).await;
            assert_eq!(world.exit(&id).await.code, code);
            world.remove(&id, false).await.unwrap();
            id
        }
    }));
    let ids = lives.await;
    let heard: Vec<_> = within("events", live.take(6 * 6).map(Result::unwrap).collect()).await;
    let first = heard[0].seq;
    assert!(heard.iter().zip(first..).all(|(event, seq)| event.seq == seq), "a gap");
    assert!(heard.windows(2).all(|pair| pair[0].at <= pair[1].at), "not in order of time");
    for (id, code) in ids.iter().zip(0..) {
        let of_it: Vec<_> = heard.iter().filter(|event| event.actor == id.as_str()).collect();
        let actions: Vec<_> = of_it.iter().map(|event| event.action.as_str()).collect();
        assert_eq!(actions, ["create", "start", "die", "destroy"]);
        assert_eq!(of_it[2].attributes["exitCode"], code.to_string());
        assert_eq!(of_it[2].attributes["image"], "app");
    }
    assert_eq!(
        world.events().await.iter().map(|event| event.seq).collect::<Vec<_>>(),
        (1..=36).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_vch_hears_nothing_of_another() {
    let world = World::new().await;
    let other = world.add_vch("other", "dev", VchSettings::default()).await;
    world.run("exit 0").await;
    let query = EventQuery { since: Some(world.vch.created_at), until: Some(Utc::now()) };
    let stream = world.engine.events(&other, query).await.unwrap();
    assert_eq!(within("events", stream.count()).await, 0);
}

#[tokio::test]
async fn the_past_is_heard_from_any_time_on_and_goes_over_into_the_present() {
    let world = World::new().await;
    let id = world.run("exit 0").await;
    world.exit(&id).await;
    let all = world.events().await;
    let query = EventQuery { since: Some(all[1].at), until: None };
    let mut stream = world.engine.events(&world.session, query).await.unwrap();
    let mut next = async || within("an event", stream.next()).await.unwrap().unwrap();
    let expect: Vec<_> = all.iter().filter(|event| event.at >= all[1].at).collect();
    for event in expect {
        assert_eq!(&next().await, event);
    }
    world.remove(&id, false).await.unwrap();
    assert_eq!(next().await.action, "destroy");
}

#[tokio::test]
async fn a_stream_with_an_end_in_the_future_ends_there() {
    let world = World::new().await;
    let query = EventQuery { since: None, until: Some(Utc::now() + TimeDelta::milliseconds(300)) };
    let stream = world.engine.events(&world.session, query).await.unwrap();
    let id = world.create("sleep").await;
    let heard: Vec<_> = within("events", stream.map(Result::unwrap).collect()).await;
    assert_eq!(heard.iter().map(|event| event.actor.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    let now = Utc::now();
    let backwards = EventQuery { since: Some(now), until: Some(now - TimeDelta::seconds(1)) };
    let refused = world.engine.events(&world.session, backwards).await.map(drop);
    assert!(matches!(refused, Err(EngineError::Invalid { .. })));
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops() {
    let world = World::new().await;
    let stream = world.engine.events(&world.session, EventQuery::default()).await.unwrap();
    within("shutdown", world.engine.shutdown()).await;
    assert_eq!(within("the end", stream.count()).await, 0);
}
