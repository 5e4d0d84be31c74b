//! Arrows between crates point downward only, and each heavy dependency is known to one crate.

use bulkhead_tidy::{Package, is_ours, packages};

/// Who may use whom. A crate that is not here fails the test: a new one is placed on purpose.
const ARROWS: &[(&str, &[&str])] = &[
    ("@model", &[]),
    ("@guest-protocol", &["@model"]),
    ("@guest-agent", &["@guest-protocol"]),
    ("@store", &["@model"]),
    ("@policy", &["@model"]),
    ("@sandbox", &[]),
    ("@image", &["@model", "@sandbox"]),
    // Its benchmark runs a plugin beside the same code natively.
    ("@plugin", &["@model", "@sandbox", "@sdk", "spread"]),
    // The simulated back end speaks the agent's side of the protocol.
    ("@machine", &["@model", "@guest-protocol"]),
    ("@machine-qemu", &["@machine", "@model", "@guest-protocol"]),
    ("@engine", &["@store", "@policy", "@plugin", "@image", "@machine", "@guest-protocol", "@model"]),
    ("@docker-api", &["@engine", "@model"]),
    ("@admin-api", &["@engine", "@model"]),
    // The root of composition hands every part to the one that needs it.
    (
        "@server",
        &[
            "@docker-api",
            "@admin-api",
            "@machine-qemu",
            "@engine",
            "@store",
            "@policy",
            "@plugin",
            "@image",
            "@machine",
            "@guest-protocol",
            "@model",
        ],
    ),
    ("@xtask", &[]),
    ("@test-support", &["@model", "@machine", "@store", "@image", "@engine", "@guest-protocol"]),
    // The engine on simulated machines, with a real database and policies.
    (
        "@it",
        &[
            "@docker-api",
            "@engine",
            "@store",
            "@policy",
            "@plugin",
            "@image",
            "@machine",
            "@model",
            "@guest-protocol",
            "@test-support",
        ],
    ),
    ("@sdk", &[]),
    // Plugins know the SDK, as anybody's do.
    ("image-sources", &["@sdk"]),
    ("resource-caps", &["@sdk"]),
    ("spread", &["@sdk"]),
    ("datastore-tiers", &["@sdk"]),
    ("hostile-plugin", &["@sdk"]),
    ("hostile-placement", &["@sdk"]),
    ("@tidy", &[]),
    ("@e2e", &["@test-support", "@model"]),
];

/// Who may use these in what is shipped; nobody else may, not even through a test.
const HEAVY: &[(&str, &[&str])] = &[
    // The fixtures make databases for the tests of several crates.
    ("sqlx", &["@store", "@test-support"]),
    ("cedar-policy", &["@policy"]),
    ("wasmtime", &["@plugin"]),
    ("axum", &["@docker-api", "@admin-api", "@server"]),
    ("reqwest", &["@image", "@test-support"]),
];

#[expect(clippy::panic, reason = "without the packages there is nothing to test")]
fn all() -> Vec<Package> {
    packages().unwrap_or_else(|error| panic!("cargo metadata: {error}"))
}

#[test]
fn arrows_point_downward() {
    let mut wrong = Vec::new();
    for package in all() {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            wrong.push(format!("{} has no row in ARROWS", package.name));
            continue;
        };
        for used in package.uses.iter().filter(|used| is_ours(used)) {
            if !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} must not use {used}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn tests_use_what_the_crate_may_use_and_the_fixtures() {
    let mut wrong = Vec::new();
    for package in all() {
        let allowed = ARROWS.iter().find(|(name, _)| *name == package.name).map_or(&[][..], |(_, row)| *row);
        for used in package.tests_use.iter().filter(|used| is_ours(used)) {
            let fixture = used == "@test-support";
            // The port's own crate carries the simulated back end that the crates above test with.
            if !fixture && !allowed.contains(&used.as_str()) && used != &package.name {
                wrong.push(format!("tests of {} must not use {used}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn heavy_dependencies_have_one_home() {
    let mut wrong = Vec::new();
    for package in all() {
        for used in package.uses.iter().chain(&package.tests_use) {
            if let Some((_, homes)) = HEAVY.iter().find(|(name, _)| name == used)
                && !homes.contains(&package.name.as_str())
            {
                wrong.push(format!("{} must not know {used}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn errors_of_libraries_are_typed() {
    const HOMES: &[&str] = &["@server", "@xtask", "@test-support", "@e2e"];
    let wrong: Vec<String> = all()
        .into_iter()
        .filter(|package| package.uses.iter().any(|used| used == "anyhow"))
        .map(|package| package.name)
        .filter(|name| !HOMES.contains(&name.as_str()))
        .collect();
    assert!(wrong.is_empty(), "these must have an error type of their own, not anyhow: {wrong:?}");
}

#[test]
fn what_is_pure_stays_pure() {
    const FORBIDDEN: &[&str] = &["tokio", "nix", "libc", "async-trait", "futures-util", "tracing"];
    let wrong: Vec<String> = all()
        .iter()
        .filter(|package| ["@model", "@guest-protocol"].contains(&package.name.as_str()))
        .flat_map(|package| package.uses.iter().map(|used| format!("{} uses {used}", package.name)))
        .filter(|line| FORBIDDEN.iter().any(|name| line.ends_with(&format!(" {name}"))))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_row_is_about_a_crate_that_is_gone() {
    let names: Vec<String> = all().into_iter().map(|package| package.name).collect();
    let gone: Vec<&str> =
        ARROWS.iter().map(|(name, _)| *name).filter(|name| !names.iter().any(|one| one == name)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}
