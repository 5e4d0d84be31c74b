//! Plugins that are asked about candidates, through the real engine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use bulkhead_model::plugin::{Failure, Point};
use bulkhead_model::vch::VchName;
use bulkhead_model::{
    Caller, ContainerAsk, ContainerId, ContainerSpec, DecisionId, Digest, ImageConfig, RestartPolicy, Vch,
    VchId, VchSettings,
};
use bulkhead_plugin::{
    Called, Candidates, Circumstances, Compiler, Container, Host, Limits, Plugin, Ratings, Texts, ToPlace,
};
use bulkhead_test_support::plugins::{compiler, component};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

async fn plugin(folder: &Path, name: &str) -> Plugin {
    let (program, arguments) = compiler().unwrap();
    let host = Host::new(folder, Compiler::new(program, arguments), unhurried()).unwrap();
    let component = component(name).unwrap();
    host.load(&Digest::of(&component), async move || Ok(component)).await.unwrap()
}

/// All limits as they are, but one: how long a machine that does much else takes is not for these tests to say.
fn unhurried() -> Limits {
    Limits { deadline: Duration::from_secs(10), ..Limits::default() }
}

/// So many hosts, each a little fuller than the one before, in three zones, on datastores of two tiers.
#[derive(Debug)]
struct Hosts(u32);

impl Candidates for Hosts {
    fn count(&self) -> u32 {
        self.0
    }

    fn numbers(&self, column: &str) -> Option<Vec<u32>> {
        match column {
            "memory-mib" => Some(vec![self.0; self.0 as usize]),
            "memory-free-mib" => Some((0..self.0).rev().collect()),
            "datastore-free-mib" => Some(vec![1; self.0 as usize]),
            "containers-with:app=web" => Some((0..self.0).map(|n| u32::from(n == 0)).collect()),
            _ => None,
        }
    }

    fn texts(&self, column: &str) -> Option<Texts> {
        let (words, codes): (&[&str], Vec<u32>) = match column {
            "host-label:zone" => {
                (&["a", "b"], (0..self.0).map(|n| if n % 3 == 2 { Texts::ABSENT } else { n % 3 }).collect())
            }
            "datastore-label:tier" => (&["fast", "bulk"], (0..self.0).map(|n| n % 2).collect()),
            _ => return None,
        };
        Some(Texts { values: words.iter().map(ToString::to_string).collect(), codes })
    }
}

fn spec(labels: &[(&str, &str)]) -> ContainerSpec {
    let image = ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() };
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let ask = ContainerAsk { labels, ..ContainerAsk::default() };
    let id = ContainerId::from_random([1; 32]);
    bulkhead_model::container::resolve(&id, &ask, &image, &VchSettings::default()).unwrap()
}

async fn rate(plugin: &Plugin, settings: Value, labels: &[(&str, &str)], count: u32) -> Called<Ratings> {
    let vch = Vch {
        id: VchId(uuid::Uuid::nil()),
        name: "one".parse::<VchName>().unwrap(),
        tenant: "acme".into(),
        class: "test".parse().unwrap(),
        parent: None,
        settings: VchSettings::default(),
        created_at: chrono::DateTime::UNIX_EPOCH,
        deleting: false,
    };
    let (decision, caller, spec) = (DecisionId::new(1, 2), Caller::unix(1000), spec(labels));
    let circumstances = Circumstances {
        decision: &decision,
        vch: &vch,
        caller: &caller,
        now: chrono::DateTime::UNIX_EPOCH,
        seed: 42,
    };
    let restart = RestartPolicy::default();
    let container = Container { name: "web", spec: &spec, asked: "nginx", image: None, restart };
    let asked = ToPlace::new(circumstances, container, Arc::new(Hosts(count)));
    plugin.rate(&settings, &asked, &unhurried()).await
}

