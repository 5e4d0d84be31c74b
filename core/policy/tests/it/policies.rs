//! What policies are told, what becomes of what they say, and what a bad set of files leads to.

use crate::support::{World, vch};
use bulkhead_model::PolicyFiles;
use bulkhead_model::reason::Rule;
use bulkhead_model::{Action, Verdict};
use bulkhead_policy::{
    Difference, Known, PolicyError, PolicySet, Settings, Watched, examine, read_folder, write_defaults,
};
use std::path::Path;
use tempfile::TempDir;

/// The shipped policies in a folder of one's own.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_defaults(&dir.path().join("p")).unwrap();
    dir
}

fn write(dir: &TempDir, path: &str, text: &str) {
    std::fs::write(dir.path().join("p").join(path), text).unwrap();
}

fn load(dir: &TempDir) -> Result<PolicySet, PolicyError> {
    PolicySet::load(&dir.path().join("p"))
}

/// The error of the shipped policies plus one file.
fn refused(path: &str, text: &str) -> String {
    let dir = folder();
    write(&dir, path, text);
    let error = load(&dir).unwrap_err().to_string();
    error.replace(dir.path().join("p").to_str().unwrap(), "")
}

#[test]
fn every_action_fits_the_schema() {
    let set = PolicySet::shipped().unwrap();
    let schema = cedar_policy::Schema::from_cedarschema_str(bulkhead_policy::SCHEMA).unwrap().0;
    for class in ["dev", "test", "prod"] {
        for action in Action::ALL {
            let mut world = World::new(class);
            world.endpoint = Some(vch("other", "globex", class));
            world.vch.parent = Some(vch("parent", "acme", class).id);
            let settings = Settings { trusted_registries: vec!["docker.io".into()], ..Settings::default() };
            let outcome = set.decide(&settings, &world.query(*action));
            for reason in &outcome.reasons {
                assert!(!matches!(reason.rule, Rule::PolicyError(_) | Rule::Engine(_)), "{action}: {reason}");
            }
            // The recorded inputs are Cedar's own form: with the schema, they can be read back as they are.
            let entities = outcome.inputs["entities"].clone();
            cedar_policy::Entities::from_json_value(entities, Some(&schema))
                .unwrap_or_else(|error| panic!("{action}: {error:?}"));
            let uid = cedar_policy::EntityUid::from_json(outcome.inputs["action"].clone()).unwrap();
            cedar_policy::Context::from_json_value(outcome.inputs["context"].clone(), Some((&schema, &uid)))
                .unwrap_or_else(|error| panic!("{action}: {error:?}"));
        }
    }
}

#[test]
fn another_subject_than_the_schema_s_is_denied() {
    let set = PolicySet::shipped().unwrap();
    let world = World::new("dev");
    let mut query = world.query(Action::ContainerList);
    query.action = Action::ContainerCreate;
    let outcome = set.decide(&Settings::default(), &query);
    assert_eq!(outcome.verdict, Verdict::Deny);
    assert_eq!(outcome.reasons[0].rule, Rule::PolicyError("schema".into()));
}

#[test]
fn a_denial_reads_well_and_carries_its_numbers() {
    let set = PolicySet::shipped().unwrap();
    let mut world = World::new("test");
    world.spec.resources.memory_bytes = (4096 << 20) - 1;
    let outcome = set.decide(&Settings::default(), &world.query(Action::ContainerCreate));
    assert_eq!(
        outcome.reasons[0].to_string(),
        "policy \"memory-cap-in-test\": a container in test has at most 2048 MiB of memory; memory is 4096 MiB, \
         at most 2048 MiB passes (ask for less with --memory, 2g at most)"
    );
    let numbers: Vec<_> =
        outcome.reasons[0].numbers.iter().map(|n| (n.name.as_str(), n.value, n.unit.as_str())).collect();
    assert_eq!(numbers, [("memory", 4096, "MiB"), ("memory at most", 2048, "MiB")]);
    assert_eq!(outcome.resource, format!("Container::\"{}\"", "07".repeat(32)));
    assert_eq!(outcome.policy_set, set.digest().to_string());
}

