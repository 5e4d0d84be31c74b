//! `[qemu]`: how machines are run.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QemuSection {
    /// Searched for in PATH unless given.
    pub binary: Option<PathBuf>,
    pub accelerator: Accelerator,
    /// Each machine runs as a uid of its own, from this one on. The range must be free on the host.
    pub uid_base: u32,
    /// So many machines at most are cloned ahead of need; 0: none.
    pub spares: usize,
    /// So many images at most have a template of their own; 0: none.
    pub image_templates: usize,
}

/// Each takes memory and, where it is emulated, a second of CPU time to make.
const SPARES_MAX: usize = 64;
/// Each takes memory, and as much of the disk.
const IMAGE_TEMPLATES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// KVM where it really works, else TCG.
    #[default]
    Auto,
    Kvm,
    Tcg,
}

impl Default for QemuSection {
    fn default() -> Self {
        // Above what login.defs and the subuid tools of distributions hand out.
        let (accelerator, uid_base) = (Accelerator::Auto, 2_000_000_000);
        Self { binary: None, accelerator, uid_base, spares: 2, image_templates: 4 }
    }
}

impl QemuSection {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.binary.as_ref().is_some_and(|path| !path.is_absolute()) {
            problems.push("[qemu] binary is not an absolute path".into());
        }
        if self.spares > SPARES_MAX {
            problems.push(format!("[qemu] spares {} is more than {SPARES_MAX}", self.spares));
        }
        if self.image_templates > IMAGE_TEMPLATES_MAX {
            problems.push(format!(
                "[qemu] image_templates {} is more than {IMAGE_TEMPLATES_MAX}",
                self.image_templates
            ));
        }
        if self.uid_base < 65_536 {
            problems.push(format!(
                "[qemu] uid_base {} is among the uids of people and services: at least 65536",
                self.uid_base
            ));
        }
    }
}
