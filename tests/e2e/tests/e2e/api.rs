//! The read calls that clients make anyway, and clients of other ages.

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::run;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::Case;
use crate::world::{World, has};

pub const CASES: &[Case] = &[
    ("api::version_and_info", version_and_info),
    ("api::what_clients_read_anyway", read_anyway),
    ("api::old_clients", old_clients),
    ("api::health_and_metrics", health_and_metrics),
    ("api::an_origin_is_a_page_s_only_where_pages_are", an_origin),
];

fn version_and_info(world: &mut World) -> Result<()> {
    has(&world.dev.ok(&["version"])?, "Bulkhead")?;
    let info = world.dev.ok(&["info"])?;
    // Emulation is no security boundary, and whoever looks is told.
    let machine = world.dev.ok(&["info", "--format", "{{json .}}"])?;
    ensure!(machine.contains("tcg") == info.to_lowercase().contains("tcg"), "{info}");
    Ok(())
}

fn read_anyway(world: &mut World) -> Result<()> {
    for words in [&["network", "ls"][..], &["volume", "ls"], &["system", "df"], &["ps"], &["images"]] {
        world.dev.ok(words)?;
    }
    Ok(())
}

fn old_clients(world: &mut World) -> Result<()> {
    for version in ["1.24", "1.41", "1.54"] {
        let mut command = world.dev.command(&["ps", "--all"]);
        command.env("DOCKER_API_VERSION", version);
        run(&mut command, Duration::from_secs(30))?.ok()?;
    }
    let mut command = world.dev.command(&["ps"]);
    let refused = run(command.env("DOCKER_API_VERSION", "1.12"), Duration::from_secs(30))?;
    has(&refused.failed()?, "too old")
}

/// Clients of WebSockets name an origin, also over a socket that no browser reaches.
fn an_origin(world: &mut World) -> Result<()> {
    let path = world.dev.host().strip_prefix("unix://").context("a unix socket")?.to_owned();
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(
        b"GET /v1.54/containers/nobody/attach/ws HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\
          Connection: close\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    has(&answer, "No such container: nobody")
}

fn health_and_metrics(world: &mut World) -> Result<()> {
    has(&world.server.telemetry("/healthz")?, "HTTP/1.1 200")?;
    has(&world.server.telemetry("/metrics")?, "bulkhead_")?;
    let password = crate::registry::PASSWORD;
    ensure!(!world.server.log().contains(password), "the log holds a password");
    Ok(())
}