#[test]
fn numbers_are_those_of_the_clause_that_forbade() {
    let dir = folder();
    write(
        &dir,
        "dev/limits.cedar",
        r#"@id("limits") @reason("too much")
        forbid (principal, action == Bulkhead::Action::"container.create", resource)
        when { resource.cpuMilli >= 8000 || !(context.usageAfter.containers <= 10) || 100 > resource.diskMib };"#,
    );
    let set = load(&dir).unwrap();
    let mut world = World::new("dev");
    world.usage.containers = 11;
    let text = |world: &World| {
        let outcome = set.decide(&Settings::default(), &world.query(Action::ContainerCreate));
        outcome.reasons[0].text.clone()
    };
    assert_eq!(text(&world), "too much; containers is 11, at most 10 passes");
    world.usage.containers = 1;
    world.spec.resources.cpu_milli = 8000;
    world.spec.resources.disk_bytes = 1;
    assert_eq!(
        text(&world),
        "too much; cpu is 8000 thousandths, at most 7999 thousandths passes; disk is 1 MiB, at least 100 MiB passes"
    );
}

#[test]
fn volume_stores_are_judged_by_name_and_by_what_is_in_them() {
    let dir = folder();
    write(
        &dir,
        "dev/stores.cedar",
        r#"@id("stores") @reason("fast is for little")
        forbid (principal, action == Bulkhead::Action::"volume.create", resource)
        when { resource.store == "fast" && context.usageAfter.storeSizeMib > 8192 };"#,
    );
    let set = load(&dir).unwrap();
    let mut world = World::new("dev");
    let decide = |world: &World| set.decide(&Settings::default(), &world.query(Action::VolumeCreate));
    assert!(decide(&world).is_allowed());
    world.volume.store = "fast".parse().unwrap();
    assert!(decide(&world).reasons[0].text.starts_with("fast is for little"));
    world.usage.store_bytes = 8 << 30;
    assert!(decide(&world).is_allowed());
}

#[test]
fn what_nothing_permits_names_action_caller_and_class() {
    let dir = folder();
    std::fs::remove_file(dir.path().join("p/dev/users.cedar")).unwrap();
    write(
        &dir,
        "dev/only-pulls.cedar",
        r#"@id("pulls") permit (principal, action == Bulkhead::Action::"image.pull", resource);"#,
    );
    let outcome =
        load(&dir).unwrap().decide(&Settings::default(), &World::new("dev").query(Action::ContainerCreate));
    assert_eq!(outcome.reasons[0].rule, Rule::NotPermitted);
    assert_eq!(
        outcome.reasons[0].to_string(),
        "no policy permits this: `container.create` by `uid:1000` on VCH `main`, class `dev` \
         (ask an operator of this installation)"
    );
}

/// Cedar skips a policy that fails: without care, a broken guard would be an open door.
#[test]
fn a_guard_that_fails_denies() {
    let dir = folder();
    write(
        &dir,
        "dev/broken.cedar",
        r#"@id("overflows") forbid (principal, action == Bulkhead::Action::"container.create", resource)
        when { 9223372036854775807 + resource.cpuMilli < 0 };"#,
    );
    let set = load(&dir).unwrap();
    let outcome = set.decide(&Settings::default(), &World::new("dev").query(Action::ContainerCreate));
    assert_eq!(outcome.verdict, Verdict::Deny);
    assert_eq!(outcome.reasons.len(), 1, "{:?}", outcome.reasons);
    assert_eq!(outcome.reasons[0].rule, Rule::PolicyError("overflows".into()));
    assert!(outcome.reasons[0].text.contains("overflow"), "{}", outcome.reasons[0].text);
    // Where it does not apply, it does not fail.
    assert!(set.decide(&Settings::default(), &World::new("prod").query(Action::ContainerStop)).is_allowed());
}

