//! A file, or a folder with all that is in it, as an archive.

use super::archive::Archive;
use super::{At, Wrong};
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Entries are named after `name`; an empty one leaves the folder itself out.
pub fn archive(path: &Path, name: &[u8], out: &mut impl Write) -> Result<(), Wrong> {
    let mut archive = Archive::new(out);
    add(&mut archive, path, name)?;
    archive.finish()
}

/// Deeper than a path can be long, there is nothing to be opened, so this ends.
fn add(archive: &mut Archive<'_, impl Write>, path: &Path, name: &[u8]) -> Result<(), Wrong> {
    if !name.is_empty() {
        archive.add(path, name)?;
    }
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if !is_folder {
        return Ok(());
    }
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.at("read", path)?,
    };
    for entry in entries {
        let below = entry.at("read", path)?.file_name();
        let name = match name {
            b"" => below.as_bytes().to_vec(),
            name => [name, b"/", below.as_bytes()].concat(),
        };
        add(archive, &path.join(&below), &name)?;
    }
    Ok(())
}
