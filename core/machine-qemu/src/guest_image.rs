//! The guest's kernel and initramfs, as `cargo xtask guest-image` makes them: a folder with `vmlinuz`, `initrd` and
//! `guest.json`.

use crate::QemuError;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub(crate) struct GuestImage {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// Release of the kernel.
    pub(crate) kernel_release: String,
}

/// The part of `guest.json` that is needed here.
#[derive(Debug, Deserialize)]
struct Description {
    kernel: String,
}

impl GuestImage {
    pub(crate) fn open(folder: &Path) -> Result<Self, QemuError> {
        let missing = |source| QemuError::GuestImage { folder: folder.into(), source };
        let folder = &folder.canonicalize().map_err(missing)?;
        let text = fs::read(folder.join("guest.json")).map_err(missing)?;
        let description: Description = serde_json::from_slice(&text).map_err(|e| missing(e.into()))?;
        let image = Self {
            kernel: folder.join("vmlinuz"),
            initrd: folder.join("initrd"),
            kernel_release: description.kernel,
        };
        for file in [&image.kernel, &image.initrd] {
            fs::metadata(file).map_err(missing)?;
        }
        Ok(image)
    }
}