/// A class cannot open what the base closes.
#[test]
fn an_open_permit_in_a_class_opens_neither_other_tenants_nor_administration() {
    let dir = folder();
    write(&dir, "dev/open.cedar", r#"@id("open") permit (principal, action, resource);"#);
    let set = load(&dir).unwrap();
    let mut world = World::new("dev");
    world.vch = vch("other", "globex", "dev");
    world.vch.settings.socket_uids.clear();
    for action in Action::ALL {
        assert!(!set.decide(&Settings::default(), &world.query(*action)).is_allowed(), "{action}");
    }
}

#[test]
fn policies_of_a_class_are_read_by_that_class_only() {
    let set = PolicySet::shipped().unwrap();
    let mut world = World::new("dev");
    world.spec.privileged = true;
    assert!(set.decide(&Settings::default(), &world.query(Action::ContainerCreate)).is_allowed());
    world.vch.class = "lab".parse().unwrap();
    let outcome = set.decide(&Settings::default(), &world.query(Action::ContainerCreate));
    assert_eq!(outcome.reasons[0].rule, Rule::Engine("class-has-policies".into()));
    world.caller = bulkhead_model::Caller::unix(0);
    assert!(set.decide(&Settings::default(), &world.query(Action::VchDelete)).is_allowed());
    assert!(!set.decide(&Settings::default(), &world.query(Action::VchCreate)).is_allowed());
}

#[test]
fn a_class_of_the_operator_s_is_a_folder() {
    let dir = folder();
    std::fs::create_dir(dir.path().join("p/lab")).unwrap();
    write(
        &dir,
        "lab/users.cedar",
        r#"@id("lab-users") permit (principal, action in Bulkhead::Action::"own", resource in Bulkhead::Class::"lab");"#,
    );
    let set = load(&dir).unwrap();
    assert!(set.decide(&Settings::default(), &World::new("lab").query(Action::ContainerCreate)).is_allowed());
    let classes: Vec<_> = set.classes().map(|class| class.as_str()).collect();
    assert_eq!(classes, ["dev", "lab", "prod", "test"]);
}

#[test]
fn inputs_hold_names_of_variables_but_no_values() {
    let world = World::new("dev");
    let outcome =
        PolicySet::shipped().unwrap().decide(&Settings::default(), &world.query(Action::ContainerCreate));
    let text = outcome.inputs.to_string();
    assert!(text.contains("PASSWORD") && !text.contains("hunter2"), "{text}");
    assert_eq!(outcome.inputs["class"], "dev");
}

#[test]
fn wrong_files_are_refused_with_the_place_and_help() {
    let message = refused(
        "dev/a.cedar",
        "@id(\"a\")\nforbid (principal, action == Bulkhead::Action::\"container.create\", resource)\n\
         when { resource.priviledged };\n",
    );
    let lines: Vec<&str> = message.lines().collect();
    assert!(lines[0].starts_with("/dev/a.cedar:3:8: "), "{message}");
    assert!(lines[0].contains("`priviledged`"), "{message}");
    assert_eq!(lines[1], "  | when { resource.priviledged };", "{message}");
    assert_eq!(lines[2], "  |        ^^^^^^^^^^^^^^^^^^^^", "{message}");
    assert!(lines[3].contains("did you mean `privileged`?"), "{message}");

    // One mistake is told once, and the hint is near.
    let message = refused(
        "dev/a.cedar",
        "@id(\"a\")\npermit (principal, action == Bulkhead::Action::\"container.creat\", resource);",
    );
    assert_eq!(message.lines().count(), 4, "{message}");
    assert!(message.starts_with("/dev/a.cedar:2:30: unrecognized action"), "{message}");
    assert!(message.ends_with("did you mean `Bulkhead::Action::\"container.create\"`?"), "{message}");

    let message = refused("dev/a.cedar", "@id(\"a\")\npermit (principal, action, resource)\nwhen { 1 < };\n");
    assert!(message.starts_with("/dev/a.cedar:3:12: "), "{message}");
}

#[test]
fn what_is_not_what_it_seems_is_refused() {
    let id = "@id(\"a\") ";
    for (what, text, expect) in [
        ("no id", "permit (principal, action, resource);", "1:1: this policy has no id"),
        ("odd id", "@id(\"a b\") permit (principal, action, resource);", "the id `a b` is not"),
        (
            "id of another file",
            "@id(\"no-privileged-in-prod\") permit (principal, action, resource);",
            "is taken already, by a policy of /dev/a.cedar",
        ),
        (
            "same id in a file",
            "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);",
            "a.cedar:2:1: the id `a` is taken",
        ),
        (
            "class that is not there",
            &format!("{id}forbid (principal, action, resource in Bulkhead::Class::\"prd\");"),
            "entity `Bulkhead::Class::\"prd\"` is of an enumerated entity type",
        ),
        (
            "never applies",
            &format!("{id}forbid (principal, action, resource) when {{ false }};"),
            "impossible",
        ),
        (
            "action and resource that never meet",
            &format!(
                "{id}forbid (principal, action == Bulkhead::Action::\"image.pull\", resource is Bulkhead::Container);"
            ),
            "a.cedar:1:1",
        ),
        (
            "look-alike letters",
            &format!("{id}permit (principal, action, resource in Bulkhead::Tenant::\"acm\u{435}\");"),
            "acm\u{435}",
        ),
        ("a template", &format!("{id}permit (principal == ?principal, action, resource);"), "templates"),
        ("an empty file", "", "no policy in this file"),
        ("comments only", "// later\n", "no policy in this file"),
        (
            "attribute that may be absent",
            &format!("{id}forbid (principal, action, resource) when {{ principal.uid == 1 }};"),
            "uid",
        ),
        (
            "a label that may be absent",
            &format!(
                "{id}forbid (principal, action == Bulkhead::Action::\"container.create\", resource) when {{ resource.getTag(\"x\") == \"y\" }};"
            ),
            "x",
        ),
    ] {
        let message = refused("dev/a.cedar", text);
        assert!(message.contains(expect), "{what}: {message}");
        assert!(message.contains(".cedar:"), "{what}: {message}");
    }
}

#[test]
fn what_would_stay_unread_is_refused() {
    let permit = "@id(\"a\") permit (principal, action, resource);";
    assert!(refused("stray.cedar", permit).contains("belong into"));
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &str); 6] = [
        ("folder in a folder", |p| std::fs::create_dir(p.join("base/more")).unwrap(), "are not read"),
        (
            "class that cannot be",
            |p| std::fs::rename(p.join("dev"), p.join("Dev")).unwrap(),
            "is not a class",
        ),
        ("empty class", |p| std::fs::create_dir(p.join("lab")).unwrap(), "has no policy file"),
        ("no base", |p| std::fs::remove_dir_all(p.join("base")).unwrap(), "no `base` folder"),
        ("nothing", |p| std::fs::remove_dir_all(p).unwrap(), "No such file"),
        ("not text", |p| std::fs::write(p.join("dev/a.cedar"), [0xff, 0xfe]).unwrap(), "not UTF-8"),
    ];
    for (what, spoil, expect) in cases {
        let dir = folder();
        spoil(&dir.path().join("p"));
        let message = load(&dir).unwrap_err().to_string();
        assert!(message.contains(expect), "{what}: {message}");
    }
}

