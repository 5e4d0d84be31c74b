//! The stock docker CLI against a real server with real machines and a real registry.
//!
//! One server, one registry and one set of images serve all cases, because each machine takes seconds to boot under
//! emulation. So this program has a harness of its own: it makes the world before the first case that needs it, and
//! takes it down after the last one, whatever the cases did, and that the world can be taken down is itself a case.
//! It is driven like other test programs: `cargo test -p bulkhead-e2e -- FILTER`.

mod api;
mod busy;
mod closed;
mod deny;
mod examples;
mod files;
mod fsck;
mod harness;
mod image_commands;
mod images;
mod ipv6;
mod isolation;
mod life;
mod lifecycle;
mod load;
mod network;
mod output;
mod own_database;
mod placement;
mod plugins;
mod process;
mod refused;
mod registry;
mod run;
mod sdk;
mod services;
mod soak;
mod streams;
mod survival;
mod templates;
mod volumes;
mod watch;
mod world;

use bulkhead_test_support::BOOT;
use std::process::ExitCode;

fn main() -> ExitCode {
    // With machines that boot there are no clones to look at.
    let clones = if std::env::var_os(BOOT).is_some() { &[] } else { templates::CASES };
    let groups = [
        // The first one: what is new here is that a refusal explains itself.
        deny::CASES,
        plugins::CASES,
        placement::CASES,
        examples::CASES,
        run::CASES,
        output::CASES,
        streams::CASES,
        files::CASES,
        clones,
        volumes::CASES,
        watch::CASES,
        sdk::CASES,
        load::CASES,
        process::CASES,
        lifecycle::CASES,
        life::CASES,
        image_commands::CASES,
        refused::CASES,
        isolation::CASES,
        network::CASES,
        ipv6::CASES,
        closed::CASES,
        busy::CASES,
        services::CASES,
        soak::CASES,
        api::CASES,
        own_database::CASES,
        // It kills the server.
        survival::CASES,
        // The last one: nothing may be left by then.
        fsck::CASES,
    ];
    harness::main(&groups.concat())
}
