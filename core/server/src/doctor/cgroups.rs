//! Control groups: how CPU and memory of machines are limited on the host.

use super::Finding;
use crate::config::Config;
use std::fs;
use std::path::Path;

pub fn check(_: &Config) -> Finding {
    look(Path::new("/sys/fs/cgroup"))
}

fn look(root: &Path) -> Finding {
    if let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers")) {
        let has = |name: &str| controllers.split_whitespace().any(|found| found == name);
        return if has("cpu") && has("memory") {
            Finding::ok("cgroups", "version 2, with cpu and memory")
        } else {
            Finding::warning(
                "cgroups",
                format!("version 2, with only: {}", controllers.trim()),
                "let the server have the controllers cpu and memory (systemd: Delegate=yes)",
            )
        };
    }
    if root.join("cpu").is_dir() && root.join("memory").is_dir() {
        return Finding::ok("cgroups", "version 1, with cpu and memory");
    }
    Finding::warning(
        "cgroups",
        "no usable controllers",
        "mount cgroups; without them a machine is limited by what it has, not by what the host may spend on it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn both_versions_are_known() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path()).verdict, Verdict::Warning);
        fs::create_dir(dir.path().join("cpu")).unwrap();
        fs::create_dir(dir.path().join("memory")).unwrap();
        assert!(look(dir.path()).found.starts_with("version 1"));
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        assert!(look(dir.path()).found.starts_with("version 2"));
        fs::write(dir.path().join("cgroup.controllers"), "pids\n").unwrap();
        assert_eq!(look(dir.path()).verdict, Verdict::Warning);
    }
}