#[test]
fn a_set_that_permits_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["base", "dev"] {
        std::fs::create_dir_all(dir.path().join("p").join(folder)).unwrap();
        write(
            &dir,
            &format!("{folder}/a.cedar"),
            &format!("@id(\"{folder}\") forbid (principal, action, resource);"),
        );
    }
    let message = load(&dir).unwrap_err().to_string();
    assert!(message.contains("no policy permits anything in class `dev`"), "{message}");
}

#[test]
fn what_changed_is_told_by_id() {
    let dir = folder();
    let before = load(&dir).unwrap();
    std::fs::remove_file(dir.path().join("p/test/memory.cedar")).unwrap();
    write(&dir, "dev/a.cedar", "@id(\"a\") permit (principal, action, resource);");
    let text = std::fs::read_to_string(dir.path().join("p/prod/users.cedar")).unwrap();
    write(&dir, "prod/users.cedar", &text.replace("within what", "within all that"));
    let expected = Difference {
        added: vec!["a".into()],
        removed: vec!["memory-cap-in-test".into()],
        changed: vec!["prod-users-work".into()],
    };
    let after = load(&dir).unwrap();
    assert_eq!(before.difference(&after), expected);
    assert_ne!(before.digest(), after.digest());
}

#[test]
fn a_policy_that_fails_on_ordinary_requests_is_found_with_its_place() {
    let dir = folder();
    write(
        &dir,
        "dev/broken.cedar",
        "// Far too much.\n@id(\"overflows\")\nforbid (principal, action == Bulkhead::Action::\"container.create\", \
         resource)\nwhen { 9223372036854775807 + resource.cpuMilli < 0 };",
    );
    load(&dir).unwrap().probe().unwrap_err();
    let message =
        examine(&read_folder(&dir.path().join("p")).unwrap(), Path::new("")).unwrap_err().to_string();
    assert!(message.starts_with("dev/broken.cedar:2:1: this policy fails, which denies: "), "{message}");
    assert!(message.contains("overflow") && message.contains("`container.create`"), "{message}");
    assert_eq!(message.matches("this policy fails").count(), 1, "{message}");
}