#[tokio::test]
async fn it_has_the_point_that_it_exports_and_is_not_asked_at_another() {
    let folder = tempfile::tempdir().unwrap();
    let spread = plugin(folder.path(), "spread").await;
    assert_eq!(spread.describe().await.unwrap().points, [Point::Placement]);
    assert!(spread.is_asked_at(Point::Placement) && !spread.is_asked_at(Point::Admission));
    assert_eq!(
        spread.check_settings(&json!({ "apart": ["a"], "together": ["a"] })).await.unwrap()[0].0,
        "/together"
    );
    let caps = plugin(folder.path(), "resource-caps").await;
    assert_eq!(caps.describe().await.unwrap().points, [Point::Admission]);
    let both = plugin(folder.path(), "hostile-placement").await;
    assert_eq!(both.describe().await.unwrap().points, [Point::Admission, Point::Placement]);
    let error = rate(&caps, json!({}), &[], 3).await.result.unwrap_err();
    assert!(error.text.contains("not asked about placement"), "{error:?}");
}

#[tokio::test]
async fn ten_thousand_candidates_are_rated_at_the_same_cost_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let spread = plugin(folder.path(), "spread").await;
    let settings = json!({ "apart": ["app"], "strict": true });
    let first = rate(&spread, settings.clone(), &[("app", "web")], 10_000).await;
    assert_eq!(first.columns, ["containers-with:app=web", "memory-free-mib", "memory-mib"]);
    let ratings = first.result.unwrap();
    assert_eq!(ratings.scores.len(), 10_000);
    assert_eq!(ratings.refusal(0), Some("a container with app=web is on the host"));
    assert!(ratings.scores[1] > ratings.scores[9_999] && ratings.scores[9_999] >= 0);
    assert!(first.fuel > 0);
    for _ in 0..3 {
        let again = rate(&spread, settings.clone(), &[("app", "web")], 10_000).await;
        assert_eq!((again.result.unwrap(), again.fuel), (ratings.clone(), first.fuel));
    }
}

#[tokio::test]
async fn tiers_are_those_of_the_labels() {
    let folder = tempfile::tempdir().unwrap();
    let tiers = plugin(folder.path(), "datastore-tiers").await;
    let called = rate(&tiers, json!({}), &[("tier", "bulk")], 4).await;
    assert_eq!(called.columns, ["datastore-free-mib", "datastore-label:tier"]);
    let ratings = called.result.unwrap();
    assert_eq!(ratings.scores, [-1, 1000, -1, 1000]);
    assert_eq!(ratings.refusal(2), Some("a datastore without tier=bulk"));
}

#[tokio::test]
async fn columns_pass_the_border_whole() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = plugin(folder.path(), "hostile-placement").await;
    let said = async |does: &str, what: &str| {
        let called = rate(&hostile, json!({ "does": does, "what": what }), &[], 5).await;
        called.result.unwrap();
        (called.lines[0].text.clone(), called.columns)
    };
    assert_eq!(said("sum", "memory-free-mib").await, ("10".into(), vec!["memory-free-mib".into()]));
    assert_eq!(said("texts", "host-label:zone").await.0, "a b - a b");
    // What is not there is noted, too: a name that is misspelt shows.
    assert_eq!(said("sum", "memory-fre-mib").await, ("0".into(), vec!["memory-fre-mib".into()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_it_does_wrong_the_next_call_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = plugin(folder.path(), "hostile-placement").await;
    for (does, why, text) in [
        ("short", Failure::Answer, "it has 2 scores for 3 candidates"),
        ("loop", Failure::Fuel, "units of fuel"),
        ("panic", Failure::Trap, "unreachable"),
        ("read-for-ever", Failure::Fuel, "units of fuel"),
        ("read-many", Failure::Answer, "more than 64 columns"),
        ("long-name", Failure::Answer, "300 bytes at most"),
    ] {
        let error = rate(&hostile, json!({ "does": does }), &[], 3).await.result.unwrap_err();
        assert!(error.why == why && error.text.contains(text), "{does}: {error:?}");
        let fine = rate(&hostile, json!({}), &[], 3).await.result.unwrap();
        assert_eq!(fine.scores, [0, 0, 0], "after {does}");
    }
}
