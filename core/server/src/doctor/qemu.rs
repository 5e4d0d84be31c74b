//! QEMU: there, and new enough.

use super::{Finding, find_program, output};
use crate::config::{BackEndKind, Config};
use std::time::Duration;

const REMEDY: &str = "apt-get install --no-install-recommends qemu-system-x86, or name it with [qemu] binary";
/// The oldest that the machines are tested with.
const OLDEST: u32 = 7;

pub fn check(config: &Config) -> Finding {
    if config.back_end == BackEndKind::Sim {
        return Finding::ok("qemu", "not needed for simulated machines");
    }
    let Some(path) = config.qemu.binary.clone().or_else(|| find_program("qemu-system-x86_64")) else {
        return Finding::failed("qemu", "qemu-system-x86_64 was not found", REMEDY);
    };
    match output(&path.to_string_lossy(), &["--version"], Duration::from_secs(10)) {
        Err(error) => Finding::failed("qemu", error, REMEDY),
        Ok(text) => {
            let version = text
                .split_whitespace()
                .skip_while(|word| *word != "version")
                .nth(1)
                .unwrap_or("unknown")
                .to_owned();
            let major = version.split('.').next().and_then(|number| number.parse::<u32>().ok());
            let found = format!("{version} ({})", path.display());
            match major {
                Some(major) if major >= OLDEST => Finding::ok("qemu", found),
                _ => Finding::failed("qemu", found, format!("use QEMU {OLDEST}.0 or newer")),
            }
        }
    }
}
