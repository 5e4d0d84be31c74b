//! Components that `cargo xtask plugins` made, and what compiles them.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::PathBuf;

/// The component of a plugin of this repository, by the name of its folder.
pub fn component(name: &str) -> Result<Vec<u8>> {
    let file = file(name)?;
    std::fs::read(&file).with_context(|| format!("`{}`; `cargo xtask plugins` makes it", file.display()))
}

/// Where it is.
pub fn file(name: &str) -> Result<PathBuf> {
    let target = crate::binary()?;
    let target = target.parent().and_then(std::path::Path::parent).context("no target folder")?;
    Ok(target.join("plugins").join(name).with_extension("wasm"))
}

/// The server's program, and the words that make it compile.
pub fn compiler() -> Result<(PathBuf, Vec<OsString>)> {
    Ok((crate::binary()?, vec!["plugin-compile".into()]))
}
