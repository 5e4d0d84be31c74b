//! A Rust that compiles to WebAssembly.
//!
//! On an ordinary machine that is the installed one with one more target. Where only package registries can be reached,
//! the distribution's newest compiler is unpacked beside it, with the sources of the standard library, and that is built
//! once: sources of another version than the compiler's do not build.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::say::{self, Step};
use crate::{apt, layout, root, setup};

const TARGET: &str = "wasm32-unknown-unknown";
/// Debian's package of a current compiler, made for building browsers; its name stays while the version grows.
const COMPILER: &str = "rustc-web";
/// rustup tries for minutes to reach a server that cannot be reached.
const PATIENCE: &str = "90";

/// The compiler to use, where it is not the installed one.
pub fn ensure() -> Result<Option<PathBuf>> {
    if has_std(Path::new("rustc")) {
        return Ok(None);
    }
    let unpacked = unpacked_rustc();
    if has_std(&unpacked) {
        return Ok(Some(unpacked));
    }
    let step = Step::start(format!("Rust's standard library for {TARGET}"));
    let added = Command::new("timeout")
        .args([PATIENCE, "rustup", "target", "add", TARGET])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if added.is_ok_and(|status| status.success()) && has_std(Path::new("rustc")) {
        step.done("came by rustup");
        return Ok(None);
    }
    say::note(
        "rustup cannot bring it: the distribution's compiler and sources are unpacked, and it is built",
    );
    unpack().context("the distribution's compiler")?;
    build_std().context("building the standard library")?;
    if !has_std(&unpacked) {
        bail!("the standard library for {TARGET} was built, and is still not to be found");
    }
    step.done("built from the distribution's sources");
    Ok(Some(unpacked))
}

fn has_std(rustc: &Path) -> bool {
    let answer = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output();
    let Ok(answer) = answer else { return false };
    let folder = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
    let is_std = |name: &str| name.starts_with("libstd-") && name.ends_with(".rlib");
    std::fs::read_dir(folder)
        .is_ok_and(|files| files.flatten().any(|file| file.file_name().to_str().is_some_and(is_std)))
}

fn folder() -> PathBuf {
    setup::unpacked(COMPILER)
}

fn unpacked_rustc() -> PathBuf {
    layout::target().join("wasm-toolchain").join("rustc")
}

fn unpack() -> Result<()> {
    apt::refresh_lists()?;
    let version = apt::candidate(COMPILER)?;
    // `1.96.0+dfsg1-1`: the library's package has the first two numbers in its name.
    let short: Vec<&str> = version.split('.').take(2).collect();
    let library = format!("libstd-rust-web-{}", short.join("."));
    let llvm = apt::dependency(&library, "libllvm")?;
    apt::unpack_together(&[COMPILER, "libstd-rust-web-dev", &library, "rust-web-src", &llvm], &folder())?;
    let usr = folder().join("usr");
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{usr}/lib/x86_64-linux-gnu' exec '{usr}/bin/rustc' \"$@\"\n",
        usr = usr.display()
    );
    let rustc = unpacked_rustc();
    std::fs::create_dir_all(rustc.parent().context("a folder")?)?;
    std::fs::write(&rustc, script)?;
    root::run(Command::new("chmod").arg("755").arg(&rustc))
}

/// Cargo builds it for a crate that is empty, and what it made is put where the compiler looks.
fn build_std() -> Result<()> {
    let work = layout::target().join("wasm-toolchain/std");
    std::fs::create_dir_all(work.join("src"))?;
    std::fs::write(work.join("src/lib.rs"), "#![no_std]\n")?;
    let manifest = "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
                    [profile.release]\npanic = \"abort\"\n";
    std::fs::write(work.join("Cargo.toml"), manifest)?;
    let mut cargo = crate::server::cargo(&["build", "--quiet", "--release", "--target", TARGET]);
    cargo
        .arg("-Zbuild-std=std,panic_abort")
        .current_dir(&work)
        .env("RUSTC", unpacked_rustc())
        // What lets a released compiler take options of an unreleased one; it is for this one step.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Cembed-bitcode=yes")
        .env("CARGO_TARGET_DIR", work.join("target"));
    root::run(&mut cargo)?;
    let made = work.join("target").join(TARGET).join("release/deps");
    let to = folder().join("usr/lib/rustlib").join(TARGET).join("lib");
    std::fs::create_dir_all(&to)?;
    for file in std::fs::read_dir(&made)?.flatten() {
        let name = file.file_name();
        let text = name.to_string_lossy();
        if text.ends_with(".rlib") && !text.starts_with("libempty-") {
            std::fs::copy(file.path(), to.join(&name))?;
        }
    }
    std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())
}
