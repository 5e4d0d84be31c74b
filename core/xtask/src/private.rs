//! A Bulkhead of one command's own, set up as `up` does it, below a folder that goes with it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::layout::Layout;
use crate::server::{self, Profile};
use crate::{down, root, say};

/// A running server with the first VCH; dropped, both end and their data goes.
pub struct Private {
    folder: PathBuf,
    layout: Layout,
}

impl Private {
    /// Starts what was built before. `more` is appended to the config that `up` would write.
    pub fn start(profile: Profile, folder: &Path, more: &str) -> Result<Self> {
        let layout = Layout::parse(folder.to_str())?;
        let private = Self { folder: folder.to_owned(), layout };
        server::put_in_place(profile, &private.layout)?;
        if !more.is_empty() {
            server::append_to_config(&private.layout, more)?;
        }
        server::start(&private.layout)?;
        server::ensure_vch(&private.layout)?;
        Ok(private)
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// For `DOCKER_HOST`.
    pub fn host(&self) -> String {
        self.layout.docker_host()
    }

    fn stop(&self) -> Result<()> {
        down::stop(&self.layout, true)?;
        root::run(root::command("rm", "to remove its data")?.arg("-rf").arg(&self.folder))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            say::note(&format!("`{}` is not wholly gone: {error:#}", self.folder.display()));
        }
    }
}
