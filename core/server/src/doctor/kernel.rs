//! The host's kernel: `close_range`, `pidfd`, `openat2`, user namespaces in their present form.

use super::Finding;
use crate::config::Config;

/// Debian 11's. Older ones lack calls that sandboxing needs.
const OLDEST: (u32, u32) = (5, 10);

pub fn check(_: &Config) -> Finding {
    let Ok(name) = nix::sys::utsname::uname() else {
        return Finding::failed("kernel", "cannot be asked", "use Linux");
    };
    let release = name.release().to_string_lossy();
    let machine = name.machine().to_string_lossy();
    if machine != "x86_64" {
        return Finding::failed(
            "kernel",
            format!("{release} on {machine}"),
            "use an x86-64 machine: no other is supported yet",
        );
    }
    match version(&release) {
        Some(found) if found >= OLDEST => Finding::ok("kernel", release),
        _ => Finding::failed("kernel", release, format!("use Linux {}.{} or newer", OLDEST.0, OLDEST.1)),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert!(version("5.9.1") < Some(OLDEST));
        assert!(version("5.10.0") >= Some(OLDEST));
    }
}
