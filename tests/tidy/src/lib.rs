//! Rules of this repository as tests: which crate may know which, sizes, words, places. A rule that is only
//! written down is forgotten; one that fails a test is kept or changed on purpose.
//!
//! What is allowed stands in tables at the top of each test file, each exception with its reason.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's root folder.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// All files that belong to the repository: those that git knows, and new ones that it would not ignore.
/// Paths are relative to the workspace.
pub fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .current_dir(workspace())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    match listed {
        Ok(answer) if answer.status.success() => String::from_utf8_lossy(&answer.stdout)
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            // A file that was deleted but not committed yet is still listed.
            .filter(|path| workspace().join(path).is_file())
            .collect(),
        // A source archive has no git: then everything but the build folder counts.
        _ => walk(&workspace(), Path::new("")),
    }
}

fn walk(root: &Path, below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(root.join(below)) else { return found };
    for entry in entries.flatten() {
        let path = below.join(entry.file_name());
        if path == Path::new("target") || path == Path::new(".git") {
            continue;
        }
        if entry.path().is_dir() {
            found.extend(walk(root, &path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The Rust files among [`files`], with their text.
pub fn rust_files() -> Vec<(PathBuf, String)> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "rs");
    files()
        .into_iter()
        .filter(is_rust)
        .filter_map(|path| std::fs::read_to_string(workspace().join(&path)).ok().map(|text| (path, text)))
        .collect()
}

/// One package of the workspace with what its manifest asks for.
#[derive(Debug)]
pub struct Package {
    /// `@name` for `bulkhead-name`.
    pub name: String,
    /// Names of what it uses when built, outside crates included.
    pub uses: Vec<String>,
    /// Names of what only its tests use.
    pub tests_use: Vec<String>,
}

/// The packages of the workspace, as cargo understands the manifests.
pub fn packages() -> Result<Vec<Package>, String> {
    let answer = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .map_err(|error| error.to_string())?;
    if !answer.status.success() {
        return Err(String::from_utf8_lossy(&answer.stderr).into_owned());
    }
    let data: serde_json::Value =
        serde_json::from_slice(&answer.stdout).map_err(|error| error.to_string())?;
    let all = data.get("packages").and_then(|all| all.as_array()).ok_or("cargo names no packages")?;
    Ok(all.iter().filter_map(package).collect())
}

fn package(value: &serde_json::Value) -> Option<Package> {
    let name = short(value.get("name")?.as_str()?);
    let (mut uses, mut tests_use) = (Vec::new(), Vec::new());
    for dependency in value.get("dependencies")?.as_array()? {
        let used = short(dependency.get("name")?.as_str()?);
        match dependency.get("kind").and_then(|kind| kind.as_str()) {
            Some("dev") => tests_use.push(used),
            _ => uses.push(used),
        }
    }
    Some(Package { name, uses, tests_use })
}

fn short(name: &str) -> String {
    name.strip_prefix("bulkhead-").map_or_else(|| name.to_owned(), |own| format!("@{own}"))
}

/// A package of ours is written `@name`, so that no outside crate can be mistaken for one.
pub fn is_ours(name: &str) -> bool {
    name.starts_with('@')
}
