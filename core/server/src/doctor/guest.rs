//! Kernel and initramfs of the guests.

use super::Finding;
use crate::config::{BackEndKind, Config};
use std::fs;
use std::path::Path;

pub fn check(config: &Config) -> Finding {
    if config.back_end == BackEndKind::Sim {
        return Finding::ok("guest image", "not needed for simulated machines");
    }
    let dir = &config.guest_dir;
    match kernel_of(dir) {
        Ok(kernel) => Finding::ok("guest image", format!("Linux {kernel} in {}", dir.display())),
        Err(why) => Finding::failed(
            "guest image",
            format!("{}: {why}", dir.display()),
            "make it with `cargo xtask guest-image`, or name its folder with guest_dir",
        ),
    }
}

fn kernel_of(dir: &Path) -> Result<String, String> {
    for name in ["vmlinuz", "initrd"] {
        fs::metadata(dir.join(name)).map_err(|error| format!("{name}: {error}"))?;
    }
    let text = fs::read(dir.join("guest.json")).map_err(|error| format!("guest.json: {error}"))?;
    let facts: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| format!("guest.json: {error}"))?;
    facts
        .get("kernel")
        .and_then(|kernel| kernel.as_str())
        .map(Into::into)
        .ok_or_else(|| "guest.json names no kernel".into())
}
