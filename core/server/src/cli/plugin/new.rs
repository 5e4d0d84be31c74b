//! `bulkhead plugin new`: a crate to begin with, which builds, passes its test and does something.

use super::super::failure::{FAILED, Failure, USAGE};
use bulkhead_model::plugin::PluginName;
use clap::Args;
use std::path::{Path, PathBuf};

const MANIFEST: &str = include_str!("new/manifest.toml");
const LIBRARY: &str = include_str!("new/lib.rs.txt");

#[derive(Debug, Args)]
pub struct New {
    /// Its name, and that of the folder that is made
    name: PluginName,
    /// The folder `sdk/rust` of Bulkhead's sources
    #[arg(long, value_name = "DIR", env = "BULKHEAD_SDK")]
    sdk: PathBuf,
}

impl New {
    /// Makes it; the folder.
    pub fn run(self) -> Result<PathBuf, Failure> {
        let failed = |path: &Path, error: &std::io::Error| {
            Failure::new(FAILED, format!("`{}`: {error}", path.display()))
        };
        let sdk = std::fs::canonicalize(&self.sdk).map_err(|error| failed(&self.sdk, &error))?;
        if !sdk.join("Cargo.toml").is_file() {
            return Err(Failure::new(USAGE, format!("`{}` is not the folder of the SDK", sdk.display())));
        }
        let folder = PathBuf::from(self.name.as_str());
        // An own folder: nothing of anybody's is written over.
        std::fs::create_dir(&folder).map_err(|error| failed(&folder, &error))?;
        let type_name = type_name(self.name.as_str());
        for (file, text) in [("Cargo.toml", MANIFEST), ("src/lib.rs", LIBRARY)] {
            let path = folder.join(file);
            let text = text.replace("NAME", self.name.as_str()).replace("TYPE", &type_name);
            let text = text.replace("SDK", &sdk.display().to_string());
            let folder = path.parent().unwrap_or(&folder);
            std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(&path, text))
                .map_err(|error| failed(&path, &error))?;
        }
        Ok(folder)
    }
}

/// `team-label` as Rust writes types, and not one of the SDK's: `TeamLabelPlugin`.
fn type_name(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(word).chain(["Plugin".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types() {
        assert_eq!(
            ["caps", "team-label", "a--b"].map(type_name),
            ["CapsPlugin", "TeamLabelPlugin", "ABPlugin"]
        );
    }
}
