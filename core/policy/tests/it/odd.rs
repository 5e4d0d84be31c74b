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

/// A policy as somebody may write it into a class, by numbers.
fn policy(index: usize, (effect, principal, action, condition): (usize, usize, usize, usize)) -> String {
    let pick = |words: &[&'static str], number: usize| words.get(number % words.len()).copied().unwrap_or("");
    let effect = pick(&["permit", "permit", "forbid"], effect);
    let principal = pick(
        &["principal", "principal is Bulkhead::User", "principal == Bulkhead::User::\"uid:1000\""],
        principal,
    );
    let action = pick(
        &[
            "action",
            "action in Bulkhead::Action::\"any\"",
            "action in [Bulkhead::Action::\"own\", Bulkhead::Action::\"admin\"]",
            "action == Bulkhead::Action::\"container.create\"",
        ],
        action,
    );
    let condition = pick(
        &[
            "",
            "when { principal.operator }",
            "unless { principal.via == \"system\" }",
            "when { context.sourceVia == \"unix\" }",
            "when { resource has tenant && principal in resource.tenant }",
        ],
        condition,
    );
    format!("@id(\"p{index}\") {effect} ({principal}, {action}, resource) {condition};\n")
}

/// Callers of several kinds, at their own tenant's things and at another's.
fn worlds() -> Vec<World> {
    let mut worlds = Vec::new();
    for caller in ["uid:0", "uid:1000", "uid:4242", "system"] {
        let via = if caller == "system" { Via::System } else { Via::Unix };
        let own = World::new("dev").by(caller, via);
        let mut other = own.clone();
        other.vch = crate::support::vch("other", "globex", "dev");
        other.vch.settings.socket_uids.clear();
        worlds.extend([own, other]);
    }
    worlds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever a class says, it opens nothing that the base forbids, and a forbid that is added opens nothing at all.
    #[test]
    fn a_class_narrows_and_never_widens_what_the_base_forbids(
        numbers in proptest::collection::vec((0..3_usize, 0..3_usize, 0..4_usize, 0..5_usize), 1..6),
    ) {
        let shipped = bulkhead_policy::read_folder(
            &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies"),
        )
        .unwrap();
        let set = |class: String| {
            let mut files = shipped.clone();
            files.retain(|name, _| name.starts_with("base/"));
            files.insert("dev/a.cedar".into(), class);
            PolicySet::from_files(&files, std::path::Path::new("")).unwrap()
        };
        let open = "@id(\"open\") permit (principal, action, resource);\n";
        let text: String = numbers.iter().enumerate().map(|(index, numbers)| policy(index, *numbers)).collect();
        let (widest, some) = (set(open.into()), set(format!("{open}{text}")));
        let narrower = set(format!("{open}{text}{}", policy(99, (2, numbers.len(), numbers.len(), numbers.len()))));
        for world in worlds() {
            // Others in each case.
            for action in Action::ALL.iter().skip(numbers.len() - 1).step_by(5) {
                let allows = |set: &PolicySet| set.decide(&Settings::default(), &world.query(*action)).is_allowed();
                prop_assert!(allows(&widest) || !allows(&some), "{} {}: {}", world.caller, action, text);
                prop_assert!(allows(&some) || !allows(&narrower), "{} {}: {}", world.caller, action, text);
            }
        }
    }
}
