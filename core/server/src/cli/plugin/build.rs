//! `bulkhead plugin build`: a Rust crate to a component.
//!
//! Cargo compiles it for `wasm32-unknown-unknown`, which has neither files nor clock, and links it with the linker for
//! components that comes with rustc. Nothing else is needed.

use super::super::failure::{FAILED, Failure, USAGE};
use clap::Args;
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-unknown-unknown";
const LINKER: &str = "wasm-component-ld";

/// Fast rather than small; the engine of plugins knows no unwinding.
const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "true"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
];

#[derive(Debug, Args)]
pub struct Build {
    /// The crate's folder
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where cargo keeps what it makes; its own choice unless given
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
}

impl Build {
    /// Builds it; the component's file.
    pub fn run(self) -> Result<PathBuf, Failure> {
        let manifest = self.dir.join("Cargo.toml");
        let found = package(&manifest)?;
        let target_dir = self.target_dir.unwrap_or(found.target_dir);
        // Cargo works in the crate's folder.
        let target_dir = std::path::absolute(&target_dir).map_err(|error| failed(error.to_string()))?;
        check_std()?;
        let linker = linker(&target_dir)?;
        let mut cargo = Command::new(cargo());
        cargo
            .args(["build", "--release", "--target", TARGET, "--package", &found.name, "--manifest-path"])
            .arg(&manifest)
            .arg("--target-dir")
            .arg(&target_dir)
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
            .envs(PROFILE)
            // Flags for this machine's own programs.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .stdout(Stdio::null());
        let status = cargo.status().map_err(|error| failed(format!("cannot start cargo: {error}")))?;
        if !status.success() {
            return Err(failed(format!("`{}` did not build", found.name)));
        }
        Ok(target_dir.join(TARGET).join("release").join(format!("{}.wasm", found.library)))
    }
}

struct Package {
    name: String,
    library: String,
    target_dir: PathBuf,
}

/// The package of a manifest, as cargo understands it.
fn package(manifest: &Path) -> Result<Package, Failure> {
    let output = Command::new(cargo())
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(format!("cannot start cargo: {error}")))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed(format!("`{}` is not the manifest of a crate", manifest.display())))?;
    let own = std::fs::canonicalize(manifest).map_err(|error| failed(error.to_string()))?;
    let packages = metadata.get("packages").and_then(Value::as_array).into_iter().flatten();
    let package = packages
        .into_iter()
        .find(|package| package.get("manifest_path").and_then(Value::as_str).map(Path::new) == Some(&own))
        .ok_or_else(|| Failure::new(USAGE, format!("`{}` has no package", manifest.display())))?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let kinds = |target: &Value| target.get("crate_types").cloned().unwrap_or_default();
    let targets = package.get("targets").and_then(Value::as_array).into_iter().flatten();
    let library = targets
        .into_iter()
        .find(|target| {
            kinds(target).as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
        })
        .ok_or_else(|| {
            Failure::new(USAGE, format!("`{}` makes no `cdylib`", manifest.display()))
                .remedy("add to it: [lib] crate-type = [\"cdylib\", \"rlib\"]")
        })?;
    Ok(Package {
        name: text(package.get("name")),
        library: text(library.get("name")).replace('-', "_"),
        target_dir: PathBuf::from(text(metadata.get("target_directory"))),
    })
}

fn check_std() -> Result<(), Failure> {
    let folder = print(&rustc(), &["--print", "target-libdir", "--target", TARGET])?;
    let there = std::fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some());
    match there {
        true => Ok(()),
        false => Err(failed(format!("this Rust has no standard library for {TARGET}"))
            .remedy(format!("rustup target add {TARGET}"))),
    }
}

/// A script that calls the linker for components as rustc expects of any: without the word by which it chooses among the
/// linkers that one program can be, and with the linker for modules beside it.
fn linker(target_dir: &Path) -> Result<PathBuf, Failure> {
    let host = host()?;
    // A compiler of another origin may have none; the one that cargo uses by itself has.
    let sysroots = [rustc(), "rustc".into()];
    let found =
        sysroots.iter().filter_map(|rustc| print(rustc, &["--print", "sysroot"]).ok()).find_map(|sysroot| {
            let folder = Path::new(&sysroot).join("lib/rustlib").join(&host).join("bin");
            folder.join(LINKER).is_file().then_some(folder)
        });
    let folder = found.ok_or_else(|| {
        failed(format!("this Rust comes without `{LINKER}`")).remedy("install Rust 1.82 or newer by rustup")
    })?;
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -flavor ] && shift 2\nexec {} --wasm-ld-path {} \"$@\"\n",
        quoted(&folder.join(LINKER)),
        quoted(&folder.join("gcc-ld/wasm-ld"))
    );
    let file = target_dir.join("component-ld");
    let written = std::fs::create_dir_all(target_dir)
        .and_then(|()| std::fs::write(&file, script))
        .and_then(|()| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)));
    written.map_err(|error| failed(format!("`{}`: {error}", file.display())))?;
    Ok(file)
}

fn host() -> Result<String, Failure> {
    let version = print(&"rustc".into(), &["--version", "--verbose"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(ToOwned::to_owned).ok_or_else(|| failed("rustc does not say for which host it is"))
}

fn print(program: &OsString, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| failed(format!("cannot start {}: {error}", program.display())))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

fn failed(text: impl Into<String>) -> Failure {
    Failure::new(FAILED, text.into())
}
