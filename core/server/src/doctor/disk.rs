//! Room for layer disks, container disks and the database.

use super::Finding;
use crate::config::Config;
use nix::sys::statvfs::statvfs;
use std::path::Path;

const LEAST: u64 = 1 << 30;
const GOOD: u64 = 10 << 30;

pub fn check(config: &Config) -> Finding {
    let there = config.data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(facts) = statvfs(there) else {
        return Finding::failed(
            "disk",
            format!("`{}` cannot be asked", there.display()),
            "choose another data_dir",
        );
    };
    let free = facts.blocks_available() * facts.fragment_size();
    verdict(free, &there.display().to_string())
}

fn verdict(free: u64, place: &str) -> Finding {
    let found = format!("{} GiB free at {place}", free >> 30);
    if free < LEAST {
        Finding::failed("disk", found, "free some space, or choose another data_dir")
    } else if free < GOOD {
        Finding::warning("disk", found, "images and containers need more before long: 10 GiB and up")
    } else {
        Finding::ok("disk", found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn little_room_is_told_before_none_is_left() {
        assert_eq!(verdict(0, "/").verdict, Verdict::Failed);
        assert_eq!(verdict(2 << 30, "/").verdict, Verdict::Warning);
        assert_eq!(verdict(20 << 30, "/").verdict, Verdict::Ok);
    }
}
