//! PostgreSQL's programs, and the user that they run as.

use super::Finding;
use crate::config::Config;
use std::fs;
use std::path::Path;

const VERSIONS: std::ops::RangeInclusive<u32> = 15..=18;

pub fn check(config: &Config) -> Finding {
    if config.database_url.is_some() {
        return Finding::ok(
            "database",
            "your own (database_url); the server says at start whether it can be reached",
        );
    }
    let Some((version, path)) = newest() else {
        return Finding::failed(
            "database",
            "no PostgreSQL programs were found",
            "apt-get install --no-install-recommends postgresql-15 (its own cluster is not needed), or set database_url",
        );
    };
    let found = format!("PostgreSQL {version} ({path})");
    if !VERSIONS.contains(&version) {
        let (oldest, newest) = (VERSIONS.start(), VERSIONS.end());
        return Finding::failed("database", found, format!("install PostgreSQL {oldest} to {newest}"));
    }
    if !nix::unistd::geteuid().is_root() {
        return Finding::ok("database", found);
    }
    // PostgreSQL refuses to run as root.
    let names: Vec<&str> = match &config.security.database_user {
        Some(name) => vec![name],
        None => vec!["postgres", "nobody"],
    };
    match names
        .iter()
        .find(|name| matches!(nix::unistd::User::from_name(name), Ok(Some(user)) if !user.uid.is_root()))
    {
        Some(name) => Finding::ok("database", format!("{found}, as user {name}")),
        None => Finding::failed(
            "database",
            format!("{found}, but no user to run it as"),
            format!("adduser --system {}", names.first().unwrap_or(&"postgres")),
        ),
    }
}

fn newest() -> Option<(u32, String)> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let version = entry.file_name().to_str()?.parse().ok()?;
        let bin = entry.path().join("bin");
        let whole = ["initdb", "postgres"].iter().all(|name| bin.join(name).is_file());
        whole.then(|| (version, bin.display().to_string()))
    });
    let installed = versions.max();
    // Where no distribution laid them out like that: on the search path.
    installed.or_else(|| {
        let path = super::find_program("postgres").filter(|path| path.with_file_name("initdb").is_file())?;
        let text = super::output(&path.to_string_lossy(), &["--version"], std::time::Duration::from_secs(10))
            .ok()?;
        let version = text.split_whitespace().last()?.split('.').next()?.parse().ok()?;
        Some((version, path.parent().unwrap_or(Path::new("/")).display().to_string()))
    })
}