/// What was recorded is answered again as it was, twice, whatever was asked.
#[test]
fn a_replay_is_the_decision_again() {
    let set = PolicySet::shipped().unwrap();
    let settings = Settings { trusted_registries: vec!["docker.io".into()], ..Settings::default() };
    for class in ["dev", "test", "prod", "lab"] {
        for action in Action::ALL {
            let mut world = World::new(class);
            world.vch.parent = Some(vch("parent", "acme", class).id);
            world.spec.resources.memory_bytes = 3 << 30;
            world.spec.labels.insert("a \"b\"".into(), "\u{202e}".into());
            world.spec.privileged = class == "prod";
            let outcome = set.decide(&settings, &world.query(*action));
            let text = outcome.inputs.to_string();
            for _ in 0..2 {
                let replayed = set.replay(&serde_json::from_str(&text).unwrap()).unwrap();
                assert_eq!(replayed.verdict, outcome.verdict, "{class} {action}");
                assert_eq!(replayed.reasons, outcome.reasons, "{class} {action}");
            }
        }
    }
}

#[test]
fn inputs_that_are_none_are_not_replayed() {
    let set = PolicySet::shipped().unwrap();
    let good = set.decide(&Settings::default(), &World::new("dev").query(Action::ContainerCreate)).inputs;
    let spoilt = |pointer: &str, value: serde_json::Value| {
        let mut inputs = good.clone();
        *inputs.pointer_mut(pointer).unwrap() = value;
        set.replay(&inputs).unwrap_err().to_string()
    };
    assert!(spoilt("/action/id", "container.fly".into()).contains("no such action"));
    assert!(spoilt("/principal/type", "Evil::User".into()).contains("no such type"));
    assert!(spoilt("/context/now/__extn/arg", "yesterday".into()).contains("now"));
    assert!(spoilt("/entities", 7.into()).contains("no list"));
    assert!(set.replay(&serde_json::Value::Null).is_err());
}

#[test]
fn a_folder_is_read_once_whoever_writes_is_done() {
    let dir = folder();
    let mut watched = Watched::new(dir.path().join("p"));
    assert!(watched.look(false).is_none(), "one look proves nothing");
    assert!(watched.look(false).unwrap().unwrap().contains_key("dev/users.cedar"));
    assert!(watched.look(false).is_none(), "nothing changed");
    write(&dir, "dev/a.cedar", "// half");
    assert!(watched.look(false).is_none(), "it may be written to yet");
    write(&dir, "dev/a.cedar", "// whole, and longer");
    assert!(watched.look(false).is_none(), "and it was");
    assert_eq!(watched.look(false).unwrap().unwrap()["dev/a.cedar"], "// whole, and longer");
    std::fs::create_dir_all(dir.path().join("p/cases/x/ALLOW")).unwrap();
    write(&dir, "cases/x/ALLOW/a.json", "{}");
    assert!(watched.look(false).is_none());
    assert!(watched.look(false).unwrap().unwrap().contains_key("cases/x/ALLOW/a.json"), "cases count, too");
    std::fs::remove_dir_all(dir.path().join("p")).unwrap();
    assert!(watched.look(false).is_none());
    watched.look(false).unwrap().unwrap_err();
}

