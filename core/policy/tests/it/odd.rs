//! Whatever strings a request is made of, there is an answer, and a guard holds.

use crate::support::{World, image};
use bulkhead_model::caller::Via;
use bulkhead_model::reason::Rule;
use bulkhead_model::{Action, Verdict};
use bulkhead_policy::{PolicySet, Settings};
use proptest::prelude::*;
use std::sync::LazyLock;

static SET: LazyLock<PolicySet> = LazyLock::new(|| PolicySet::shipped().unwrap());

fn odd() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,40}",
        Just("\"); permit (principal, action, resource);".to_owned()),
        Just("Bulkhead::User::\"uid:0\"".to_owned()),
        Just("\0\u{202e}\u{feff}ｒoot".to_owned()),
        Just("x".repeat(100_000)),
    ]
}

fn via() -> impl Strategy<Value = Via> {
    prop_oneof![Just(Via::Unix), Just(Via::Tls), Just(Via::Loopback), Just(Via::System)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_query_has_an_answer(
        words in proptest::collection::vec(odd(), 12),
        via in via(),
        action in proptest::sample::select(Action::ALL),
        numbers in any::<(u32, u64, u64, u32, i64)>(),
        cached in any::<bool>(),
    ) {
        let mut world = World::new("prod").by(&words[0], via);
        let endpoint = world.vch.clone();
        world.vch.tenant.clone_from(&words[1]);
        world.vch.settings.socket_uids.clear();
        world.endpoint = Some(endpoint);
        (world.name, world.owner, world.asked) = (words[2].clone(), words[3].clone(), words[4].clone());
        world.spec.env = vec![words[5].clone(), format!("{}={}", words[6], words[7])];
        world.spec.labels = [(words[8].clone(), words[9].clone())].into();
        world.spec.user.clone_from(&words[10]);
        world.spec.privileged = true;
        world.accelerator.clone_from(&words[11]);
        world.spec.resources.cpu_milli = numbers.0;
        world.spec.resources.memory_bytes = numbers.1;
        world.usage.memory_bytes = numbers.2;
        world.usage.containers = numbers.3;
        world.now = chrono::DateTime::from_timestamp_millis(numbers.4 % 4_000_000_000_000).unwrap_or_default();
        world.image = cached.then(|| image(&["docker.io/library/nginx"]));
        let settings = Settings { trusted_registries: vec![words[4].clone()], ..Settings::default() };
        let outcome = SET.decide(&settings, &world.query(action));
        for reason in &outcome.reasons {
            prop_assert!(!matches!(reason.rule, Rule::PolicyError(_)), "{}", reason);
        }
        let own_work = via == Via::System || words[1] == "acme";
        if !own_work || action == Action::ContainerCreate {
            prop_assert_eq!(outcome.verdict, Verdict::Deny);
        }
    }
}
