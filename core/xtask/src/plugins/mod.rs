//! The plugins that come with Bulkhead, and those that its tests are hurt by, as components in `target/plugins`.
//!
//! They are built as anybody builds one, by `bulkhead plugin build`.

mod toolchain;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::say::Step;
use crate::{layout, root};

/// `cargo xtask plugins`.
pub fn run(words: &[String]) -> Result<ExitCode> {
    if let Some(word) = words.first() {
        bail!("`plugins` takes no arguments, and `{word}` is one");
    }
    let bulkhead = layout::target().join("debug/bulkhead");
    root::run(&mut crate::server::cargo(&["build", "--workspace", "--bin", "bulkhead"]))?;
    build(&bulkhead)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds all of them by the given program.
pub fn build(bulkhead: &Path) -> Result<()> {
    let rustc = toolchain::ensure()?;
    let step = Step::start("plugins");
    let out = layout::target().join("plugins");
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let all = all()?;
    for folder in &all {
        let name = folder.file_name().context("a folder without a name")?;
        let mut command = Command::new(bulkhead);
        command.args(["plugin", "build", "--target-dir"]).arg(layout::target().join("wasm")).arg(folder);
        command.env("CARGO", std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // Of a build that this program may be a part of.
        command.env_remove("CARGO_TARGET_DIR");
        if let Some(rustc) = &rustc {
            command.env("RUSTC", rustc);
        }
        let answer =
            command.stderr(std::process::Stdio::inherit()).output().context("cannot start bulkhead")?;
        if !answer.status.success() {
            bail!("plugin `{}` did not build", folder.display());
        }
        let component = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
        let to = out.join(name).with_extension("wasm");
        std::fs::copy(&component, &to).with_context(|| component.display().to_string())?;
    }
    step.done(&format!("{} in {}", all.len(), out.display()));
    Ok(())
}

fn all() -> Result<Vec<PathBuf>> {
    let of_tests = ["tests/hostile-plugin", "tests/hostile-placement"];
    let mut found: Vec<_> = of_tests.iter().map(|path| layout::workspace().join(path)).collect();
    let folder = layout::workspace().join("plugins");
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.join("Cargo.toml").is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