#[test]
fn names_and_sizes_of_files_are_limited() {
    let permit = "@id(\"a\") permit (principal, action, resource);".to_owned();
    let refused = |name: &str, text: &str| {
        let mut files = PolicyFiles::from([("base/a.cedar".into(), permit.clone())]);
        files.insert(name.into(), text.into());
        PolicySet::from_files(&files, Path::new("")).unwrap_err().to_string()
    };
    for (name, expected) in [
        ("../base/b.cedar", "cannot be called that"),
        ("dev/.b.cedar", "cannot be called that"),
        ("dev//b.cedar", "cannot be called that"),
        ("dev/b\n.cedar", "cannot be called that"),
        ("dev/b.txt", "belong into"),
        ("dev/more/b.cedar", "belong into"),
        ("b.cedar", "belong into"),
        ("cases/x/MAYBE/a.json", "cases are called"),
        ("cases/a.json", "cases are called"),
    ] {
        let message = refused(name, &permit);
        assert!(message.contains(expected), "{name}: {message}");
    }
    assert!(refused("dev/b.cedar", &" ".repeat((1 << 20) + 1)).contains("at most 1048576"));
}

#[test]
fn a_tenant_that_is_not_there_is_told_with_the_one_that_is_meant() {
    let dir = folder();
    let vch = vch("main", "acme", "dev").id.to_string();
    write(
        &dir,
        "dev/a.cedar",
        &format!(
            "@id(\"a\") forbid (principal in Bulkhead::Tenant::\"amce\", action, resource);\n\
             @id(\"b\") forbid (principal, action, resource in Bulkhead::Vch::\"{vch}\") \
             unless {{ principal in [Bulkhead::Tenant::\"acme\", Bulkhead::Tenant::\"zebra\"] }};"
        ),
    );
    let set = load(&dir).unwrap();
    let tenants = ["acme".to_owned(), "globex".to_owned()].into();
    let known = Known { tenants, vchs: [vch].into() };
    let told: Vec<_> = set
        .strangers(&known)
        .into_iter()
        .map(|problem| (problem.line, problem.message, problem.help.unwrap_or_default()))
        .collect();
    let text = |id: &str, name: &str| format!("policy `{id}` names the tenant `{name}`, which is not there");
    let help = "did you mean `acme`?".to_owned();
    assert_eq!(told, [(1, text("a", "amce"), help), (2, text("b", "zebra"), String::new())]);
    assert_eq!(set.strangers(&Known::default()).len(), 4);
}

/// A stack that ends would end the server.
#[test]
fn what_nests_without_end_is_refused_and_what_just_passes_is_harmless() {
    let condition = |text: &str| {
        format!(
            "@id(\"a\") forbid (principal, action == Bulkhead::Action::\"container.create\", resource) when {{ {text} }};"
        )
    };
    let deep = condition(&format!("{}true{}", "(".repeat(5000), ")".repeat(5000)));
    let message = refused("dev/a.cedar", &deep);
    assert!(message.starts_with("/dev/a.cedar:1:1") && message.contains("40 brackets"), "{message}");
    // As deep as it may be, on the small stack of a thread as the server has them.
    let brackets = format!("{}resource.privileged{}", "(".repeat(38), ")".repeat(38));
    let chain = vec!["resource.privileged"; 240].join(" || ");
    let ifs =
        format!("{} false", "if resource.privileged then true else".repeat(240).replace("else", "else "));
    for text in [brackets, chain, ifs] {
        let dir = folder();
        write(&dir, "dev/a.cedar", &condition(&text));
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let decided = thread.spawn(move || {
            let files = read_folder(&dir.path().join("p")).unwrap();
            let set = examine(&files, Path::new("")).unwrap().passed().unwrap();
            let world = World::new("dev");
            let outcome = set.decide(&Settings::default(), &world.query(Action::ContainerCreate));
            (outcome.is_allowed(), set.replay(&outcome.inputs).unwrap().verdict)
        });
        assert_eq!(decided.unwrap().join().unwrap(), (true, Verdict::Allow));
    }
}
